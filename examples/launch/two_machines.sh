#!/usr/bin/env bash
# Two machines: start this on both, with the same address, which is that of one of them.
#   examples/launch/two_machines.sh configs/FILE.json 10.0.0.1 [options of sft_omni.py]
# The data, the parts and the output folder have the same paths on both, in a shared file system.
# PROCESSES: how many on each machine [default: one for each GPU].
# TRIES: how often torchrun is begun [default: 5].  RDZV_CONF: its --rdzv_conf.
# LOCAL_ADDR: this machine's own address, where the machines do not know each other by name.
set -euo pipefail
config=${1:?give a configuration file}
address=${2:?give the address of one of the machines}
shift 2

# Each start gets a store of its own, which a machine that comes back later is told of.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export TORCH_CPP_LOG_LEVEL=ERROR # torch's warnings come from every process
conf=${RDZV_CONF:-join_timeout=600}
own=()
if [ -n "${LOCAL_ADDR:-}" ]; then
  own=(--local_addr="$LOCAL_ADDR")
  if [ "$LOCAL_ADDR" = "$address" ]; then conf+=",is_host=1"; else conf+=",is_host=0"; fi
fi

# torchrun starts lost processes anew, but ends itself where it has lost the other machine. Then it
# is begun again, waits for the other, and the run goes on from its newest checkpoint.
stopped=""
trap 'stopped=130' INT
trap 'stopped=143' TERM
for _ in $(seq "${TRIES:-5}"); do
  status=0
  torchrun --nnodes=2 --nproc_per_node="${PROCESSES:-gpu}" --max-restarts=3 "${own[@]}" \
    --rdzv_backend=c10d --rdzv_endpoint="$address:29500" --rdzv_id=omnitune \
    --rdzv_conf="$conf" \
    sft_omni.py --config "$config" --resume \
    --parallel '{"mode": "fsdp", "replicate": 2}' "$@" || status=$?
  if [ "$status" -eq 0 ] || [ -n "$stopped" ]; then exit "${stopped:-0}"; fi
  sleep 5
done
exit "$status"
