#!/usr/bin/env bash
# CONFIG GPUS [FLAGS OF train.py]; without a GPU, GPUS counts processes (gloo). PORT, NNODES, NODE_RANK, MASTER_ADDR: as in
# MMPretrain
if [ $# -lt 2 ]; then echo "usage: $0 CONFIG GPUS [FLAGS OF train.py]" >&2; exit 2; fi
exec bash "$(dirname "$0")/dist_run.sh" train.py "$2" "$1" --launcher pytorch "${@:3}"
