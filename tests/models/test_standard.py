"""The standard model computes what the packed one does, and loads as models of transformers do."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ENCODERS as ENCODER_SETTINGS
from helpers import (
    conversation,
    mixed_samples,
    tiny_model,
    tiny_reader,
    tiny_renderer,
    write_image,
    write_wave,
)
from miniatures import save_thinker_folder
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
)

from omnitune.data.loader import SampleReader
from omnitune.data.packing import Item, pack
from omnitune.encoders.base import Encoder, MediaStats
from omnitune.encoders.registry import ENCODERS
from omnitune.evaluation.certificate import as_dicts, relative_difference
from omnitune.generation import generate
from omnitune.media.base import Fingerprint, Medium
from omnitune.media.registry import MEDIA
from omnitune.models.bases import beside_statistics, cast_, made_at_once
from omnitune.models.convert import to_standard
from omnitune.models.export import write_standard
from omnitune.models.exported import load_exported_omni
from omnitune.models.loading import load_thinker
from omnitune.models.media_tensors import stack, unstack
from omnitune.models.omni import OmniModel
from omnitune.models.standard import OmniBackbone, OmniForConditionalGeneration
from omnitune.sample import Media, Sample

OPTIONS = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
BLOCKED = (
    "import sys\n"
    "class Block:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.split('.')[0] == 'omnitune':\n"
    "            raise ImportError('blocked')\n"
    "sys.meta_path.insert(0, Block())\n"
)


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return tiny_model()


@pytest.fixture(scope="module")
def folder(model: OmniModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    write_standard(out, model, tiny_renderer())
    return out


@pytest.fixture(scope="module")
def standard(folder: Path) -> Any:
    return AutoModelForMultimodalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return mixed_samples(tmp_path_factory.mktemp("media"))


def whole(processor: Any, samples: list[Sample], side: str = "right") -> Any:
    """A padded batch of conversations with labels."""
    batch = processor.apply_chat_template(
        [as_dicts(sample.messages) for sample in samples],
        return_assistant_tokens_mask=True,
        processor_kwargs={"padding": True, "padding_side": side},
        **OPTIONS,
    )
    mask = batch.pop("assistant_masks")
    batch["labels"] = batch["input_ids"].masked_fill(mask == 0, -100)
    return batch


def prompts(processor: Any, samples: list[Sample]) -> Any:
    return processor.apply_chat_template(
        [as_dicts(sample.messages[:1]) for sample in samples],
        add_generation_prompt=True,
        processor_kwargs={"padding": True},
        **OPTIONS,
    )


def test_all_weights_come_back(model: OmniModel, folder: Path) -> None:
    back, found = OmniForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    expected = to_standard(model, tiny_renderer()).state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert all(torch.equal(expected[name], t) for name, t in back.state_dict().items())


def test_saving_again_changes_nothing(standard: Any, processor: Any, tmp_path: Path) -> None:
    standard.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    back = AutoModelForImageTextToText.from_pretrained(tmp_path)
    state = standard.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in back.state_dict().items())
    assert back.config.to_dict()["vision_config"] == standard.config.to_dict()["vision_config"]
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert (tmp_path / "chat_template.jinja").read_text() == processor.chat_template


def test_the_base_model_loads_alone(standard: Any, folder: Path) -> None:
    base = AutoModel.from_pretrained(folder)
    assert isinstance(base, OmniBackbone)
    state = standard.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.state_dict().items())


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_loss_on_padded_rows_is_the_packed_one(
    model: OmniModel, standard: Any, processor: Any, samples: list[Sample], side: str
) -> None:
    reader = tiny_reader(model)
    items = [reader.item(sample) for sample in samples]
    with torch.no_grad():
        sums, counts = model(pack(items))
        out = standard(**whole(processor, samples, side))
    assert float(out.loss) == pytest.approx(float(sums / counts), abs=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_under_the_librarys_own_attention(
    folder: Path, model: OmniModel, processor: Any, samples: list[Sample], attention: str
) -> None:
    other = AutoModelForMultimodalLM.from_pretrained(folder, attn_implementation=attention)
    batch = whole(processor, samples)
    labels = batch.pop("labels")
    found = other.eval()(**batch).logits[:, :-1][labels[:, 1:] != -100]
    reader = tiny_reader(model)
    expected = model._logits(pack([reader.item(sample) for sample in samples]))
    assert torch.allclose(found, expected, atol=1e-4)


def test_greedy_answers_are_those_of_training(
    model: OmniModel, standard: Any, processor: Any, samples: list[Sample]
) -> None:
    renderer, reader = tiny_renderer(), tiny_reader(model)
    asked = [reader.prompt(sample.id, sample.messages[:1]) for sample in samples]
    expected = generate(model, asked, renderer.ends, 12)
    batch = prompts(processor, samples)
    out = standard.generate(**batch, max_new_tokens=12, do_sample=False)
    rows = out[:, batch["input_ids"].shape[1] :].tolist()
    rest = {standard.config.pad_token_id, *renderer.ends}
    assert [[token for token in row if token not in rest] for row in rows] == expected


def test_what_would_be_answered_without_the_media_is_refused(
    standard: Any, processor: Any, samples: list[Sample]
) -> None:
    shown = [sample for sample in samples if sample.media][:1]
    asked = prompts(processor, shown)
    with pytest.raises(ValueError, match="prompt_lookup_num_tokens read tokens only"):
        standard.generate(**asked, prompt_lookup_num_tokens=2)
    text = {name: asked[name] for name in ("input_ids", "attention_mask")}
    for call in (standard, standard.model, standard.generate):
        with pytest.raises(ValueError, match=r"has placeholders of \w+, and \w+ is missing"):
            call(**text)


def test_beams_read_the_media_of_their_own_prompt(
    standard: Any, processor: Any, tmp_path: Path
) -> None:
    """Rows with two pictures each: to repeat pictures as rows are repeated would mix them up."""
    pictures = [Media("image", write_image(tmp_path / f"{n}.png", seed=n)) for n in range(4)]
    pair = [
        conversation("one", "which?", "red.", media=tuple(pictures[:2])),
        conversation("two", "which?", "red.", media=tuple(pictures[2:])),
    ]
    options = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    both = standard.generate(**prompts(processor, pair), **options)
    alone = [standard.generate(**prompts(processor, [one]), **options) for one in pair]
    for row, single in zip(both, alone, strict=True):
        assert row[: single.shape[1]].tolist() == single[0].tolist()
    several = standard.generate(
        **prompts(processor, pair), max_new_tokens=3, do_sample=True, num_return_sequences=2
    )
    assert several.shape[0] == 4


def test_a_loop_of_ones_own_reads_media_once(
    standard: Any, processor: Any, samples: list[Sample]
) -> None:
    batch = prompts(processor, samples[1:2])
    ids = batch["input_ids"]
    first = standard.prepare_inputs_for_generation(
        ids, pixel_values=batch["pixel_values"], is_first_iteration=True
    )
    later = standard.prepare_inputs_for_generation(ids, pixel_values=batch["pixel_values"])
    assert "pixel_values" in first
    assert "pixel_values" not in later


def test_placeholders_and_media_have_to_match(
    standard: Any, processor: Any, samples: list[Sample]
) -> None:
    batch = prompts(processor, samples[1:2])
    batch["input_ids"] = batch["input_ids"][:, 2:]
    batch["attention_mask"] = batch["attention_mask"][:, 2:]
    with pytest.raises(ValueError, match="image feature rows for"):
        standard(**batch)


def test_only_asked_for_positions_get_logits(
    standard: Any, processor: Any, samples: list[Sample]
) -> None:
    batch = prompts(processor, samples)
    every = standard(**batch).logits
    assert torch.allclose(standard(**batch, logits_to_keep=2).logits, every[:, -2:], atol=1e-6)


def test_the_thinker_loads_without_omnitune(folder: Path, model: OmniModel) -> None:
    """From its own folder, and from the whole one with its configuration."""
    code = BLOCKED + (
        "import torch\n"
        "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer\n"
        f"folder = {str(folder)!r}\n"
        "own = AutoModelForCausalLM.from_pretrained(folder + '/thinker')\n"
        "config = AutoConfig.from_pretrained(folder + '/thinker')\n"
        "top = AutoModelForCausalLM.from_pretrained(folder, config=config)\n"
        "words = AutoTokenizer.from_pretrained(folder + '/thinker')\n"
        "ids = words.apply_chat_template([{'role': 'user', 'content': 'what is 7 plus 5?'}],\n"
        "    add_generation_prompt=True, return_tensors='pt', return_dict=True)['input_ids']\n"
        "print(ids[0].tolist())\n"
        "print(torch.equal(own(ids).logits, top(ids).logits))\n"
        "print(own(ids).logits[0, -1].tolist())\n"
        "print(own.generation_config.eos_token_id, 'omnitune' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ids, same, logits, last = done.stdout.splitlines()[-4:]
    item = tiny_reader(model).prompt("one", conversation("one", "what is 7 plus 5?").messages)
    assert json.loads(ids) == item.rendered.tokens
    assert same == "True"
    with torch.no_grad():
        expected = model.thinker(torch.tensor([item.rendered.tokens])).logits[0, -1]
    assert torch.allclose(torch.tensor(json.loads(logits)), expected, atol=1e-4)
    assert last.endswith("False")


def test_no_weight_is_written_twice(folder: Path) -> None:
    """What the thinker's folder holds are further names of the same bytes."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = {path.stat().st_ino: path for path in folder.rglob("*.safetensors")}
    total = sum(path.stat().st_size for path in files.values())
    assert total < 1.2 * index["metadata"]["total_size"]


