#!/usr/bin/env bash
# One machine: a process for each GPU, or as many as are asked for.
#   examples/launch/one_machine.sh configs/FILE.json [2]
# A run that was broken off goes on from its newest checkpoint.
set -euo pipefail
config=${1:?give a configuration file}
processes=${2:-gpu}
export TORCH_CPP_LOG_LEVEL=ERROR # torch's warnings come from every process

torchrun --standalone --nproc_per_node="$processes" --max-restarts=3 \
  sft_omni.py --config "$config" --resume
