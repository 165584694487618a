"""The processor's prompts are the renderer's; media come from files and from memory alike."""

import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from helpers import (
    ENCODERS,
    conversation,
    mixed_samples,
    tiny_model,
    tiny_renderer,
    write_image,
    write_wave,
)
from miniatures import TEMPLATES, save_thinker_folder, save_vision_folder
from PIL import Image
from transformers.processing_utils import MultiModalData

from omnitune.data.template import ChatRenderer, placeholder
from omnitune.encoders.base import Encoder
from omnitune.encoders.registry import build_encoder, read_pretrained, with_settings
from omnitune.evaluation.certificate import as_dicts
from omnitune.models.convert import to_processor, to_standard
from omnitune.models.loading import assemble, load_thinker
from omnitune.models.media_tensors import unstack
from omnitune.models.medium_processor import MediumProcessor
from omnitune.models.processor import OmniProcessor
from omnitune.models.standard import OmniForConditionalGeneration
from omnitune.sample import Message, Sample, Text

OPTIONS = {"tokenize": True, "return_dict": True}


@pytest.fixture(scope="module")
def processor() -> OmniProcessor:
    return to_processor(tiny_model(), tiny_renderer())


def turns(*texts: str, system: str = "") -> list[dict[str, Any]]:
    first = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return first + [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


CONVERSATIONS = [
    turns("what is the sky?"),
    turns("  what is the sky?\n", "the air.", "and 7 plus 5?"),
    turns("one", "two", "three", "four", "five", system="You help."),
]


def messages_of(conversation: list[dict[str, Any]]) -> list[Message]:
    return [Message(turn["role"], (Text(turn["content"]),)) for turn in conversation]


def processor_of(template: str | None, tmp_path: Path) -> tuple[OmniProcessor, ChatRenderer]:
    """Processor and renderer of the tiny thinker, or of a folder's with a template."""
    if template is None:
        return to_processor(tiny_model(), tiny_renderer()), tiny_renderer()
    given = save_thinker_folder(tmp_path / "thinker", TEMPLATES[template])
    model, renderer = load_thinker(given, {"image": ENCODERS["image"]})
    return to_processor(model, renderer), renderer


@pytest.mark.parametrize("template", [None, *TEMPLATES])
@pytest.mark.parametrize("turn", CONVERSATIONS)
def test_prompts_are_the_renderers(
    template: str | None, turn: list[dict[str, Any]], tmp_path: Path
) -> None:
    made, renderer = processor_of(template, tmp_path)
    made.save_pretrained(tmp_path / "out")
    back = OmniProcessor.from_pretrained(tmp_path / "out")
    expected = renderer.render_prompt(messages_of(turn)).tokens
    found = back.apply_chat_template(turn, add_generation_prompt=True, **OPTIONS)
    assert found["input_ids"] == [expected]


@pytest.mark.parametrize("template", [None, "chatml", "no_system"])
@pytest.mark.parametrize("turn", CONVERSATIONS)
def test_the_template_alone_writes_the_same(
    template: str | None, turn: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Of families that write every turn in one way."""
    made, renderer = processor_of(template, tmp_path)
    text = made.apply_chat_template(turn, add_generation_prompt=True)
    expected = renderer.render_prompt(messages_of(turn)).tokens
    assert made(text=text, add_special_tokens=False)["input_ids"] == [expected]


def test_media_of_a_pretrained_thinkers_template(tmp_path: Path) -> None:
    given = save_thinker_folder(tmp_path / "thinker")
    model, renderer = load_thinker(given, ENCODERS)
    made = to_processor(model, renderer)
    samples = mixed_samples(tmp_path)
    for sample in samples:
        conversation = as_dicts(sample.messages[:1])
        found = made.apply_chat_template(conversation, add_generation_prompt=True, **OPTIONS)
        text = made.apply_chat_template(conversation, add_generation_prompt=True)
        paths = {
            name: [str(m.path) for m in sample.media if m.modality == name] for name in made.media
        }
        again = made(
            text=text,
            images=paths["image"] or None,
            audio=paths["audio"] or None,
            add_special_tokens=False,
        )
        counts = [
            made.num_slots(m.modality, made.media[m.modality].read(m.path)) for m in sample.media
        ]
        expected = renderer.render_prompt(sample.messages[:1], counts).tokens
        assert found["input_ids"] == again["input_ids"] == [expected]


def test_what_a_user_writes_is_no_control_token(processor: OmniProcessor) -> None:
    end = processor.renderer.end
    found = processor.apply_chat_template(turns("say <|end|><|image|>"), **OPTIONS)
    [ids] = found["input_ids"]
    assert ids.count(end) == 1
    assert processor.image_token_id not in ids


def test_masks_tell_what_training_learns(processor: OmniProcessor, tmp_path: Path) -> None:
    samples = mixed_samples(tmp_path)
    for side in ("left", "right"):
        found = processor.apply_chat_template(
            [as_dicts(sample.messages) for sample in samples],
            return_assistant_tokens_mask=True,
            processor_kwargs={"padding": True, "padding_side": side},
            **OPTIONS,
        )
        for sample, ids, mask in zip(
            samples, found["input_ids"], found["assistant_masks"], strict=True
        ):
            counts = [
                processor.num_slots(m.modality, processor.media[m.modality].read(m.path))
                for m in sample.media
            ]
            one = tiny_renderer().render(sample.messages, counts)
            learnt = [t for t, yes in zip(one.tokens, one.supervised, strict=True) if yes]
            assert [t for t, yes in zip(ids, mask, strict=True) if yes] == learnt


def test_media_in_memory_are_those_of_files(processor: OmniProcessor, tmp_path: Path) -> None:
    picture, wave = write_image(tmp_path / "one.png"), write_wave(tmp_path / "one.wav")
    image, sound = processor.media["image"], processor.media["audio"]
    expected = image.read(picture)
    samples, _ = soundfile.read(wave, dtype="float32")
    forms = [Image.open(picture), np.asarray(Image.open(picture)), str(picture), picture.as_uri()]
    assert all(torch.equal(image.read(form), expected) for form in forms)
    expected = sound.read(wave)
    for form in (samples, samples.tolist(), (samples, 16_000), torch.from_numpy(samples)):
        assert torch.allclose(sound.read(form), expected, atol=1e-4)
    slower = sound.read((samples, 8_000))
    assert len(slower) > 1.9 * len(expected)


@pytest.mark.parametrize("key", ["image", "path", "url", "image_url"])
def test_typed_parts(processor: OmniProcessor, tmp_path: Path, key: str) -> None:
    picture = write_image(tmp_path / "one.png")
    shown: dict[str, Any] = {"type": "image", key: str(picture)}
    if key == "image_url":  # as in OpenAI's requests
        shown = {"type": key, key: {"url": picture.as_uri()}}
    parts = [shown, {"type": "text", "text": "which color?"}]
    message = {"role": "user", "content": parts, "tool_calls": None}
    found = processor.apply_chat_template([message], **OPTIONS)
    assert found["input_ids"] == processor.apply_chat_template([[message]], **OPTIONS)["input_ids"]
    assert found["pixel_values"].shape == (1, 3, 32, 32)
    assert found["input_ids"][0].count(processor.image_token_id) == 4


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([{"type": "image", "url": "https://example.org/a.png"}], "another machine"),
        ([{"type": "image"}], "names no file"),
        ([{"type": "smell", "path": "a"}], "knows text, image, audio"),
        ([{"type": "image", "path": "nowhere.png"}], "nowhere.png"),
        ([{"type": "image", "image": {"a": 1}}], "expected a path"),
        ([{"type": "audio", "audio": [0.0, 0.1]}], "the sound: "),
    ],
)
def test_wrong_media_are_told(
    processor: OmniProcessor, parts: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        processor.apply_chat_template([{"role": "user", "content": parts}], **OPTIONS)


def test_wrong_calls_are_told(processor: OmniProcessor, tmp_path: Path) -> None:
    picture = write_image(tmp_path / "one.png")
    with pytest.raises(ValueError, match="1 times, and 0 are given"):
        processor(text="<|image|>")
    with pytest.raises(ValueError, match="max_length"):
        processor(text="<|image|>", images=picture, truncation=True, max_length=2)
    with pytest.raises(ValueError, match="role 'tool'"):
        processor.apply_chat_template([{"role": "tool", "content": "x"}], **OPTIONS)
    with pytest.raises(ValueError, match="no videos"):
        processor(text="x", videos=["a.mp4"])


def test_decoding(processor: OmniProcessor) -> None:
    found = processor.apply_chat_template(turns("what is the sky?"), **OPTIONS)
    [text] = processor.batch_decode(found["input_ids"], skip_special_tokens=True)
    assert text.strip() == "what is the sky?"


class TestEngines:
    """What vLLM's Transformers backend asks of a processor and a model.

    By docs.vllm.ai "Supported Models: Transformers" (writing custom models), the documentation of
    transformers "Inference backends: multimodal models", and, for sound and replacement offsets,
    vllm/model_executor/models/transformers/multimodal.py (2026).
    """

    def test_tokens_and_their_ids(self, processor: OmniProcessor) -> None:
        for name in ("image", "audio"):
            assert getattr(processor, f"{name}_token") == placeholder(name)
            number = processor.tokenizer.convert_tokens_to_ids(placeholder(name))
            assert getattr(processor, f"{name}_token_id") == number
            assert getattr(processor, f"{name}_token_ids") == [number]
            assert getattr(tiny_config(), f"{name}_token_id") == number

    def test_token_types(self, processor: OmniProcessor, tmp_path: Path) -> None:
        picture, wave = write_image(tmp_path / "a.png"), write_wave(tmp_path / "a.wav")
        found = processor(
            text="a<|image|>b<|audio|>",
            images=[Image.open(picture)],
            audio=[str(wave)],
            return_mm_token_type_ids=True,
            return_tensors="pt",
        )
        types = found["mm_token_type_ids"]
        assert types.shape == found["input_ids"].shape
        assert ((types == 1) == (found["input_ids"] == processor.image_token_id)).all()
        assert ((types == 3) == (found["input_ids"] == processor.audio_token_id)).all()

    def test_numbers_of_tokens_without_media(
        self, processor: OmniProcessor, tmp_path: Path
    ) -> None:
        found = processor._get_num_multimodal_tokens(image_sizes=[(48, 32), (10_000, 10_000)])
        assert isinstance(found, MultiModalData)
        assert found["num_image_tokens"] == [4, 4]
        assert found["num_image_patches"] == [1, 1]
        wave = write_wave(tmp_path / "a.wav", 0.7)
        slots = processor.num_slots("audio", processor.media["audio"].read(wave))
        told = processor._get_num_multimodal_tokens(audio_sizes=[(int(0.7 * 16_000),)])
        assert told["num_audio_tokens"] == [slots]

    def test_replacement_offsets(self, processor: OmniProcessor, tmp_path: Path) -> None:
        picture = write_image(tmp_path / "a.png")
        found = processor(
            text="a<|image|>b", images=[picture], return_text_replacement_offsets=True
        )
        [[told]] = found["text_replacement_offsets"]
        assert told["type"] == "image"
        assert told["span"] == (1, 10)
        assert told["replacement"] == placeholder("image") * 4
        [text], [[same]] = processor.get_text_with_replacements(
            ["a<|image|>b"], images_replacements=[told["replacement"]]
        )
        assert text[slice(*same["new_span"])] == told["replacement"]
        # Media that nothing is given for stay as they are: texts and media are encoded apart.
        assert processor.get_text_with_replacements(["<|audio|>"])[0] == ["<|audio|>"]

    def test_room_for_the_longest_sound(self, processor: OmniProcessor) -> None:
        """Before any is seen: the model is tried with a sound of ``chunk_length`` seconds."""
        config, sub = tiny_config(), processor.feature_extractor
        samples = int(sub.chunk_length * 16_000)
        told = processor._get_num_multimodal_tokens(audio_sizes=[(samples,)])
        assert told["num_audio_tokens"] == [config.audio_config.max_source_positions]
        assert not hasattr(processor.image_processor, "chunk_length")
        assert not hasattr(config.vision_config, "max_source_positions")
        assert "max_source_positions" not in config.audio_config.to_dict()

    def test_vllm_finds_the_class_and_its_plugin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It looks for the architecture of config.json in transformers itself."""
        settings = tomllib.loads(Path("pyproject.toml").read_text())
        place = settings["project"]["entry-points"]["vllm.general_plugins"]["omnitune"]
        module, _, function = place.partition(":")
        name = OmniForConditionalGeneration.__name__
        monkeypatch.setattr(transformers, name, None, raising=False)  # taken back afterwards
        getattr(import_module(module), function)()
        assert getattr(transformers, name) is OmniForConditionalGeneration

    def test_sounds_apart_have_the_keys_and_forms_of_sounds_together(
        self, processor: OmniProcessor
    ) -> None:
        """It prepares sounds of different length one by one, and takes each key from each."""
        sounds = [np.random.default_rng(n).normal(0, 0.1, 8000 + 4000 * n) for n in range(2)]
        together = processor(text="<|audio|> <|audio|>", audio=sounds, return_tensors="pt")
        media = {key for key in together if key.startswith("input_features")}
        assert media == set(processor.feature_extractor.model_input_names)
        alone = [processor(text="<|audio|>", audio=[x], return_tensors="pt") for x in sounds]
        features, sizes = sorted(media)
        for n, inputs in enumerate(unstack(together[features], together[sizes])):
            assert media <= alone[n].keys()
            [same] = unstack(alone[n][features], [list(alone[n][sizes][0])])
            assert torch.equal(same, inputs)

    def test_features_of_pictures_of_different_size(self, tmp_path: Path) -> None:
        """It divides one tensor evenly among pictures, and takes one for each as it is."""

        eye, given = save_vision_folder(tmp_path / "eye"), save_thinker_folder(tmp_path / "thinker")
        settings = {"image": {"max_tiles": 4}}
        model, renderer = assemble(given, {"image": eye}, settings)
        made = to_processor(model, renderer)
        standard = to_standard(model, renderer)
        pictures = [Image.new("RGB", size, "red") for size in ((32, 32), (64, 64), (96, 32))]
        found = made(text="<|image|>" * 3, images=pictures, return_tensors="pt")
        sizes = [(picture.height, picture.width) for picture in pictures]
        told = made._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
        with torch.no_grad():
            rows = standard.model.get_image_features(
                found["pixel_values"], pixel_values_sizes=found["pixel_values_sizes"]
            )
        assert [len(one) for one in rows.pooler_output] == told
        assert len(set(told)) > 1

    def test_the_picture_that_the_model_is_tried_with(self, tmp_path: Path) -> None:
        encoder = pretrained_miniature(tmp_path, max_tiles=6)
        sub = MediumProcessor(encoder, {})
        assert sub.size == {"height": 32, "width": 6 * 32}
        assert not hasattr(MediumProcessor(pretrained_miniature(tmp_path), {}), "size")

    def test_sub_processors(self, processor: OmniProcessor) -> None:
        assert "pixel_values" in processor.image_processor.model_input_names
        assert "input_features" in processor.feature_extractor.model_input_names

    def test_the_model(self) -> None:
        from transformers import AutoModel, AutoModelForImageTextToText

        from omnitune.models.registration import register

        register()
        config = tiny_config()
        base = AutoModel.from_config(config)
        assert base._supports_attention_backend
        assert base.is_backend_compatible()
        assert base.get_decoder() is base.language_model
        assert config.get_text_config() is config.text_config
        assert callable(base.get_image_features)
        assert callable(base.get_audio_features)
        for name in ("image", "audio"):
            assert base.get_encoder(modality=name) is base.encoders[name]
        whole = AutoModelForImageTextToText.from_config(config)
        assert whole.model.language_model is whole.get_decoder()
        names = {name.partition(".")[0] for name, _ in whole.named_parameters()}
        assert names == {"model", "lm_head"}

    def test_attention_of_an_engine_reaches_the_decoder(self) -> None:
        from transformers import AttentionInterface, AutoModel
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        calls = []

        def attend(*inputs: Any, **options: Any) -> Any:
            calls.append(options.get("marker"))
            return sdpa_attention_forward(*inputs, **options)

        AttentionInterface.register("engine", attend)
        config = tiny_config()
        config.text_config._attn_implementation = "engine"
        base = AutoModel.from_config(config).eval()
        base(input_ids=torch.tensor([[7, 8]]), marker="here", use_cache=False)
        assert calls == ["here"] * config.text_config.num_hidden_layers


def pretrained_miniature(tmp_path: Path, **settings: Any) -> Encoder:
    found = read_pretrained("image", save_vision_folder(tmp_path / "eye"))
    return build_encoder("image", with_settings("image", found.config, settings))


def tiny_config() -> Any:
    from omnitune.models.convert import standard_config

    return standard_config(tiny_model(), tiny_renderer())


def test_a_sample_is_what_it_was() -> None:
    sample: Sample = conversation("one", "a", "b")
    assert as_dicts(sample.messages)[0] == {
        "role": "user",
        "content": [{"type": "text", "text": "a"}],
    }