@pytest.mark.parametrize("links", [True, False])
def test_the_thinkers_folder_can_be_taken_away(
    model: OmniModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """On a disk without hard links, with the shards above it."""

    def none(*_: Any) -> None:
        raise OSError("this disk has no links")

    if not links:
        monkeypatch.setattr("os.link", none)
    write_standard(tmp_path / "out", model, tiny_renderer(), shard_bytes=30_000)
    folder = tmp_path / "out" / "thinker"
    if links:
        folder = folder.rename(tmp_path / "alone")
    thinker = AutoModelForCausalLM.from_pretrained(folder)
    state = thinker.state_dict()
    assert all(torch.equal(state[name], t) for name, t in model.thinker.state_dict().items())
    assert len(list((tmp_path / "out").glob("model-thinker-*.safetensors"))) > 1


def test_small_shards(model: OmniModel, tmp_path: Path) -> None:
    write_standard(tmp_path / "model", model, tiny_renderer(), shard_bytes=50_000)
    assert len(list((tmp_path / "model").glob("model-thinker-*.safetensors"))) > 1
    back = AutoModelForMultimodalLM.from_pretrained(tmp_path / "model")
    expected = to_standard(model, tiny_renderer()).state_dict()
    assert all(torch.equal(expected[name], t) for name, t in back.state_dict().items())


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("llama", torch.float32),
        ("qwen3", torch.bfloat16),
        ("granite", torch.float32),
        ("gemma2", torch.float32),
    ],
)
def test_families_of_thinkers(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    """With tied embeddings, scaled or bounded logits, half precision."""
    given = save_thinker_folder(tmp_path / "thinker", family=family, dtype=dtype, head_dim=8)
    model, renderer = load_thinker(given)
    write_standard(tmp_path / "out", model.eval(), renderer)
    back, found = AutoModelForMultimodalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert back.dtype == dtype
    assert back.generation_config.eos_token_id == sorted(renderer.ends)
    sample = conversation("one", "what is 7 plus 5?", "12", "and 1 more?", "13")
    rendered = renderer.render(sample.messages)
    expected = model._logits(pack([Item("one", rendered, [])])).float()
    logits = back.eval()(torch.tensor([rendered.tokens])).logits[0, :-1].float()
    kept = torch.tensor(rendered.supervised)[1:]
    tolerance = 1e-4 if dtype.itemsize == 4 else 5e-2
    assert relative_difference(expected, logits[kept]) < tolerance


def test_parts_keep_their_number_formats(tmp_path: Path) -> None:
    model = tiny_model()
    for part in (model.encoders["image"], model.encoders["audio"]):
        cast_(part, torch.bfloat16)
    standard = to_standard(model, tiny_renderer())
    standard.save_pretrained(tmp_path)
    back = OmniForConditionalGeneration.from_pretrained(tmp_path)
    for name, weight in standard.named_parameters():
        assert back.get_parameter(name).dtype == weight.dtype, name


def test_a_thinker_in_half_precision_before_fresh_projectors(
    tmp_path: Path, samples: list[Sample]
) -> None:
    given = save_thinker_folder(tmp_path / "thinker", dtype=torch.bfloat16)
    model, renderer = load_thinker(given, ENCODER_SETTINGS)
    reader = SampleReader(renderer, model.eval().modalities)
    write_standard(tmp_path / "out", model, renderer)
    back = AutoModelForMultimodalLM.from_pretrained(tmp_path / "out").eval()
    batch = whole(AutoProcessor.from_pretrained(tmp_path / "out"), samples)
    labels = batch.pop("labels")
    with torch.no_grad():
        expected = model._logits(pack([reader.item(sample) for sample in samples]))
        found = back(**batch).logits[:, :-1][labels[:, 1:] != -100]
    assert found.dtype == torch.bfloat16
    assert relative_difference(expected.float(), found.float()) < 5e-2


@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
def test_a_format_that_is_asked_for_holds_in_all_parts(
    saved: torch.dtype, processor: Any, samples: list[Sample]
) -> None:
    """As engines ask: they rebuild some layers in that format, and others in the layer's own."""
    model = tiny_model()
    cast_(model.thinker, saved)
    standard = to_standard(model, tiny_renderer()).eval()
    config = copy.deepcopy(standard.config)
    half: Any = OmniForConditionalGeneration._from_config(config, dtype=torch.bfloat16).eval()
    kept = beside_statistics(half)
    assert kept
    for name, weight in half.named_parameters():
        assert weight.dtype == (torch.float32 if name in kept else torch.bfloat16), name
    half.load_state_dict(standard.state_dict())
    batch = whole(processor, samples)
    batch.pop("labels")
    with torch.no_grad():
        found, expected = half(**batch).logits.float(), standard(**batch).logits.float()
    assert relative_difference(expected, found) < 5e-2


def test_media_features_by_name(standard: Any, processor: Any, samples: list[Sample]) -> None:
    batch = whole(processor, samples)
    found = standard.get_image_features(batch["pixel_values"])
    assert [rows.shape for rows in found.pooler_output] == [(4, 32)] * 2
    sounds = standard.get_audio_features(
        batch["input_features"], input_features_sizes=batch["input_features_sizes"]
    )
    slots = int((batch["input_ids"] == standard.config.audio_token_id).sum())
    assert len(sounds.pooler_output) == slots
    assert not hasattr(standard, "get_smell_features")


def test_training_leaves_what_is_frozen_and_batch_norms(standard: Any) -> None:
    standard.model.train()
    encoders = standard.model.encoders.requires_grad_(False)
    standard.train()
    inside = [module for encoder in encoders.values() for module in encoder.modules()]
    assert not any(module.training for module in inside)
    encoders.requires_grad_(True)
    standard.train()
    norms = [m for m in inside if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert not any(norm.training for norm in norms)
    standard.eval()


def test_commands_read_an_export(model: OmniModel, folder: Path, samples: list[Sample]) -> None:
    back, renderer, _ = load_exported_omni(folder)
    reader = tiny_reader(model)
    batch = pack([reader.item(sample) for sample in samples])
    assert torch.allclose(back._logits(batch), model._logits(batch), atol=1e-5)
    assert renderer.render(samples[0].messages) == tiny_renderer().render(samples[0].messages)


def test_stacking_media() -> None:
    inputs = [torch.randn(3, 4), torch.randn(2, 5, 4), torch.randn(1, 4)]
    stacked, sizes = stack(inputs)
    assert all(
        torch.equal(one, other) for one, other in zip(inputs, unstack(stacked, sizes), strict=True)
    )


class Series(Medium):
    """Numbers, one a line."""

    name, caption_key, unit = "series", "reading", "values"

    def check(self, path: Path) -> None: ...

    def fingerprint(self, path: Path) -> Fingerprint:
        return Fingerprint(0, 1)

    def store(self, given: Any, folder: Path) -> Path:
        path = folder / "series.txt"
        path.write_text("\n".join(map(str, given)))
        return path


class SeriesEncoder(Encoder):
    """Each number is a slot."""

    type, medium_name, feature_dim = "series_linear", "series", 8

    def read(self, path: Path) -> Tensor:
        return torch.tensor([float(line) for line in path.read_text().split()])[:, None]

    def measure(self, path: Path) -> MediaStats:
        count = len(self.read(path))
        return MediaStats(count, 0.0, count, count)

    def num_slots(self, inputs: Tensor) -> int:
        return len(inputs)

    def build(self) -> nn.Module:
        return nn.Linear(1, self.feature_dim)

    def encode(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        return [module(x) for x in inputs]


def test_a_third_medium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEDIA, "series", Series())
    monkeypatch.setitem(ENCODERS, "series_linear", SeriesEncoder)
    given = save_thinker_folder(tmp_path / "thinker")
    model, renderer = load_thinker(given, {"series": {"type": "series_linear"}})
    write_standard(tmp_path / "out", model.eval(), renderer)
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.series_config.settings == {"type": "series_linear"}
    standard = AutoModelForMultimodalLM.from_pretrained(tmp_path / "out").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    parts = [{"type": "series", "series": [1.0, 2.0, 3.0]}, {"type": "text", "text": "which?"}]
    messages = [{"role": "user", "content": parts}]
    batch = processor.apply_chat_template(messages, add_generation_prompt=True, **OPTIONS)
    assert batch["series_values"].shape == (1, 3, 1)
    assert standard.generate(**batch, max_new_tokens=2).shape[1] > batch["input_ids"].shape[1]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    again = processor(text=text, series=[[1.0, 2.0, 3.0]], return_tensors="pt")
    assert torch.equal(again["input_ids"], batch["input_ids"])
    found = standard.get_series_features(batch["series_values"]).pooler_output
    [rows] = model.encode("series", [torch.tensor([[1.0], [2.0], [3.0]])])
    assert torch.allclose(found, model.projector("series")(rows, [3]))


def test_batch_norms_stay_in_fp32(tmp_path: Path, samples: list[Sample]) -> None:
    """No kernel takes their statistics beside weights in half precision."""
    model = tiny_model()
    for encoder in model.encoders.values():
        cast_(encoder, torch.bfloat16)
    inputs = model.modalities["audio"].read(write_wave(tmp_path / "a.wav"))
    [rows_ND] = model.encode("audio", [inputs.bfloat16()])
    assert rows_ND.dtype == torch.bfloat16
    assert rows_ND.isfinite().all()
    write_standard(tmp_path / "out", model, tiny_renderer())
    back = OmniForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    kept = beside_statistics(back.model.encoders)
    assert kept
    for name, weight in back.model.encoders.named_parameters():
        assert weight.dtype == (torch.float32 if name in kept else torch.bfloat16), name
    # Engines go by these names.
    assert back.model._keep_in_fp32_modules_strict == beside_statistics(back.model)


def test_buffers_are_made_where_things_stay() -> None:
    """An engine builds on its own device and moves nothing; the library builds on none."""
    for ambient, expected in (("meta", "cpu"), ("cuda:0", "cuda")):
        with torch.device(ambient), made_at_once():
            assert torch.get_default_device().type == expected
