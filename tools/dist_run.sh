#!/usr/bin/env bash
# SCRIPT GPUS [ARGUMENTS]: what dist_train.sh and dist_test.sh share. On one node torchrun takes a free port unless PORT
# names one
NODES=(--standalone --local-addr=127.0.0.1)
if [ "${NNODES:-1}" != 1 ] || [ -n "$PORT" ]; then
    PORT=${PORT:-29500}
    MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
    if [ "${NODE_RANK:-0}" = 0 ] && (exec 3<>"/dev/tcp/$MASTER_ADDR/$PORT") 2>/dev/null; then
        echo "the port must be free, but another program listens on $PORT of $MASTER_ADDR: set PORT to another number" \
             "on every node, or on a single node leave PORT out" >&2
        exit 1
    fi
    NODES=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="$MASTER_ADDR" --master_port="$PORT")
fi
PYTHONPATH="$(dirname "$0")/..:$PYTHONPATH" exec ${PYTHON:-python} -m torch.distributed.run "${NODES[@]}" \
    --nproc_per_node="$2" "$(dirname "$0")/$1" "${@:3}"
