"""Whether an exported model is the one that was trained: reopened in a fresh process and compared.

Shape suffixes: N supervised tokens, V vocabulary.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnitune import __version__
from omnitune.data.loader import SampleReader
from omnitune.data.packing import pack
from omnitune.data.reading import DataPlace, join, read_available
from omnitune.data.template import ChatRenderer
from omnitune.generation import generate
from omnitune.models.exported import load_exported
from omnitune.models.omni import OmniModel
from omnitune.sample import Media, Message, Sample, Text, UserError
from omnitune.storage import sha256, write_json

FILE = "certificate.json"
ANSWERS = 20  # held-out answers, at most
ANSWER_TOKENS = 48
# Largest difference of logits, as a share of the largest logit. Both sides compute in fp32,
# whatever the weights are held in; an adapter merged into weights of half precision is rounded
# with them.
TOLERANCE, ROUNDED_TOLERANCE = 1e-3, 5e-2
TURNS = ("What is the sky?", "The air above us.", "And the sea?", "Water.")
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "peft")


@dataclass(frozen=True)
class Probe:
    """A question with what the trained model makes of it.

    Attributes:
        kind: the media that are shown, joined with +; ``text`` without.
        messages: for the processor. told: with the reference answer.
        tokens: of the prompt. logits_NV: of the reference answer's tokens.
        answer: tokens of its own answer. room: how many it may have at most.
    """

    id: str
    kind: str
    messages: list[dict[str, Any]]
    told: list[dict[str, Any]]
    tokens: list[int]
    logits_NV: Tensor
    answer: list[int]
    room: int


def held_out(
    data: Path | DataPlace, modalities: Sequence[str], limit: int = ANSWERS
) -> tuple[list[Sample], str]:
    """Held-out questions of a data folder, those with other media in turn.

    Returns:
        none where there are none to be read, and the reason.
    """
    try:
        samples = join(read_available(data).values())
    except UserError as error:
        return [], str(error)
    kinds: dict[frozenset[str], list[Sample]] = {}
    known = set(modalities)
    for split in sorted(samples.splits - {"train"}):
        for sample in samples.of_split(split):
            shown = frozenset(medium.modality for medium in sample.media)
            found = kinds.setdefault(shown, [])
            if shown <= known and len(found) < limit:
                found += [one for one in sample.split_turns()[:1] if _is_plain(one)]
    turns = chain.from_iterable(zip_longest(*kinds.values()))
    chosen = [sample for sample in turns if sample is not None][:limit]
    return chosen, "" if chosen else f"{data}: no record that fits is held out"


def _is_plain(sample: Sample) -> bool:
    parts = [part for message in sample.messages for part in message.parts]
    return all(isinstance(p, Text | Media) for p in parts) and any(
        message.learnt for message in sample.messages
    )


def conversation() -> Sample:
    """Several turns, without data."""
    roles = ("user", "assistant")
    turns = tuple(Message(roles[n % 2], (Text(text),)) for n, text in enumerate(TURNS))
    return Sample("several turns", "", turns, "text", "")


def as_dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as the processor takes them."""

    def part_of(part: Any) -> dict[str, Any]:
        if isinstance(part, Media):
            return {"type": part.modality, "path": str(part.path.resolve())}
        return {"type": "text", "text": part.text}

    return [{"role": m.role, "content": [part_of(p) for p in m.parts]} for m in messages]


@contextmanager
def in_fp32(model: nn.Module) -> Iterator[None]:
    """Holds weights in fp32 for a while; those of half precision come back as they were."""
    held = {name: weight.dtype for name, weight in model.named_parameters()}
    for weight in model.parameters():
        weight.data = weight.data.float()
    try:
        yield
    finally:
        for name, weight in model.named_parameters():
            weight.data = weight.data.to(held[name])


@torch.no_grad()
def make_probes(
    model: OmniModel, renderer: ChatRenderer, samples: Sequence[Sample], limit: int
) -> list[Probe]:
    """What the trained model makes of some samples' last questions; in fp32 (``in_fp32``).

    Args:
        limit: longest sample in tokens; longer ones are left out.
    """
    reader = SampleReader(renderer, model.modalities, max_tokens=limit)
    probes = []
    for sample in samples:
        learnt = [n for n, message in enumerate(sample.messages) if message.learnt]
        last = replace(sample, messages=sample.messages[: learnt[-1] + 1])
        asked = last.messages[:-1]
        try:
            item, prompt = reader.item(last), reader.prompt(sample.id, asked)
        except UserError:  # longer than the model reads
            continue
        room = max(1, min(ANSWER_TOKENS, limit - len(prompt.rendered.tokens)))
        [answer] = generate(model, [prompt], renderer.ends, room)
        logits_NV = model._logits(pack([item]).to(model.device))
        shown = sorted({medium.modality for medium in sample.media})
        probes.append(
            Probe(
                sample.id,
                "+".join(shown) or "text",
                as_dicts(asked),
                as_dicts(last.messages),
                prompt.rendered.tokens,
                logits_NV.float().cpu(),
                answer,
                room,
            )
        )
    return probes


