"""Packed rows and answers of each family are those of its library, or it is refused by name."""

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import transformers
from helpers import tiny_tokenizer
from torch import Tensor, nn

from omnitune.data.packing import Batch, Item, pack, share_prefix
from omnitune.data.rounding import round_up
from omnitune.data.template import Rendered
from omnitune.generation import generate
from omnitune.models import attention, families
from omnitune.models.kernels import cpu as operators
from omnitune.models.loading import load_thinker
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import UserError
from omnitune.storage import write_checkpoint

WINDOW = 4
LENGTH = 6  # of answers
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WIDE = {"head_dim": 16}
SLIDING = {"sliding_window": WINDOW}
MIXED = SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "cohere": {"logit_scale": 0.25},
    "cohere2": MIXED | {"logit_scale": 0.25},
    "ernie4_5": {},
    "gemma": WIDE,
    "gemma2": WIDE
    | MIXED
    | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 5},
    "gemma3_text": WIDE | MIXED,
    "glm4": WIDE,
    "gpt_oss": WIDE
    | MIXED
    | EXPERTS
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "granite": {
        "logits_scaling": 8.0,
        "attention_multiplier": 0.2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
    },
    "helium": {"head_dim": 8},
    "llama": {
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}
        | {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    },
    "mistral": SLIDING,
    "mixtral": SLIDING | EXPERTS,
    "olmo2": {},
    "olmo3": SLIDING,
    "phi3": SLIDING | {"partial_rotary_factor": 0.5},
    "qwen2": SLIDING | {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": WIDE,
    "qwen3_moe": WIDE | {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
    "smollm3": {},
    "starcoder2": SLIDING,
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """A second thread would wait for the first all the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(kind: str, **rest: Any) -> dict[str, Any]:
    values = SIZES | FAMILIES.get(kind, {}) | rest
    return transformers.AutoConfig.for_model(kind, **values).to_dict()


def model_of(kind: str, **rest: Any) -> OmniModel:
    """A thinker whose every weight is random: norms, biases and sinks too."""
    torch.manual_seed(0)
    model = OmniModel(OmniConfig(thinker=settings(kind, **rest))).eval()
    with torch.no_grad():
        for weight in model.thinker.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def the_librarys(model: OmniModel) -> Any:
    """The same thinker as its library runs it."""
    config = transformers.AutoConfig.for_model(**model.config.thinker)
    plain = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    plain.load_state_dict(model.thinker.state_dict())
    plain.generation_config.eos_token_id = None
    return plain.eval()


def item(tokens: list[int], answer: int) -> Item:
    supervised = [place >= answer for place in range(len(tokens))]
    turns = [(0, answer, len(tokens))] if any(supervised) else []
    return Item("", Rendered(tokens, supervised, turns=turns), [])


def samples() -> list[list[int]]:
    """Longer than the window and of unlike length; three begin alike, for longer than it too."""
    draw = torch.Generator().manual_seed(1)
    found = [torch.randint(3, 61, (n,), generator=draw).tolist() for n in (13, 5, 12, 9, 11)]
    for number in (3, 4):
        found[number][:6] = found[2][:6]
    return found


def row(share: bool) -> Batch:
    items = [item(tokens, 4 if n < 2 else 7) for n, tokens in enumerate(samples())]
    if share:
        share_prefix(items[2:])
        assert [i.shared for i in items] == [0, 0, 0, 6, 6]
    return pack(items)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def loss_of(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits_NV, labels_N, reduction="sum")


def near(found: Tensor, expected: Tensor, name: str = "") -> None:
    off = float((found - expected).detach().norm())
    assert off <= 1e-5 * max(float(expected.detach().norm()), 1e-3), name


@pytest.mark.parametrize("kind", FAMILIES)
def test_packed_rows_are_as_the_librarys_own_samples(kind: str) -> None:
    """Logits and gradients, with and without shared beginnings."""
    model = model_of(kind)
    plain = the_librarys(model)
    expected, loss = [], torch.zeros(())
    with patch.object(operators, "replaced", False):
        for number, tokens in enumerate(samples()):
            begin = 4 if number < 2 else 7
            ids = torch.tensor([tokens])
            logits = plain(input_ids=ids, use_cache=False).logits[0, begin - 1 : -1]
            expected.append(logits.detach())
            loss = loss + loss_of(logits, ids[0, begin:])
        wanted = gradients(plain, loss)
    for share in (False, True):
        batch = row(share)
        logits = model._logits(batch)
        near(logits.detach(), torch.cat(expected))
        found = gradients(model.thinker, loss_of(logits, batch.labels_N))
        assert found.keys() == wanted.keys()
        scale = max(float(g.norm()) for g in wanted.values())
        for name, grad in found.items():
            assert float((grad - wanted[name]).norm()) <= 1e-5 * scale, name
        rounded = model(round_up(batch))[0].sum()
        torch.testing.assert_close(rounded, loss, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_answers_are_the_librarys_own(kind: str) -> None:
    """Prompts of unlike length at once, and longer than the window; each alone by the library."""
    model = model_of(kind)
    plain = the_librarys(model)
    prompts = samples()[:3]
    wanted = []
    with patch.object(operators, "replaced", False):
        for tokens in prompts:
            ids = torch.tensor([tokens])
            config = transformers.GenerationConfig(
                max_new_tokens=LENGTH, do_sample=False, pad_token_id=0
            )
            whole = plain.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config
            )
            wanted.append(whole[0, len(tokens) :].tolist())
    found = generate(model, [item(tokens, len(tokens)) for tokens in prompts], (), LENGTH)
    assert found == wanted
    assert len({tuple(answer) for answer in found}) > 1


def test_those_that_are_named_are_those_that_are_tried() -> None:
    assert set(families.KNOWN) == set(FAMILIES)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "layers of type conv"),
    "jamba": ({"attn_layer_period": 2, "attn_layer_offset": 1}, "layers of type linear_attention"),
    "falcon_h1": ({}, "layers of type hybrid"),
    "llama4_text": (WIDE | {"attention_chunk_size": 4}, "layers of type chunked_attention"),
    "nemotron": ({}, "from one sample of a packed row into the next"),
    "gpt2": ({}, "not a stack of decoder layers"),
    "doge": ({}, "its attention takes attention_mask"),
    "gemma3": ({}, "not that of a language model alone"),
    "llama": ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope of type dynamic"),
    "phi3": (
        {
            "original_max_position_embeddings": 32,
            "rope_parameters": {
                "rope_type": "longrope",
                "short_factor": [1.0] * 4,
                "long_factor": [2.0] * 4,
            },
        },
        "rope of type longrope",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_others_are_refused_by_name(kind: str) -> None:
    rest, reason = REFUSED[kind]
    sizes = {} if kind == "gemma3" else SIZES
    config = transformers.AutoConfig.for_model(kind, **(sizes | rest)).to_dict()
    with pytest.raises(UserError) as error:
        OmniModel(OmniConfig(thinker=config))
    said = str(error.value)
    assert repr(kind) in said
    assert reason in said
    assert "take one of these families: cohere" in said
    assert "\n" not in said


def test_no_configuration_is_refused() -> None:
    for config in ({}, {"model_type": "no_such_family"}, settings("llama") | {"hidden_size": "x"}):
        with pytest.raises(UserError, match="transformers has no such configuration"):
            OmniModel(OmniConfig(thinker=config))


def write_thinker(path: Path, model: OmniModel) -> Path:
    values = {"kind": "thinker", "config": model.config.thinker}
    values |= {"tokenizer": tiny_tokenizer().to_str(), "state": model.thinker.state_dict()}
    write_checkpoint(path, values)
    return path


def ignore_windows(mask: Tensor | None, *_: Any) -> Tensor | None:
    return mask


BREAK: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "window": ("mistral", "_windowed_tree", ignore_windows),
    "window with a cache": ("mistral", "_windowed", ignore_windows),
    "sinks": ("gpt_oss", "_attend_plainly", lambda *x: attention.attend(*x[:3], is_causal=True)),
}


@pytest.mark.parametrize("broken", BREAK)
def test_loading_finds_what_comes_out_wrong(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though windows are longer than what is tried, and whatever the family."""
    kind, name, function = BREAK[broken]
    path = write_thinker(tmp_path / "t.pt", model_of(kind, sliding_window=4096))
    model, _ = load_thinker(path)
    assert model.thinker.config.sliding_window == 4096
    assert model.thinker.config._attn_implementation == attention.NAME
    monkeypatch.setattr(attention, name, function)
    with pytest.raises(UserError, match=rf"t\.pt: a thinker of the family '{kind}' cannot be"):
        load_thinker(path)


def test_logits_that_are_scaled_are_found_at_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_thinker(tmp_path / "t.pt", model_of("granite"))
    monkeypatch.setattr(families, "has_plain_head", lambda thinker: True)
    with pytest.raises(UserError, match="does not give the logits of the library's own"):
        load_thinker(path)


def test_checking_leaves_a_thinker_as_it_was() -> None:
    model = model_of("gemma2", sliding_window=4096).train()
    before = copy.deepcopy({**vars(model.thinker.config)})
    state = torch.get_rng_state()
    model.check_thinker()
    assert vars(model.thinker.config) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert model.thinker.training
    windows = {m.sliding_window for m in model.thinker.modules() if hasattr(m, "sliding_window")}
    assert windows == {None, 4096}


def test_weights_of_fewer_bits_are_checked_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 alone would be off by more than a wrong rotary embedding is."""
    model = model_of("mistral")
    model.thinker.to(torch.bfloat16)
    before = {name: weight.data_ptr() for name, weight in model.thinker.named_parameters()}
    model.check_thinker()
    assert before == {name: w.data_ptr() for name, w in model.thinker.named_parameters()}
    assert {w.dtype for w in model.thinker.parameters()} == {torch.bfloat16}
    monkeypatch.setattr(attention, "_windowed", ignore_windows)
    with pytest.raises(UserError, match="answers written with a cache"):
        model.check_thinker()


def test_words_are_read_as_the_family_scales_them() -> None:
    """Gemma's are louder than their weights by the root of their width."""
    model = model_of("gemma")
    weight = model.thinker.get_input_embeddings().weight
    torch.testing.assert_close(model.word_embeddings(), weight * 32**0.5)
    assert model_of("llama").word_embeddings().shape == weight.shape


def windowed_varlen(
    q_PHD: Tensor,
    k_PKD: Tensor,
    v_PKD: Tensor,
    bounds_B: Tensor,
    *_: Any,
    window_size: tuple[int, int],
    scale: float,
    enable_gqa: bool,
) -> Tensor:
    """What torch promises of its variable-length attention with a window."""
    outs = []
    for begin, end in itertools.pairwise(bounds_B.tolist()):
        place_L = torch.arange(end - begin)
        behind = place_L[:, None] - place_L
        sees = behind >= 0
        if window_size[0] >= 0:
            sees &= behind <= window_size[0]
        q, k, v = (x[begin:end].transpose(0, 1)[None] for x in (q_PHD, k_PKD, v_PKD))
        out = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=sees, scale=scale, enable_gqa=enable_gqa
        )
        outs.append(out[0].transpose(0, 1))
    return torch.cat(outs)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("kind", ["mistral", "qwen2", "gemma2", "gpt_oss"])
def test_without_padding_too(kind: str, share: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are handed on; what flash attention has not is computed with padding."""
    model = model_of(kind)
    batch = row(share)
    expected = model._logits(batch)
    calls: list[int] = []

    def noting(*inputs: Any, **options: Any) -> Tensor:
        calls.append(1)
        return windowed_varlen(*inputs, **options)

    monkeypatch.setattr(attention, "varlen_attn", noting)
    monkeypatch.setattr(attention, "_suits_varlen", lambda values: True)
    near(model._logits(batch), expected)
    assert bool(calls) == (kind in ("mistral", "qwen2"))


def test_flash_attention_4_gets_no_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention.flash4, "suits", lambda q: True)
    monkeypatch.setattr(attention.flash4, "attend", lambda *_: pytest.fail("without its window"))
    monkeypatch.setattr(attention, "varlen_attn", windowed_varlen)
    monkeypatch.setattr(attention, "_suits_varlen", lambda values: True)
    model_of("mistral")._logits(row(share=False))


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_attention_is_dropped_in_training_only(kind: str) -> None:
    model = model_of(kind, attention_dropout=0.5)
    batch = row(share=True)
    assert torch.equal(model._logits(batch), model._logits(batch))
    near(model._logits(batch), model_of(kind)._logits(batch))
    model.train()
    assert not torch.allclose(model._logits(batch), model._logits(batch))
