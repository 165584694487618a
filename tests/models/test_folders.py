"""Thinkers from folders in Hugging Face's layout: joined, saved and loaded again."""

import json
from pathlib import Path

import pytest
import torch
from helpers import mixed_samples, tiny_model
from miniatures import CHATML, save_thinker_folder
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from omnitune.data.loader import SampleReader
from omnitune.data.packing import Item, pack
from omnitune.generation import generate
from omnitune.models import parity
from omnitune.models.loading import assemble, load_omni, save_encoder, save_omni
from omnitune.sample import Message, Text, UserError


def encoders(tmp_path: Path) -> dict[str, Path]:
    model = tiny_model()
    paths = {}
    for name, modality in model.modalities.items():
        paths[name] = tmp_path / f"{name}.pt"
        save_encoder(paths[name], name, modality.config, model.encoders[name].state_dict())
    return paths


def states(tmp_path: Path) -> dict[str, Tensor]:
    return dict(load_omni(tmp_path)[0].thinker.state_dict())


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_answer_is_that_of_the_library(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    folder = save_thinker_folder(tmp_path, family=family, dtype=dtype)
    model, renderer = assemble(folder, {})
    assert {p.dtype for p in model.thinker.parameters()} == {dtype}
    question = "which color is the circle?"
    prompt = renderer.render_prompt([Message("user", (Text(question),))])
    library = AutoModelForCausalLM.from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)
    inputs = words.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    whole = library.generate(**inputs, max_new_tokens=12, do_sample=False)[0].tolist()
    expected = [t for t in whole[len(prompt.tokens) :] if t not in renderer.ends]
    assert inputs["input_ids"][0].tolist() == prompt.tokens
    assert generate(model, [Item("", prompt, [])], renderer.ends, 12) == [expected]


def test_placeholders_are_added_to_any_vocabulary(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path / "thinker")
    before = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
    model, renderer = assemble(folder, encoders(tmp_path))
    weight = model.thinker.get_input_embeddings().weight
    assert len(weight) % 64 == 0
    assert torch.equal(weight[: len(before)], before)
    for token in ("<|image|>", "<|audio|>"):
        assert torch.allclose(weight[renderer.id_of(token)], before.mean(dim=0), atol=1e-6)
    assert model.config.thinker["vocab_size"] == len(weight)


@pytest.mark.parametrize("whole", [True, False])
def test_a_model_of_a_folder_is_loaded_as_it_was(tmp_path: Path, whole: bool) -> None:
    folder = save_thinker_folder(tmp_path / "thinker", dtype=torch.bfloat16)
    model, renderer = assemble(folder, encoders(tmp_path))
    save_omni(tmp_path / "omni.pt", model, renderer, save_whole=whole)
    values = torch.load(tmp_path / "omni.pt", weights_only=True)
    assert bool(values["thinker"]) == whole
    found = states(tmp_path)
    for name, weight in model.thinker.state_dict().items():
        assert torch.equal(found[name], weight), name
        assert found[name].dtype == weight.dtype
    again = load_omni(tmp_path)[1]
    question = [Message("user", (Text("what is it?"),))]
    assert again.render_prompt(question) == renderer.render_prompt(question)


def test_a_base_that_has_changed_or_gone_is_refused(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path / "thinker")
    model, renderer = assemble(folder, encoders(tmp_path))
    save_omni(tmp_path / "omni.pt", model, renderer, save_whole=False)
    save_thinker_folder(folder, seed=1)
    with pytest.raises(UserError, match="holds other weights than the model was trained with"):
        load_omni(tmp_path)
    (folder / "config.json").unlink()
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"thinker.* is gone.* put it back"):
        load_omni(tmp_path)


def test_a_base_that_was_trained_is_saved(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path / "thinker")
    model, renderer = assemble(folder, {})
    with torch.no_grad():
        model.thinker.get_input_embeddings().weight[0, 0] += 1
    save_omni(tmp_path / "omni.pt", model, renderer, save_whole=False)
    name = "model.embed_tokens.weight"
    assert torch.equal(states(tmp_path)[name], model.thinker.state_dict()[name])


def test_a_language_model_inside_of_another_is_taken_out(tmp_path: Path) -> None:
    from miniatures import tokenizer
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    words = tokenizer(CHATML)
    text = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    torch.manual_seed(0)
    whole = Gemma3ForConditionalGeneration(config)
    whole.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model, _ = assemble(tmp_path, {})
    assert model.thinker.config.model_type == "gemma3_text"
    expected = whole.get_input_embeddings().weight
    assert torch.equal(model.thinker.get_input_embeddings().weight, expected)


