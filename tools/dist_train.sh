#!/usr/bin/env bash
# CONFIG GPUS [FLAGS OF train.py]; without a GPU, GPUS counts processes (gloo)
set -e
if [ $# -lt 2 ]; then echo "usage: $0 CONFIG GPUS [FLAGS OF train.py]" >&2; exit 2; fi
CONFIG=$1
GPUS=$2
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
PORT=${PORT:-29500}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}

PYTHONPATH="$(dirname "$0")/..:$PYTHONPATH" ${PYTHON:-python} -m torch.distributed.run \
    --nnodes="$NNODES" --node_rank="$NODE_RANK" --nproc_per_node="$GPUS" \
    --master_addr="$MASTER_ADDR" --master_port="$PORT" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
