"""What only a GPU can show: its attention, its compiled layers, a run on it from start to end."""

import json
import math
from pathlib import Path

import pytest
import torch
from helpers import (
    conversation,
    sft_settings,
    tiny_model,
    tiny_reader,
    write_image,
    write_wave,
)
from torch import Tensor

from omnitune.data.packing import Batch, Item, pack, share_prefix
from omnitune.data.rounding import round_up
from omnitune.models import attention
from omnitune.models.kernels import flash4
from omnitune.models.loading import assemble, load_omni
from omnitune.models.omni import OmniModel
from omnitune.serving.session import ChatSession
from omnitune.sources import SOURCES
from omnitune.tiny import pretrain_audio as audio_encoder
from omnitune.tiny import pretrain_lm as thinker
from omnitune.tiny import pretrain_vision as vision_encoder
from omnitune.tiny.pretrain_audio import AudioEncoderConfig
from omnitune.tiny.pretrain_lm import ThinkerConfig
from omnitune.tiny.pretrain_vision import VisionEncoderConfig
from omnitune.tiny.ready import TOKENIZER_FILE
from omnitune.tiny.stage import pretrain
from omnitune.training.sft import finetune

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
GPU = torch.device("cuda")


def rows(model: OmniModel, shared: bool) -> Batch:
    """Segments of unlike length, some of which begin alike."""
    reader = tiny_reader(model)
    turns = ("which color?", "red.", "which color is it?", "red or blue.", "which?", "the air.")
    items: list[Item] = [reader.item(conversation("x", "hello " * 9, "the sky"))]
    questions = [
        reader.item(s) for s in conversation("a", *turns, independent_turns=True).split_turns()
    ]
    if shared:
        share_prefix(questions)
    return round_up(pack([*items, *questions])).to(GPU)


def results(model: OmniModel, batch: Batch) -> list[Tensor]:
    """Loss and gradients in bf16."""
    model.train().zero_grad()
    with torch.autocast("cuda", torch.bfloat16):
        loss = model(batch)[0].sum()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.thinker.parameters())]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    """To a few steps of bf16, of each tensor's length."""
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        assert float((one - other).norm()) <= 0.03 * float(other.norm())


@pytest.mark.parametrize("shared", [False, True])
def test_attention_without_padding_is_as_with_padding(
    monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    assert attention.varlen_attn is not None
    model = tiny_model().to(GPU)
    batch = rows(model, shared)
    assert (batch.segments.order_P is not None) == shared
    unpadded = results(model, batch)
    monkeypatch.setattr(attention, "varlen_attn", None)
    close(unpadded, results(model, batch))


@pytest.mark.skipif(flash4.load() is None, reason="flash-attn-4 is not there, or no Hopper GPU")
def test_flash_attention_4_is_as_2() -> None:
    assert attention.varlen_attn is not None
    bounds = torch.tensor([0, 200, 201, 640, 640], dtype=torch.int32, device=GPU)
    torch.manual_seed(0)
    shapes = [(640, heads, flash4.WIDTH) for heads in (4, 2, 2)]
    rows = [torch.randn(*s, device=GPU, dtype=torch.bfloat16, requires_grad=True) for s in shapes]
    weight = torch.randn(shapes[0], device=GPU, dtype=torch.bfloat16)
    options = {"scale": 0.1, "window_size": attention.CAUSAL, "enable_gqa": True}
    found = flash4.attend(*rows, bounds, 512, 0.1)
    expected = attention.varlen_attn(*rows, bounds, bounds, 512, 512, **options)
    grads = [torch.autograd.grad(out, rows, weight) for out in (found, expected)]
    close([found, *grads[0]], [expected, *grads[1]])


@pytest.mark.parametrize("anew", [False, True])
def test_compiled_is_as_plain(anew: bool) -> None:
    plain, compiled = tiny_model().to(GPU), tiny_model().to(GPU)
    compiled.compile_decoder()
    if anew:
        compiled.checkpoint_activations()
    for shared in (False, True, False):
        batch = rows(plain, shared)
        close(results(compiled, batch), results(plain, batch))
    assert compiled._compiled  # it has not fallen back


@pytest.mark.parametrize("options", [{}, {"feature_cache": "off", "compile": "on"}])
def test_a_run_from_start_to_end(home: Path, options: dict[str, str]) -> None:
    config = sft_settings(home, f"gpu-{len(options)}", device="cuda", **options)
    finetune(config)
    found = json.loads((config.out / "results.json").read_text())
    assert (found["precision"], found["compiled"]) == ("bf16", bool(options))
    assert found["loss"] > 0
    model, renderer, _ = load_omni(config.out)
    session = ChatSession(model.to(GPU), renderer, max_new_tokens=8)
    session.attach(home / "data" / "images" / "0.png", "image")
    "".join(session.ask("what is it?"))
    assert len(session.messages) == 2


def spoken_and_pictured(folder: Path) -> Path:
    """A data folder whose sounds have transcripts and whose pictures have captions."""
    words = ("a red circle", "the quiet river", "two blue rings", "the sky", "a star", "7 plus 5")
    records: dict[str, list[dict[str, str]]] = {"image_text": [], "audio_text": []}
    for name in records:
        (folder / SOURCES[name].file).parent.mkdir(parents=True)
    for n in range(24):
        said, split = words[n % len(words)], "validation" if n % 4 == 3 else "train"
        image = write_image(folder / "images" / f"{n}.png", size=96, seed=n)
        clip = write_wave(folder / "audio" / f"{n}.wav", 0.8 + 0.05 * n, seed=n)
        asked = {"question": "what is it?", "answer": said, "split": split}
        records["image_text"].append(asked | {"image": image.name, "caption": said})
        records["audio_text"].append(asked | {"audio": clip.name, "transcript": said})
    for name, rows in records.items():
        (folder / SOURCES[name].file).write_text(json.dumps(rows))
    return folder


def test_parts_from_start_to_end(tmp_path: Path) -> None:
    small = {"hidden_size": 64, "num_layers": 2, "batch_size": 4, "num_epochs": 2}
    small |= {"data_dir": spoken_and_pictured(tmp_path / "data"), "device": "cuda"}
    a, b, c = (tmp_path / name for name in "abc")
    pretrain(ThinkerConfig(output_dir=a, vocab_size=300, **small), thinker.build_stage)
    small["tokenizer"] = a / TOKENIZER_FILE
    audio = AudioEncoderConfig(output_dir=b, subsampling_channels=8, **small)
    pretrain(audio, audio_encoder.build_stage)
    # Words are spotted in the first steps, captions are written in the others.
    vision = VisionEncoderConfig(output_dir=c, compile="on", **small)
    pretrain(vision, vision_encoder.build_stage)
    for folder in (a, b, c):
        entries = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        losses = [entry["train"]["loss"] for entry in entries]
        assert losses
        assert all(map(math.isfinite, losses))
    encoders = {"audio": b / "audio_enc.pt", "image": c / "vision.pt"}
    model, _ = assemble(a / "thinker_best.pt", encoders)
    assert all(p.isfinite().all() for p in model.parameters())
