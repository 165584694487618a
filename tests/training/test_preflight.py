"""The preflight: each fault is made to happen, and nothing of a run that is whole is touched."""

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import sft_settings
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as Decoder
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn

from omnitune.data.packing import Item, pack
from omnitune.data.template import CONTROL_TOKENS, ChatRenderer, Rendered
from omnitune.distributed.apart import call_apart
from omnitune.encoders.projectors import FeatureRows, MlpProjector
from omnitune.encoders.vit import VitEncoder
from omnitune.sample import Message, Sample, Text, UserError
from omnitune.training import preflight as module
from omnitune.training import sft
from omnitune.training.loop import train
from omnitune.training.preflight import Answers, preflight, stream_of

Render = Callable[..., Rendered]


@pytest.fixture(scope="module")
def setup(home: Path) -> sft.TrainingSetup:
    return sft.build_training(sft_settings(home, "setup"))


def checked(setup: sft.TrainingSetup) -> list[str]:
    return preflight(setup.run, setup.reader)


@pytest.fixture
def rendering(
    setup: sft.TrainingSetup, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Rendered, ChatRenderer], None]], None]:
    """Lets a test change what the renderer makes of every sample."""

    def change(fault: Callable[[Rendered, ChatRenderer], None]) -> None:
        render: Render = ChatRenderer.render

        def changed(self: ChatRenderer, *args: Any) -> Rendered:
            out = render(self, *args)
            fault(out, self)
            return out

        monkeypatch.setattr(ChatRenderer, "render", changed)

    return change


def drop_a_medium(out: Rendered, renderer: ChatRenderer) -> None:
    for slots in out.slots[:1]:
        span = slice(slots.start, slots.start + slots.count)
        del out.tokens[span], out.supervised[span], out.slots[0]
        out.turns = [(n, a - slots.count, b - slots.count) for n, a, b in out.turns]


def repeat_a_medium(out: Rendered, renderer: ChatRenderer) -> None:
    out.slots += out.slots[:1]


def lose_a_placeholder(out: Rendered, renderer: ChatRenderer) -> None:
    for slots in out.slots[:1]:
        out.tokens[slots.start] = renderer.end


def leave_out_the_end(out: Rendered, renderer: ChatRenderer) -> None:
    for _, _, end in out.turns:
        out.supervised[end - 1] = False


def supervise_the_question(out: Rendered, renderer: ChatRenderer) -> None:
    first = out.supervised.index(True)
    out.supervised[first - 1] = True  # the token that opens the assistant's turn
    out.turns = [(n, start - 1, end) for n, start, end in out.turns]


def supervise_half_an_answer(out: Rendered, renderer: ChatRenderer) -> None:
    first = out.supervised.index(True)
    out.supervised[first : first + 2] = [False, False]


def supervise_nothing(out: Rendered, renderer: ChatRenderer) -> None:
    out.supervised = [False] * len(out.supervised)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (drop_a_medium, r"\.(png|wav) stands 0 times in the row, and 1 times in the record"),
        (repeat_a_medium, r"\.(png|wav) stands 2 times in the row, and 1 times in the record"),
        (lose_a_placeholder, r"3 placeholders of image for 4 slots|placeholders of audio"),
        (leave_out_the_end, "the end of the turn is not supervised after 'number"),
        (supervise_the_question, r"supervised are the tokens of '<\|assistant\|> number \d"),
        (supervise_half_an_answer, r"and its answer is 'number \d\.'; the renderer has to"),
        (supervise_nothing, "no token of it is supervised, so there is nothing to learn"),
    ],
)
def test_a_renderer_that_is_wrong_stops_the_run(
    setup: sft.TrainingSetup, rendering: Any, fault: Any, words: str
) -> None:
    rendering(fault)
    named = r"preflight: sample \S+ \((text_only|image_text|audio_text)\): .*"
    with pytest.raises(UserError, match=named + f"({words})"):
        checked(setup)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows * torch.nan, "the features of .*png are not finite"),
        (lambda rows: rows[:0], "has 0 feature rows, so 0 slots"),
    ],
)
def test_rows_that_cannot_be_learnt_from(
    setup: sft.TrainingSetup, monkeypatch: pytest.MonkeyPatch, change: Any, words: str
) -> None:
    reader = setup.reader.without_features(())
    features = setup.reader.features["image"]
    reader.features = {**reader.features, "image": lambda path: change(features(path))}
    monkeypatch.setattr(stream_of(setup.run), "_later", [(0, reader)])
    with pytest.raises(UserError, match=rf"preflight: sample \S+ \(image_text\): .*{words}"):
        checked(setup)


def test_a_whole_run_is_told_in_a_line_and_left_as_it_was(setup: sft.TrainingSetup) -> None:
    model = setup.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    draws = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    [said] = checked(setup)
    assert said == (
        "preflight: 4 batches, 16 samples: every medium in its row, answers and ends supervised, "
        "gradients reach thinker, proj_v, proj_a"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert modes == [part.training for part in model.modules()]
    assert torch.equal(draws[0], torch.get_rng_state())
    assert np.array_equal(draws[1], np.random.get_state()[1])
    assert draws[2] == random.getstate()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not setup.run.optimizer.state


def test_a_run_takes_the_same_steps_with_and_without(home: Path) -> None:
    states, losses = [], []
    for name in ("with", "without"):
        setup = sft.build_training(sft_settings(home, name, max_steps=3, log_every=1))
        setup.run.score = lambda *_: {}
        setup.run.log.formatter = lambda *_: []
        if name == "with":
            checked(setup)
        train(setup.run)
        states.append(setup.model.state_dict())
        lines = (home / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["train"]["loss"] for line in lines])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_a_run_that_is_refused_leaves_no_folder(home: Path, rendering: Any) -> None:
    rendering(leave_out_the_end)
    config = sft_settings(home, "refused")
    with pytest.raises(UserError, match="preflight"):
        sft.finetune(config)
    assert not config.out.exists()