def test_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder; expected a checkpoint"):
        assemble(tmp_path / "nowhere" / "deep", {})
    with pytest.raises(UserError, match=r"holds no config\.json"):
        assemble(tmp_path, {})
    folder = save_thinker_folder(tmp_path / "thinker")
    weights = load_file(folder / "model.safetensors")
    lost = "model.layers.0.self_attn.q_proj.weight"
    save_file({n: w for n, w in weights.items() if n != lost}, folder / "model.safetensors")
    with pytest.raises(UserError, match=f"1 weights are missing, the first is {lost}"):
        assemble(folder, {})
    wrong = weights | {lost: weights[lost][:8].clone()}
    save_file(wrong, folder / "model.safetensors")
    with pytest.raises(UserError, match=f"{lost} has the size|cannot be loaded"):
        assemble(folder, {})
    index = {"weight_map": {n: f"model-0000{1 + n.startswith('lm')}.safetensors" for n in weights}}
    (folder / "model.safetensors").rename(folder / "model-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if len(set(index["weight_map"].values())) > 1:
        with pytest.raises(UserError, match="1 of 2 shards are missing, the first is model-00002"):
            assemble(folder, {})
    (folder / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match=r"'t5' cannot be trained: .* take one of"):
        assemble(folder, {})


def test_the_hub_without_a_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"Hugging Face Hub does not give it.*hf download no/such"):
        assemble(Path("no/such@main"), {})


def resized(folder: Path, rows: int) -> Tensor:
    """Gives a folder's thinker another number of embeddings; returns them."""
    thinker = AutoModelForCausalLM.from_pretrained(folder)
    thinker.resize_token_embeddings(rows, mean_resizing=False)
    thinker.save_pretrained(folder)
    return thinker.get_input_embeddings().weight.detach()


def test_embeddings_of_tokens_behind_a_gap_stay(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path / "thinker")
    values = json.loads((folder / "tokenizer.json").read_text())
    first = min(t["id"] for t in values["added_tokens"] if t["content"] == "<think>")
    for token in values["added_tokens"]:
        token["id"] += 20 if token["id"] >= first else 0
        values["model"]["vocab"][token["content"]] = token["id"]
    (folder / "tokenizer.json").write_text(json.dumps(values))
    before = resized(folder, first + 40)
    model, renderer = assemble(folder, encoders(tmp_path))
    weight = model.thinker.get_input_embeddings().weight
    assert renderer.id_of("<think>") == first + 20
    new = {renderer.id_of("<|image|>"), renderer.id_of("<|audio|>")}
    kept = [n for n in range(len(before)) if n not in new]
    assert torch.equal(weight[kept], before[kept])


@pytest.mark.parametrize("media", [True, False])
def test_a_tokenizer_of_more_tokens_than_embeddings_is_told_of(
    tmp_path: Path, media: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_thinker_folder(tmp_path / "thinker")
    before = resized(folder, 280)
    model, renderer = assemble(folder, encoders(tmp_path) if media else {})
    assert "embeddings of 280 tokens and its tokenizer has" in capsys.readouterr().out
    weight = model.thinker.get_input_embeddings().weight
    assert torch.equal(weight[:280], before)
    assert torch.allclose(weight[280:], before.mean(dim=0), atol=1e-6)
    assert len(weight) > renderer.id_of("</think>")
    save_omni(tmp_path / "omni.pt", model, renderer, save_whole=False)
    assert torch.equal(states(tmp_path)["model.embed_tokens.weight"], weight)


def test_a_decoder_of_an_encoder_is_no_thinker(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path)
    (folder / "config.json").write_text('{"model_type": "whisper", "is_encoder_decoder": true}')
    with pytest.raises(UserError, match=rf"{folder}: .*'whisper' cannot be trained: its decoder"):
        assemble(folder, {})


def test_end_tokens_that_are_no_numbers_are_passed_over(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 99999, null, "x"]}')
    _, renderer = assemble(folder, {})
    assert renderer.ends == {renderer.id_of("<|im_end|>")}


def test_parts_of_unlike_formats_are_scored(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path / "thinker", dtype=torch.bfloat16)
    model, renderer = assemble(folder, encoders(tmp_path))
    model.eval()
    reader = SampleReader(renderer, model.modalities)
    samples = mixed_samples(tmp_path)
    items = [reader.item(single) for single in samples]
    assert {p.dtype for p in model.proj_v.parameters()} == {torch.float32}
    assert model.token_scores(pack(items)).nll_N.isfinite().all()
    assert len(generate(model, items[:2], renderer.ends, 3)) == 2


def test_a_deep_thinker_of_a_known_family_is_compared_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_thinker_folder(tmp_path, num_hidden_layers=12)
    seen = []
    whole = parity._difference
    monkeypatch.setattr(
        parity, "_difference", lambda t, *a: (seen.append(len(t.model.layers)), whole(t, *a))[1]
    )
    model, _ = assemble(folder, {})
    assert seen == [parity.COMPARED + 1]
    assert len(model.thinker.model.layers) == 12
    monkeypatch.setattr(parity, "KNOWN", ())
    assemble(folder, {})
    assert seen[-1] == 12


def test_a_base_is_found_from_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_thinker_folder(tmp_path / "parts" / "thinker")
    monkeypatch.chdir(tmp_path)
    model, renderer = assemble(Path("parts/thinker"), {})
    save_omni(tmp_path / "omni.pt", model, renderer, save_whole=False)
    monkeypatch.chdir(tmp_path.parent)
    assert states(tmp_path).keys() == model.thinker.state_dict().keys()
    monkeypatch.setattr("omnitune.hub.is_repository", lambda given: pytest.fail("asks the Hub"))
    (tmp_path / "parts").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"parts.thinker: the folder of a pretrained part is gone"):
        load_omni(tmp_path)
