#!/usr/bin/env bash
# PARTITION JOB_NAME WORKERS PLAN [FLAGS OF benchmark.py worker]: an array of workers, one GPU each. Slurm's TERM, two
# minutes before a time limit, makes a worker give its run back
set -e
if [ $# -lt 4 ]; then echo "usage: $0 PARTITION JOB_NAME WORKERS PLAN [FLAGS OF benchmark.py worker]" >&2; exit 2; fi
PARTITION=$1
JOB_NAME=$2
WORKERS=$3
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
export LC_ALL=C.UTF-8  # or printf would quote in a way that sh cannot read
COMMAND="exec $(printf '%q ' "${PYTHON:-python}" -u "$(dirname "$0")/benchmark.py" worker "${@:4}")"

# SBATCH_ARGS is split into words on purpose
PYTHONPATH="$(dirname "$0")/..:$PYTHONPATH" sbatch -p "$PARTITION" --job-name="$JOB_NAME" --array=1-"$WORKERS" --gres=gpu:1 \
    --cpus-per-task="$CPUS_PER_TASK" --requeue --open-mode=append --signal=B:TERM@120 ${SBATCH_ARGS} --wrap="$COMMAND"
