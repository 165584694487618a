"""The assembly: what is frozen, what moves, what has gradients."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import ENCODERS, conversation, mixed_samples, tiny_model, tiny_reader
from torch import Tensor

from omnitune.data.packing import Batch, pack
from omnitune.data.rounding import round_up
from omnitune.encoders.registry import build_encoder
from omnitune.models import families, omni
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import Sample


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return mixed_samples(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def whole(samples: list[Sample]) -> Batch:
    return pack([tiny_reader(tiny_model()).item(sample) for sample in samples])


@pytest.fixture(scope="module")
def text(samples: list[Sample]) -> Batch:
    return pack([tiny_reader(tiny_model()).item(samples[0])])


def frozen() -> OmniModel:
    model = tiny_model()
    model.freeze_encoders()
    return model.train()


def one_step(model: OmniModel, batch: Batch) -> set[str]:
    """Names of the tensors, buffers included, that a step without decay changes."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0)
    loss, count = model(batch)
    (loss.sum() / count.sum()).backward()
    optimizer.step()
    return {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}


def of(model: OmniModel, chosen: Callable[[str], bool]) -> set[str]:
    return {name for name in model.state_dict() if chosen(name)}


def test_frozen_step_moves_thinker_and_projectors_only(whole: Batch) -> None:
    """Every one of them, and nothing of the encoders: BatchNorm's statistics neither."""
    model = frozen()
    assert any("running_mean" in name for name in model.state_dict())
    moved = one_step(model, whole)
    assert moved == of(model, lambda name: not name.startswith("encoders."))


def test_unfrozen_encoders_move_as_well(whole: Batch) -> None:
    model = tiny_model().train()
    moved = one_step(model, whole)
    assert moved == {name for name, _ in model.named_parameters()}  # no BatchNorm statistics


def test_frozen_encoders_stay_in_evaluation_mode(whole: Batch) -> None:
    model = frozen()
    assert model.training
    assert model.thinker.training
    assert model.proj_v.training
    assert not any(
        module.training for module in model.encoders.modules() if module is not model.encoders
    )
    for name in ("image", "audio"):
        first = torch.cat(model.encode(name, whole.media[name].inputs))
        assert torch.equal(first, torch.cat(model.encode(name, whole.media[name].inputs)))
    assert not model.eval().thinker.training
    assert tiny_model().train().encoders["audio"].training


@pytest.mark.parametrize("name", ["image", "audio"])
def test_frozen_encoders_leave_no_graph(whole: Batch, name: str) -> None:
    inputs = whole.media[name].inputs
    assert not any(rows.requires_grad for rows in frozen().encode(name, inputs))
    assert all(rows.requires_grad for rows in tiny_model().train().encode(name, inputs))
    with_graph = [x.clone().requires_grad_() for x in inputs]
    assert not any(rows.requires_grad for rows in frozen().encode(name, with_graph))
    with torch.no_grad():
        assert not any(rows.requires_grad for rows in tiny_model().encode(name, inputs))


def test_frozen_encoders_get_no_gradient(whole: Batch) -> None:
    model = frozen()
    model(whole)[0].sum().backward()
    assert all(p.grad is None for p in model.encoders.parameters())
    assert all(not p.requires_grad for p in model.encoders.parameters())
    for name in ("proj_v", "proj_a", "thinker"):
        assert all(p.grad.abs().sum() > 0 for p in getattr(model, name).parameters())


@pytest.mark.parametrize("freeze", [True, False])
def test_text_alone_gives_every_trained_weight_a_gradient(text: Batch, freeze: bool) -> None:
    """Or the other processes of a parallel run would wait for ever."""
    model = frozen() if freeze else tiny_model().train()
    assert text.media == {}
    model(text)[0].sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(p.grad.abs().max() == 0 for p in model.proj_v.parameters())
    assert all(p.grad.abs().max() > 0 for p in model.thinker.get_decoder().layers.parameters())


def test_absent_modality_changes_no_number(text: Batch) -> None:
    model = frozen()
    assert torch.equal(model(text)[0], model.eval()(text)[0])