def reopen(folder: str, asked: str, out: str) -> None:
    """In the fresh process: answers the probes with the exported model."""
    torch.save(answer_probes(Path(folder), torch.load(asked, weights_only=True)), out)


@torch.no_grad()
def answer_probes(folder: Path, asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prompt tokens, logits and answers of an exported model; tokens by its template alone too."""
    model, processor = load_exported(folder)
    with in_fp32(model):
        return [_answer(model, processor, probe) for probe in asked]


def _answer(model: Any, processor: Any, probe: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    asked = options | {"conversation": probe["messages"], "add_generation_prompt": True}
    prompt = processor.apply_chat_template(**asked)
    alone = processor.apply_chat_template(**asked, chat_template=processor.chat_template)
    found = {
        "tokens": prompt["input_ids"][0].tolist(),
        "template": alone["input_ids"][0].tolist(),
    }
    whole = processor.apply_chat_template(
        probe["told"], return_assistant_tokens_mask=True, **options
    )
    mask_T = whole.pop("assistant_masks")[0].bool()
    try:
        found["logits"] = model(**whole).logits[0, :-1][mask_T[1:]].float()
        out = model.generate(**prompt, max_new_tokens=probe["room"], do_sample=False)
        found["answer"] = out[0, len(found["tokens"]) :].tolist()
    except ValueError as error:  # tokens and media do not fit together, which their count shows
        found["error"] = str(error)
    return found


def certify(
    folder: Path, probes: Sequence[Probe], ends: Sequence[int], rounded: bool = False
) -> dict[str, Any]:
    """Compares an exported folder with the trained model; writes ``certificate.json``.

    Args:
        rounded: the weights were rounded on the way, so that an answer may differ.

    Raises:
        UserError: they differ; names what does.
    """
    found = _in_fresh_process(folder, probes)
    tolerance = ROUNDED_TOLERANCE if rounded else TOLERANCE
    faults: list[str] = []
    worst, equal = 0.0, 0
    for probe, answer in zip(probes, found, strict=True):
        name = f"{probe.id} ({probe.kind})"
        if answer["tokens"] != probe.tokens:
            faults.append(f"the prompt tokens of {name}")
            continue
        if "error" in answer:
            faults.append(f"what can be answered to {name}: {answer['error']}")
            continue
        difference = relative_difference(probe.logits_NV, answer["logits"])
        worst = max(worst, difference)
        if not difference <= tolerance:
            faults.append(f"the logits of {name}, by {difference:.2g}")
        same = [token for token in answer["answer"] if token not in ends] == probe.answer
        equal += same
        if not rounded and not same:
            faults.append(f"the answer to {name}")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(
            "the exported model is not the trained one, so it was taken back; what differs: "
            f"{', '.join(faults[:3])}{more} (tolerance of logits {tolerance:g})"
        )
    kinds = [probe.kind for probe in probes]
    certificate = {
        "probes": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "prompt_tokens_equal": len(probes),
        "template_alone_equal": sum(
            answer["template"] == probe.tokens for probe, answer in zip(probes, found, strict=True)
        ),
        "answers_equal": equal,
        "logits": {"largest_difference": worst, "tolerance": tolerance},
        "files": digests(folder),
        "versions": versions(),
    }
    write_json(folder / FILE, certificate)
    return certificate


def relative_difference(one_NV: Tensor, other_NV: Tensor) -> float:
    """Largest difference of two logits by the largest one; infinite for other shapes."""
    if one_NV.shape != other_NV.shape:
        return float("inf")
    if not one_NV.numel():
        return 0.0
    scale = max(float(one_NV.abs().max()), 1e-6)
    return float((one_NV - other_NV).abs().max()) / scale


def _in_fresh_process(folder: Path, probes: Sequence[Probe]) -> list[dict[str, Any]]:
    asked = [{"messages": p.messages, "told": p.told, "room": p.room} for p in probes]
    with tempfile.TemporaryDirectory() as place:
        given, out = Path(place) / "asked.pt", Path(place) / "answers.pt"
        torch.save(asked, given)
        code = f"from {__name__} import reopen; import sys; reopen(*sys.argv[1:])"
        path = os.pathsep.join(entry for entry in sys.path if entry)
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder.resolve()), str(given), str(out)],
            env=os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not out.is_file():
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"the exported model cannot be opened, so it was taken back ({last})")
        return torch.load(out, weights_only=True)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of an export but the certificate."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != FILE)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def versions() -> Mapping[str, str]:
    """Of what took part."""
    there = {d.name.lower() for d in importlib.metadata.distributions() if d.name}
    found = {name: importlib.metadata.version(name) for name in PACKAGES if name in there}
    return {"omnitune": __version__, "python": platform.python_version(), **found}
