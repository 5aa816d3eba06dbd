#!/usr/bin/env bash
# Trains on several hosts: run it on each of them, with the same RENDEZVOUS, data and run folder (on a shared disk).
#
#   NUM_HOSTS=2 RENDEZVOUS=host-1:29400 launch/torchrun.sh paper-4b --data tokens --out runs/4b
#
# Given again with --resume at the end, after whatever stopped it, it goes on; the number of hosts may be another one.
set -euo pipefail

NUM_HOSTS="${NUM_HOSTS:-1}"
PROCESSES_PER_HOST="${PROCESSES_PER_HOST:-gpu}" # as many as GPUs
RENDEZVOUS="${RENDEZVOUS:-localhost:0}"         # one of the hosts, with a free port
RUN_ID="${RUN_ID:-cogview}"                     # the same on all hosts, another for each run at a time

# The GPUs do the work; many threads a process would only be in each other's way.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
# Asked to end, torchrun passes that on and kills after so many seconds: time for a step and a checkpoint.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-540}"

exec torchrun \
    --nnodes "$NUM_HOSTS" \
    --nproc-per-node "$PROCESSES_PER_HOST" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$RENDEZVOUS" \
    --rdzv-id "$RUN_ID" \
    -m cogview train text-to-image "$@"