def test_loss_sums_and_counts_by_group(samples: list[Sample]) -> None:
    model = tiny_model()
    reader = tiny_reader(model)
    batch = pack([reader.item(s, group=n % 3) for n, s in enumerate(samples)], 4)
    loss, count = model(batch)
    scores = model.token_scores(batch).nll_N
    for group in range(4):
        torch.testing.assert_close(loss[group], scores[batch.group_N == group].sum())
        assert count[group] == (batch.group_N == group).sum()
    assert (loss[3], count[3]) == (0, 0)


def test_loss_is_that_of_the_librarys_own_model() -> None:
    """Text without packing: what the thinker computes when called as its library calls it."""
    model = tiny_model()
    item = tiny_reader(model).item(conversation("x", "what is the sky?", "the air above us."))
    batch = pack([item])
    logits: Tensor = model.thinker(batch.tokens_T[None], use_cache=False, is_causal=True).logits[0]
    expected = torch.nn.functional.cross_entropy(
        logits[batch.predict_N], batch.labels_N, reduction="none"
    )
    scores = model.token_scores(batch)
    torch.testing.assert_close(scores.nll_N, expected, atol=1e-5, rtol=0)
    assert torch.equal(scores.correct_N, logits[batch.predict_N].argmax(-1) == batch.labels_N)


def test_attention_is_causal() -> None:
    model = tiny_model()
    reader = tiny_reader(model)
    short = pack([reader.item(conversation("x", "hello", "the sky"))])
    long = pack([reader.item(conversation("x", "hello", "the sky", "and then?", "rain."))])
    size = len(short.labels_N)
    torch.testing.assert_close(
        model.token_scores(long).nll_N[:size],
        model.token_scores(short).nll_N,
        atol=1e-5,
        rtol=0,
    )


def test_fresh_projectors_are_as_loud_as_words() -> None:
    model = tiny_model()
    words = model.thinker.get_input_embeddings().weight.std()
    torch.manual_seed(1)
    for name, modality in model.modalities.items():
        rows = model.projector(name)(torch.randn(512, modality.feature_dim))
        assert 0.8 < rows.std() / words < 1.25


def test_encoders_keep_the_weights_that_they_were_built_with() -> None:
    """The library would draw a convolution's anew, by rules that differ between its versions."""
    thinker = tiny_model().config.thinker
    encoders = {
        "image": ENCODERS["image"] | {"stem_channels": [3, 8, 8, 16]},
        "audio": ENCODERS["audio"],
    }
    for name, settings in encoders.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            families.build(thinker)
            modality = build_encoder(name, settings)
            built = [modality.build(), modality.build_projector(32)]
            torch.manual_seed(0)
            model = OmniModel(OmniConfig(thinker=thinker, encoders={name: settings}))
        for part, expected in zip(
            (model.encoders[name], model.projector(name)), built, strict=True
        ):
            state = part.state_dict()
            assert state.keys() == expected.state_dict().keys()
            assert all(torch.equal(state[n], x) for n, x in expected.state_dict().items())


def test_features_reach_the_thinker_through_their_own_projector(whole: Batch) -> None:
    model = tiny_model()
    before = model.embed(whole.tokens_T, whole.media)
    with torch.no_grad():
        model.proj_a.down.weight.zero_()
    after = model.embed(whole.tokens_T, whole.media)
    changed = (before != after).any(dim=1).nonzero().squeeze(1)
    assert torch.equal(changed, whole.media["audio"].slots_R.sort().values)


