"""Adapters: what they touch, what they leave alone, and that they can be taken away or merged."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import conversation, mixed_samples, tiny_model, tiny_reader, tiny_renderer
from torch import Tensor
from transformers import AutoModelForCausalLM

from omnitune.config.lora import LoraSettings
from omnitune.data.packing import Item, pack, share_prefix
from omnitune.hub import load_pretrained
from omnitune.models import adapters
from omnitune.models.loading import load_omni, save_omni
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import UserError
from omnitune.storage import read_checkpoint, write_checkpoint

KINDS: list[dict[str, Any]] = [{}, {"dora": True}, {"rslora": True}]


def adapted(moved: bool = True, model: OmniModel | None = None, **values: Any) -> OmniModel:
    """A tiny model with adapters, which have learnt something unless ``moved`` is false."""
    model = model or tiny_model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adapters.add_adapters(model, LoraSettings(**{"r": 4, "alpha": 8, **values}))
        for tensors in adapters.adapter_state(model).values() if moved else ():
            for tensor in tensors.values():
                tensor.add_(torch.randn_like(tensor), alpha=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    reader = tiny_reader(tiny_model())
    return [reader.item(s) for s in mixed_samples(tmp_path_factory.mktemp("media"))]


def losses(model: OmniModel, items: list[Item]) -> Tensor:
    return model.token_scores(pack(items, 1)).nll_N


def clones(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_adapters_change_no_answer(items: list[Item], kind: dict[str, Any]) -> None:
    expected = losses(tiny_model(), items)
    torch.testing.assert_close(losses(adapted(moved=False, **kind), items), expected)


def test_by_default_every_linear_layer_of_the_decoder_is_adapted_and_nothing_else() -> None:
    model = adapted()
    names = {n.partition(".lora_")[0] for n in adapters.adapter_state(model)["thinker"]}
    kinds = {name.rpartition(".")[2] for name in names}
    assert kinds == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert len(names) == 7 * 2
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n in trained if n.startswith("thinker")} == {n for n in trained if ".lora_" in n}
    assert not [n for n, _ in model.named_parameters() if ".lora_" in n and n[:7] != "thinker"]
    assert type(model.thinker.get_output_embeddings()) is torch.nn.Linear


def test_adapter_is_a_part_of_its_own_and_parts_are_all_the_weights() -> None:
    model = adapted(targets={"thinker": "q_proj", "vision_encoder": "fc1"})
    parts = model.parts()
    assert {"thinker", "thinker_adapter", "vision_encoder", "vision_encoder_adapter"} < set(parts)
    assert "audio_encoder_adapter" not in parts
    inside = [id(p) for part in parts.values() for p in part.parameters()]
    assert len(inside) == len(set(inside))
    assert set(inside) == {id(p) for p in model.parameters()}
    learnt = adapters.adapter_state(model)
    counts = {part: sum(t.numel() for t in tensors.values()) for part, tensors in learnt.items()}
    assert counts == {
        name: sum(p.numel() for p in parts[f"{name}_adapter"].parameters()) for name in counts
    }


@pytest.mark.parametrize(
    ("regex", "kinds"),
    [
        ("q_proj|v_proj", {"q_proj", "v_proj"}),
        (
            r"layers\.1\..*",
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        ),
        (r".*mlp\.up_proj", {"up_proj"}),
    ],
)
def test_targets_match_whole_names_or_their_ends(regex: str, kinds: set[str]) -> None:
    state = adapters.adapter_state(adapted(targets=regex))["thinker"]
    assert {n.partition(".lora_")[0].rpartition(".")[2] for n in state} == kinds


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"targets": "proj"}, r"lora\.targets\.thinker: 'proj' matches none .*self_attn\.q_proj"),
        ({"targets": "lm_head"}, "'lm_head' matches none"),
        ({"targets": {"vision": None}}, r"'vision' is not a part .*did you mean vision_encoder\?"),
        ({"targets": {"vision_encoder": "zzz"}}, r"targets\.vision_encoder: 'zzz' .*fc1"),
        ({"modules_to_save": ["zzz"]}, r"lora\.modules_to_save: 'zzz' matches .*embed_tokens"),
        (
            {"targets": {"vision_encoder": "fc1"}, "modules_to_save": ["norm"]},
            "does not name the thinker",
        ),
    ],
)
def test_what_matches_nothing_is_refused_with_the_names_there_are(
    values: dict[str, Any], words: str
) -> None:
    model = tiny_model()
    before = [n for n, _ in model.named_parameters()]
    with pytest.raises(UserError, match=words):
        adapters.add_adapters(model, LoraSettings(**values))
    assert [n for n, _ in model.named_parameters()] == before
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_unpacked(items: list[Item], kind: dict[str, Any]) -> None:
    model = adapted(**kind)
    apart = torch.cat([losses(model, [item]) for item in items])
    torch.testing.assert_close(losses(model, items), apart, atol=1e-4, rtol=1e-4)
    assert float((apart - losses(tiny_model(), items)).abs().max()) > 0.1


def test_shared_prefixes_give_the_same_gradients_as_repeated_ones(items: list[Item]) -> None:
    gradients = []
    for shared in (False, True):
        model = adapted().train()
        model.freeze_encoders()
        twice = [tiny_reader(model).item(s) for s in _alike()]
        if shared:
            share_prefix(twice)
            assert twice[1].shared
        sums, counts = model(pack(twice, 1))
        (sums.sum() / counts.sum()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if ".lora_" in n})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4)


def _alike() -> list[Any]:
    return [conversation(f"{n}", "what is 7 plus 5?", answer) for n, answer in enumerate("ab")]


@pytest.mark.parametrize("kind", [*KINDS, {"targets": {"thinker": None, "vision_encoder": None}}])
def test_merged_equals_unmerged(items: list[Item], kind: dict[str, Any]) -> None:
    model = adapted(**kind)
    before = losses(model, items)
    adapters.merge(model)
    assert model.adapters is None
    assert set(model.parts()) == set(tiny_model().parts())
    assert model.state_dict().keys() == tiny_model().state_dict().keys()
    torch.testing.assert_close(losses(model, items), before, atol=1e-5, rtol=1e-5)


def test_disabled_answers_are_those_of_the_base(items: list[Item]) -> None:
    model = adapted(modules_to_save=["embed_tokens"])
    trained = [p.requires_grad for p in model.parameters()]
    before = losses(model, items)
    with adapters.disabled(model):
        torch.testing.assert_close(
            losses(model, items), losses(tiny_model(), items), atol=0, rtol=0
        )
    assert torch.equal(losses(model, items), before)
    assert [p.requires_grad for p in model.parameters()] == trained


@pytest.mark.parametrize("kind", [*KINDS, {"modules_to_save": ["embed_tokens"]}])
def test_without_effect_brings_the_base_back(items: list[Item], kind: dict[str, Any]) -> None:
    model = adapted(**kind)
    assert model.adapters is not None
    values = adapters.without_effect(model.thinker, model.adapters.saved["thinker"])
    weights = dict(model.thinker.named_parameters())
    for name, value in values.items():
        weights[name].data.copy_(value)
    torch.testing.assert_close(losses(model, items), losses(tiny_model(), items))


def test_base_state_is_that_of_a_model_without_adapters() -> None:
    model, plain = adapted(modules_to_save=["lm_head", "norm"]), tiny_model()
    assert_equal(adapters.base_state(model, "thinker"), plain.thinker.state_dict())
    assert_equal(adapters.base_state(plain, "thinker"), plain.thinker.state_dict())


@pytest.mark.parametrize("kind", [*KINDS, {"targets": {"audio_encoder": None}}])
def test_whole_model_is_saved_and_loaded_with_its_adapters(
    items: list[Item], tmp_path: Path, kind: dict[str, Any]
) -> None:
    model = adapted(**kind)
    save_omni(tmp_path / "omni.pt", model, tiny_renderer())
    values = read_checkpoint(tmp_path / "omni.pt")
    assert_equal(values["thinker"], tiny_model().thinker.state_dict())
    again, _, _ = load_omni(tmp_path)
    assert torch.equal(losses(again, items), losses(model, items))
    assert not any(p.requires_grad for p in again.parameters())
    name, tensor = next(iter(next(iter(values["adapter"]["state"].values())).items()))
    for wrong in (tensor[:1, :1], None):
        state = {part: dict(tensors) for part, tensors in values["adapter"]["state"].items()}
        part = next(iter(state))
        state[part] |= {name: wrong}
        if wrong is None:
            del state[part][name]
        adapter = values["adapter"] | {"state": state}
        write_checkpoint(tmp_path / "omni.pt", values | {"adapter": adapter})
        with pytest.raises(UserError, match=r"omni\.pt: .*" + name.replace(".", r"\.")):
            load_omni(tmp_path)


def test_tied_embeddings_that_are_trained_whole_stay_tied() -> None:
    settings = tiny_model().config.thinker | {"tie_word_embeddings": True}
    model = adapted(model=OmniModel(OmniConfig(settings)), modules_to_save=["embed_tokens"])
    head, table = model.thinker.lm_head.weight, model.thinker.get_input_embeddings().weight
    assert head is table
    assert head.requires_grad
    state = adapters.base_state(model, "thinker")
    assert torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])
    assert not torch.equal(state["lm_head.weight"], head)


def test_adapters_of_a_base_in_half_precision_are_fp32_and_begin_without_effect() -> None:
    for kind in KINDS:
        model = tiny_model()
        model.thinker.bfloat16()
        expected = model.thinker(torch.arange(9)[None]).logits
        adapted(moved=False, model=model, **kind)
        state = adapters.adapter_state(model)["thinker"]
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
        assert torch.equal(model.thinker(torch.arange(9)[None]).logits, expected)


def test_dropout_is_for_training_only(items: list[Item]) -> None:
    model = adapted(dropout=0.5)
    assert torch.equal(losses(model, items), losses(adapted(), items))
    batch = pack(items, 1)
    one, other = (model.train()(batch)[0].sum() for _ in range(2))
    assert one != other


def test_rows_that_are_not_read_are_left_out_of_adapted_layers_too(items: list[Item]) -> None:
    model = adapted()
    assert model._last_layer is not None
    inside = losses(model, items)
    model._last_layer.close()
    model._last_layer = None
    torch.testing.assert_close(inside, losses(model, items))


def test_activations_that_are_computed_anew_give_the_same_gradients(items: list[Item]) -> None:
    gradients = []
    for anew in (False, True):
        model = adapted()
        model.freeze_encoders()  # their dropout would differ
        if anew:
            model.checkpoint_activations()
        sums, counts = model.train()(pack(items, 1))
        (sums.sum() / counts.sum()).backward()
        gradients.append([p.grad for n, p in model.named_parameters() if ".lora_" in n])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gemma2", "phi3", "gpt_oss"])
def test_families_of_other_layers_are_adapted_too(family: str) -> None:
    settings = {"model_type": family, "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64}
    settings |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    settings |= {"head_dim": 16, "num_local_experts": 2, "num_experts": 2, "pad_token_id": 0}
    settings |= {"moe_intermediate_size": 32, "num_experts_per_tok": 1, "mlp_only_layers": [0]}
    torch.manual_seed(0)
    model = OmniModel(OmniConfig(settings)).eval()
    tokens = torch.arange(9)[None]
    before, state = model.thinker(tokens).logits, clones(model.thinker.state_dict())
    adapted(model=model)
    after = model.thinker(tokens).logits
    assert not torch.allclose(before, after)
    assert_equal(adapters.base_state(model, "thinker"), state)
    adapters.merge(model)
    torch.testing.assert_close(model.thinker(tokens).logits, after, atol=1e-4, rtol=1e-4)


@pytest.mark.real
def test_a_real_thinker_is_adapted_and_merged() -> None:
    folder = Path(os.environ.get("OMNITUNE_PARTS", "parts")) / "thinker"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    thinker = load_pretrained(AutoModelForCausalLM, folder, dtype=torch.float32)
    model = OmniModel(OmniConfig(thinker.config.to_dict())).eval()
    model.thinker.load_state_dict(thinker.state_dict())
    state = clones(model.thinker.state_dict())
    tokens = torch.arange(100, 120)[None]
    before = model.thinker(tokens).logits
    adapted(model=model, moved=False, r=16, alpha=32)
    added = sum(p.numel() for p in model.parts()["thinker_adapter"].parameters())
    assert added == 4_884_480  # 16 rows and columns of the seven layers, thirty times
    assert torch.equal(model.thinker(tokens).logits, before)
    for name, tensor in adapters.adapter_state(model)["thinker"].items():
        if ".lora_B." in name:
            tensor.normal_(std=1e-3)
    after = model.thinker(tokens).logits
    assert not torch.allclose(after, before, atol=1e-2)
    assert_equal(adapters.base_state(model, "thinker"), state)
    adapters.merge(model)
    torch.testing.assert_close(model.thinker(tokens).logits, after, atol=1e-3, rtol=1e-4)
