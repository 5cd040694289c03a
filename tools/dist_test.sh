#!/usr/bin/env bash
# CONFIG CHECKPOINT GPUS [FLAGS OF test.py]; without a GPU, GPUS counts processes (gloo)
set -e
if [ $# -lt 3 ]; then echo "usage: $0 CONFIG CHECKPOINT GPUS [FLAGS OF test.py]" >&2; exit 2; fi
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
PORT=${PORT:-29500}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}

PYTHONPATH="$(dirname "$0")/..:$PYTHONPATH" ${PYTHON:-python} -m torch.distributed.run \
    --nnodes="$NNODES" --node_rank="$NODE_RANK" --nproc_per_node="$GPUS" \
    --master_addr="$MASTER_ADDR" --master_port="$PORT" \
    "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