def speaking_model(word: int) -> OmniModel:
    """The random model with readouts that name one word in every row."""
    encoders = {name: settings | {"words": word + 1} for name, settings in ENCODERS.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OmniModel(OmniConfig(thinker=tiny_model().config.thinker, encoders=encoders))
        model.match_projector_scales()
    for name in encoders:
        readout = model.readout(name)
        assert readout is not None
        readout.bias.fill_(-40.0)
        readout.bias[word] = 40.0
    return model.eval()


def test_at_the_start_slots_read_as_their_words(samples: list[Sample]) -> None:
    word = 100
    model = speaking_model(word)
    batch = pack([tiny_reader(model).item(sample) for sample in samples])
    in_print = batch.tokens_T.clone()
    for rows in batch.media.values():
        in_print[rows.slots_R] = word
    read = replace(batch, tokens_T=in_print, media={})
    torch.testing.assert_close(model.token_scores(batch).nll_N, model.token_scores(read).nll_N)


def test_projectors_learn_what_words_leave_out(samples: list[Sample]) -> None:
    model = speaking_model(100)
    batch = pack([tiny_reader(model).item(sample) for sample in samples])
    model.freeze_encoders()
    changed = one_step(model.train(), batch)
    assert {"proj_v.down.weight", "proj_a.down.weight"} <= changed
    assert not any("readout" in name for name in changed)


def gradients(model: OmniModel, batch: Batch) -> list[Tensor]:
    model.zero_grad()
    model(batch)[0].sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("freeze", [True, False])
def test_bf16_products_over_fp32_weights(whole: Batch, freeze: bool) -> None:
    """Near the loss of fp32, with gradients and features in the weights' own precision."""
    model = frozen() if freeze else tiny_model()
    expected = model(whole)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = model(round_up(whole))[0]
        assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0)
    found.sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert {g.dtype for g in grads} == {torch.float32}
    assert all(g.isfinite().all() for g in grads)


def test_last_layer_computes_what_is_read(whole: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same losses and gradients, from fewer rows."""
    model = frozen()
    rows: list[int] = []
    last = model.thinker.get_decoder().layers[-1].mlp
    last.gate_proj.register_forward_hook(lambda m, inputs, out: rows.append(inputs[0].shape[1]))

    def gradients() -> tuple[Tensor, list[Tensor]]:
        sums_G, _ = model(whole)
        trained = [p for p in model.parameters() if p.requires_grad]
        return sums_G.detach(), list(torch.autograd.grad(sums_G.sum(), trained))

    few = gradients()
    monkeypatch.setattr(omni, "WORTH_CHOOSING", 0.0)
    every = gradients()
    assert rows == [len(whole.predict_N.unique()), len(whole.tokens_T)]
    torch.testing.assert_close(few, every, atol=1e-4, rtol=1e-4)
    assert model._last_layer is not None
    assert model._last_layer.read_R is None  # nothing else is to be computed in part


def test_activations_computed_anew_are_the_same(whole: Batch) -> None:
    plain, model = frozen(), frozen()
    model.checkpoint_activations()
    for found, expected in zip(gradients(model, whole), gradients(plain, whole), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(model.eval()(whole)[0], plain.eval()(whole)[0])


@pytest.mark.slow
def test_compiled_equals_plain(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of unlike lengths and numbers of segments, traced once; the weights keep their names."""
    compiler, traced = torch.compile, []

    def count(graph: Any, inputs: Any) -> Any:
        traced.append(graph)
        return graph  # runs the trace without building kernels of it

    monkeypatch.setattr(torch, "compile", lambda f, **rest: compiler(f, backend=count, **rest))
    reader = tiny_reader(tiny_model())
    plain, compiled = frozen(), frozen()
    compiled.compile_decoder()
    for chosen in ([0, 1, 2], [4, 3], [0], [0, 1, 2, 3, 4, 1]):
        batch = pack([reader.item(samples[n]) for n in chosen])
        expected = gradients(plain, batch)
        for found, grad in zip(gradients(compiled, round_up(batch)), expected, strict=True):
            torch.testing.assert_close(found, grad, atol=1e-4, rtol=1e-3)
    assert len(traced) == 1
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_what_cannot_be_compiled_runs_without(
    whole: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no such instruction")

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **rest: compiler(f, backend=broken, **rest))
    plain, model = frozen(), frozen()
    model.compile_decoder()
    # As on a GPU, where the losses are compiled too: they are given up with the layers, at once.
    model._losses = torch.compile(model._nll)
    with pytest.warns(UserWarning, match="not compiled, going on without"):
        found = gradients(model, whole)
    for one, other in zip(found, gradients(plain, whole), strict=True):
        assert torch.equal(one, other)
