#!/usr/bin/env bash
# CONFIG CHECKPOINT GPUS [FLAGS OF test.py]; otherwise as dist_train.sh
if [ $# -lt 3 ]; then echo "usage: $0 CONFIG CHECKPOINT GPUS [FLAGS OF test.py]" >&2; exit 2; fi
exec bash "$(dirname "$0")/dist_run.sh" test.py "$3" "$1" "$2" --launcher pytorch "${@:4}"