class Deaf(MlpProjector):
    """Its output does not depend on its weights."""

    def forward(self, features_RD: Tensor, rows_M: Any = None) -> Tensor:
        return super().forward(features_RD).detach() * 0.5


class Bursting(MlpProjector):
    """Its gradient is not finite: the square root's slope at zero."""

    def forward(self, features_RD: Tensor, rows_M: Any = None) -> Tensor:
        return super().forward(features_RD) + (self.down.bias * 0).sqrt()


@pytest.mark.parametrize(
    ("projector", "words"),
    [(Deaf, "the gradient at proj_v is zero"), (Bursting, "at proj_v is not finite")],
)
def test_a_projector_that_cannot_learn(
    setup: sft.TrainingSetup, monkeypatch: pytest.MonkeyPatch, projector: Any, words: str
) -> None:
    encoder = setup.model.modalities["image"]
    rows = FeatureRows("image", encoder.feature_dim, encoder.fixed_rows)
    broken = projector(rows, setup.model.thinker.config.hidden_size, encoder.projector)
    monkeypatch.setitem(setup.model._modules, "proj_v", broken)
    with pytest.raises(UserError, match=rf"preflight: samples .*{words}.*encoder 'vit'"):
        checked(setup)


def test_an_encoder_that_cannot_learn(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = sft_settings(home, "thawed", phases=[{"until": 0.5}, {"train": ["vision_encoder"]}])
    setup = sft.build_training(config)
    [said] = checked(setup)
    assert said.endswith("gradients reach thinker, proj_v, vision_encoder, proj_a")

    def encode(self: VitEncoder, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        return [torch.ones(self.num_slots(x), self.feature_dim) for x in inputs]

    monkeypatch.setattr(VitEncoder, "encode", encode)
    with pytest.raises(UserError, match="gradient at vision_encoder is zero"):
        checked(setup)


def test_a_medium_that_never_comes_is_told(home: Path) -> None:
    mix = {"text_only": 0.5, "image_text": 0.5}
    setup = sft.build_training(sft_settings(home, "no_sound", data_mix=mix))
    said, warning = checked(setup)
    assert said.endswith("gradients reach thinker, proj_v")
    assert warning.startswith("warning: no audio comes in the run's first samples")
    assert "proj_a" in warning


def answers_of(words: list[str]) -> Answers:
    """Of a tokenizer that knows whole words only."""
    tokens = ["[UNK]", *CONTROL_TOKENS, *words]
    model = WordLevel({token: n for n, token in enumerate(tokens)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = Whitespace(), Decoder()
    tokenizer.add_special_tokens(["[UNK]", *CONTROL_TOKENS])
    return Answers(ChatRenderer(tokenizer))


def check_answer(answers: Answers, text: str) -> None:
    turns = (Message("user", (Text("sky"),)), Message("assistant", (Text(text),)))
    sample = Sample("odd", "text_only", turns, "text", "train")
    rendered = answers.renderer.render(turns)
    answers.check(sample, turns[1:], pack([Item(sample.id, rendered, [])]))


def test_what_a_tokenizer_cannot_write_is_told_by_name() -> None:
    answers = answers_of(["sky", "blue", "."])
    check_answer(answers, "blue sky .")
    assert answers.remarks() == []
    check_answer(answers, "blue 猫 .")
    [told] = answers.remarks()
    assert "cannot write '猫' in the answers of 1 of these samples (the first is odd)" in told
    with pytest.raises(UserError, match="can write nothing of its answer '猫'"):
        check_answer(answers, "猫")


def test_a_later_look_goes_on_where_the_run_does(setup: sft.TrainingSetup) -> None:
    run = setup.run
    before, run.step = run.step, run.plan.total_steps
    try:
        assert checked(setup) == []
    finally:
        run.step = before


def test_a_function_called_apart_leaves_nothing_here() -> None:
    made: list[int] = []

    def work() -> int:
        made.append(1)
        return 7

    def fail() -> int:
        raise UserError("a mistake")

    def hear() -> int:  # a signal to the whole group is the other process's affair
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGINT)
        return 8

    assert call_apart(work) == 7
    assert made == []
    assert call_apart(hear) == 8
    with pytest.raises(UserError, match="a mistake"):
        call_apart(fail)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        call_apart(lambda: 1 // 0)


def test_beside_a_gpu_the_gradients_of_a_processor_are_computed_apart(
    setup: sft.TrainingSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    [said] = checked(setup)
    assert "gradients reach thinker, proj_v, proj_a" in said


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_projector_may_make_more_or_fewer_slots_than_rows(home: Path, cache: str) -> None:
    projectors = {name: {"type": "resampler", "queries": 3} for name in ("image", "audio")}
    settings = sft_settings(home, f"resampler_{cache}", projectors=projectors, feature_cache=cache)
    assert "every medium in its row" in checked(sft.build_training(settings))[0]


def test_a_run_whose_samples_speak_to_nothing_that_is_trained(home: Path) -> None:
    phases = [{"train": ["proj_v", "proj_a"]}]
    settings = sft_settings(home, "mute", phases=phases, data_mix={"text_only": 1.0})
    with pytest.raises(UserError, match="trains nothing that its first samples speak to"):
        checked(sft.build_training(settings))
