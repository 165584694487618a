#!/usr/bin/env bash
# Two machines: start this on both, with the same address, which is that of one of them.
#   examples/launch/two_machines.sh configs/FILE.json 10.0.0.1
# The data, the parts and the output folder have the same paths on both, in a shared file system.
set -euo pipefail
config=${1:?give a configuration file}
address=${2:?give the address of one of the machines}

torchrun --nnodes=2 --nproc_per_node=gpu --max-restarts=3 \
  --rdzv_backend=c10d --rdzv_endpoint="$address:29500" --rdzv_id=omnitune \
  sft_omni.py --config "$config" --parallel '{"mode": "fsdp", "replicate": 2}'
