"""How a run computes: device, precision, and whether it is compiled.

Rules on the machine and on the size of the run decide, never a stopwatch: every rank decides alike,
and so does a repeated run. The last two are kept in the run's state, so that a resumed run goes on
as it began.
"""

from __future__ import annotations

import shutil

import torch

from omnitune.config.sft import SftConfig
from omnitune.models.bases import FORMATS, cast_, format_of
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.training.optim import Muon, trainable
from omnitune.training.run import Run

# Weights up to which a step on a CPU is many small operators, and matrix products do not decide.
SMALL_MODEL = 20_000_000
# Samples of a micro-batch from which on a small model gains by bf16 on a CPU. With 8 (stage E) it
# runs at 0.87 times the rate of fp32, with 16 (stage A) at 1.3, with 32 (stage C) at 1.5
# (docs/log.md, "Processors with bf16 units").
BF16_SAMPLES = 16
# Steps that repay compiling. On a CPU it takes up to half a minute, and saves 28 ms of a step of
# stage A and 11 of stage E in bf16, but 1 of stage E in fp32 (docs/log.md, "Rules in place of
# stopwatches").
COMPILED_STEPS = 2500
COMPILED_STEPS_ON_GPU = 300


def resolve_precision(run: Run) -> None:
    """Chooses precision and compilation, or takes over what the run began with; says why."""
    state, why = run.state, "as the run began"
    if "precision" not in state:
        state["precision"], why = run.ranks.share(choose_precision(run))
        asked = run.config.precision
        units = run.ranks.share(run.device.type == "cpu" and has_bf16_units())
        state["products"] = "bf16" if asked == "auto" and units else state["precision"]
    run.log.say(f"precision: {state['precision']} ({why})")
    if isinstance(run.optimizer, Muon):  # its matrices come in few shapes, whatever the batches
        bf16 = state.get("products") == "bf16"
        run.optimizer.products = torch.bfloat16 if bf16 else torch.float32
    state["compile"], why = run.ranks.share(choose_compilation(run))
    if run.compile is None:
        if run.config.compile == "on":
            run.log.warn("compile is on, but nothing of this stage can be compiled")
        return
    run.log.say(f"compiled: {'yes' if state['compile'] else 'no'} ({why})")
    if state["compile"]:
        run.log.say("the first steps take a minute or two longer: they compile the model")
        run.compile()


def choose_precision(run: Run) -> tuple[str, str]:
    """``bf16`` or ``fp32``, and why."""
    asked, samples = run.config.precision, run.batch_size
    if asked != "auto":
        return asked, "as configured"
    if run.device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU has bf16 units"
        return "fp32", "the GPU has no bf16 units"
    if not has_bf16_units():
        return "fp32", "the processor has no bf16 units"
    if any(p.dtype == torch.bfloat16 for p in run.model.parameters()):
        return "bf16", "weights are kept in bf16"
    if run.rounded is None:  # bf16 builds a kernel for each shape, which costs more than it saves
        return "fp32", "the batches come in many shapes"
    if sum(p.numel() for p in run.model.parameters()) > SMALL_MODEL:
        return "bf16", "the processor has bf16 units"
    if samples >= BF16_SAMPLES:
        return "bf16", f"the processor has bf16 units, and a batch has {samples} samples"
    return "fp32", f"a small model, and {samples} samples a batch: bf16 would be no faster"


def set_formats(config: SftConfig, model: OmniModel, device: torch.device) -> None:
    """Brings the weights of thinker and encoders into the formats that the run keeps them in.

    Those that are trained in any phase are fp32: under autocast they are the master copies. So is
    everything where the run computes in fp32.
    """
    on_gpu = device.type == "cuda"
    bf16 = config.precision != "fp32" and (on_gpu or has_bf16_units())
    for name, module in model.trunks().items():
        asked = config.thinker_dtype if name == "thinker" else config.encoder_dtype
        kept = format_of(module.parameters()) if asked == "auto" else asked
        cast_(module, FORMATS[kept if bf16 else "fp32"])
    for _, parameter in trainable(model):
        parameter.data = parameter.data.float()


def choose_compilation(run: Run) -> tuple[bool, str]:
    """Whether the model is compiled, and why."""
    config, left = run.config, run.plan.total_steps - run.step
    if run.compile is None:
        return False, "nothing of this stage can be"
    if config.compile != "auto":
        return config.compile == "on", "as configured"
    if "compile" in run.state:
        return run.state["compile"], "as the run began"
    if run.device.type == "cuda":
        enough = left > COMPILED_STEPS_ON_GPU
    elif not can_compile():
        return False, "to gain by it takes AVX-512 and a C++ compiler"
    elif run.state["precision"] == "fp32":
        return False, "on a processor fp32 gains next to nothing by it"
    else:
        enough = left >= COMPILED_STEPS
    return enough, f"{left} steps {'repay' if enough else 'do not repay'} it"


def pick_device(name: str) -> torch.device:
    """The device of a configuration's name; ``auto`` takes a GPU if there is one.

    Raises:
        UserError: there is no GPU, and one was asked for.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU; take --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def can_compile() -> bool:
    """Whether this processor may run compiled layers faster, and a C++ compiler is there for them.

    Where vectors are shorter than those of AVX-512 it gains next to nothing (docs/performance.md).
    """
    there = any(shutil.which(name) for name in ("g++", "clang++"))
    return there and torch.backends.cpu.get_cpu_capability() == "AVX512"


def has_bf16_units() -> bool:
    """Whether the processor multiplies in bf16 by itself."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
