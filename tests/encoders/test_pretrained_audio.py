"""wav2vec2, HuBERT, WavLM, wav2vec2-BERT, Parakeet: what the library gives, alone or in a batch."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers import write_wave
from torch import nn
from transformers import (
    HubertConfig,
    HubertModel,
    ParakeetCTCConfig,
    ParakeetEncoder,
    ParakeetEncoderConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetForTDT,
    ParakeetTDTConfig,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from omnitune.encoders.base import Encoder
from omnitune.encoders.registry import build_encoder, read_pretrained, with_settings
from omnitune.media.audio import read_wave
from omnitune.sample import UserError

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "layerdrop": 0.9,  # far too much, so that a test sees it
    "initializer_range": 0.2,
}
# The widths and steps of the genuine ones, so that rows are counted as there.
WAVES = SMALL | {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "vocab_size": 20,
                 "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.9,
                 "mask_time_length": 2}  # fmt: skip
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
MEL = SMALL | {"subsampling_conv_channels": 8, "num_mel_bins": 40, "conv_kernel_size": 5}
CTC = {"encoder_config": MEL, "vocab_size": 20, "pad_token_id": 19}
TDT = {"encoder_config": MEL, "vocab_size": 20, "decoder_hidden_size": 8, "blank_token_id": 19}
BERT = SMALL | {"feature_projection_input_dim": 160, "conv_depthwise_kernel_size": 5,
                "mask_time_prob": 0.9, "mask_time_length": 2, "vocab_size": 20}  # fmt: skip
WAVE_FEATURES = {"do_normalize": True, "return_attention_mask": True}
FAMILIES: dict[str, tuple[Any, Any, Any]] = {
    "wav2vec2 base": (Wav2Vec2ForCTC, Wav2Vec2Config(**WAVES), Wav2Vec2FeatureExtractor()),
    "wav2vec2 large": (
        Wav2Vec2Model,
        Wav2Vec2Config(**WAVES | LAYER),
        Wav2Vec2FeatureExtractor(**WAVE_FEATURES),
    ),
    "hubert base": (HubertModel, HubertConfig(**WAVES), Wav2Vec2FeatureExtractor()),
    "hubert large": (
        HubertModel,
        HubertConfig(**WAVES | LAYER),
        Wav2Vec2FeatureExtractor(**WAVE_FEATURES),
    ),
    "wavlm base": (
        WavLMModel,
        WavLMConfig(**WAVES),
        Wav2Vec2FeatureExtractor(do_normalize=False),
    ),
    "wavlm large": (
        WavLMModel,
        WavLMConfig(**WAVES | LAYER),
        Wav2Vec2FeatureExtractor(**WAVE_FEATURES),
    ),
    "wav2vec2-bert": (
        Wav2Vec2BertModel,
        Wav2Vec2BertConfig(**BERT),
        SeamlessM4TFeatureExtractor(),
    ),
    "wav2vec2-bert ctc": (
        Wav2Vec2BertForCTC,
        Wav2Vec2BertConfig(**BERT | {"add_adapter": True, "output_hidden_size": 16}),
        SeamlessM4TFeatureExtractor(),
    ),
    "parakeet": (
        ParakeetEncoder,
        ParakeetEncoderConfig(**MEL),
        ParakeetFeatureExtractor(feature_size=40),
    ),
    "parakeet ctc": (
        ParakeetForCTC,
        ParakeetCTCConfig(**CTC),
        ParakeetFeatureExtractor(feature_size=40),
    ),
    "parakeet tdt": (
        ParakeetForTDT,
        ParakeetTDTConfig(**TDT),
        ParakeetFeatureExtractor(feature_size=40),
    ),
}
# One of each kind; the others differ from these in what is around the encoder.
KINDS = ("wav2vec2 base", "hubert large", "wavlm large", "wav2vec2-bert", "parakeet")
LENGTHS = (0.025, 0.0451, 0.3333, 0.5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("audio")
    found = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, (kind, config, extractor) in FAMILIES.items():
            found[name] = root / name
            kind(config).save_pretrained(found[name])
            extractor.save_pretrained(found[name])
    return found


def load(folder: Path, **settings: Any) -> tuple[Encoder, nn.Module]:
    config, state = read_pretrained("audio", folder)
    config = json.loads(json.dumps(config))
    encoder = build_encoder("audio", with_settings("audio", config, settings))
    module = encoder.build()
    module.load_state_dict(state)
    return encoder, module.eval()


def library(name: str, folder: Path, path: Path, depth: int = -1) -> torch.Tensor:
    """What the library's own classes give for one file: ``[rows, width]`` of a layer."""
    kind, _, extractor = FAMILIES[name]
    model = kind.from_pretrained(folder).eval()
    inputs = extractor(
        read_wave(path), sampling_rate=16_000, return_tensors="pt", return_attention_mask=True
    )
    if "base" in name:  # as its documentation says
        inputs.pop("attention_mask")
    if name.startswith("parakeet"):
        model = getattr(model, "encoder", model)
    elif hasattr(model, model.base_model_prefix):
        model = getattr(model, model.base_model_prefix)
    model.adapter = None
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True)
    rows = found.last_hidden_state if depth == -1 else found.hidden_states[depth]
    mask = inputs.get("attention_mask")
    if name.startswith("parakeet"):
        return rows[0, : int(found.attention_mask.sum())]
    return rows[0, : int(mask.sum())] if name.startswith("wav2vec2-bert") else rows[0]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seconds", [0.1, 0.7345])
def test_rows_are_the_librarys(
    name: str, seconds: float, folders: dict[str, Path], tmp_path: Path
) -> None:
    encoder, module = load(folders[name], stack=1)
    path = write_wave(tmp_path / "a.wav", seconds)
    with torch.no_grad():
        rows = encoder.encode_checked(module, [encoder.read(path)])[0]
    expected = library(name, folders[name], path)
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-5)
    assert rows.std() > 0.05


@pytest.mark.parametrize("name", KINDS)
def test_batch_changes_nothing_and_slots_are_rows(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    encoder, module = load(folders[name], long_audio="split", max_seconds=1)
    paths = [write_wave(tmp_path / f"{s}.wav", s + 1e-5, seed=int(s * 1e4)) for s in LENGTHS]
    paths += [write_wave(tmp_path / "same.wav", 0.5 + 1e-5, seed=3)]
    paths += [write_wave(tmp_path / "long.wav", 2.456, rate=22_050, channels=2)]
    inputs = [encoder.read(path) for path in paths]
    with torch.no_grad():
        together = encoder.encode_checked(module, inputs)
        alone = [encoder.encode_checked(module, [x])[0] for x in inputs]
    for path, one, many in zip(paths, alone, together, strict=True):
        torch.testing.assert_close(one, many, atol=1e-4, rtol=0)
        assert one.isfinite().all()
        assert one.shape[1] == encoder.feature_dim
        extent = encoder.measure(path)
        assert extent.least <= len(one) <= extent.most
        assert extent.most - extent.least <= 4 + 2 * math.ceil(extent.whole)


@pytest.mark.parametrize("name", ["wav2vec2 large", "wav2vec2-bert", "parakeet"])
@pytest.mark.parametrize("seconds", [0.025, 0.9999, 29.99, 30.0, 30.01, 60.0, 65.0])
@pytest.mark.parametrize("rate", [16_000, 11_025])
def test_slots_of_long_clips_are_within_their_bounds(
    name: str, seconds: float, rate: int, folders: dict[str, Path], tmp_path: Path
) -> None:
    encoder = build_encoder(
        "audio", read_pretrained("audio", folders[name]).config | {"long_audio": "split"}
    )
    path = write_wave(tmp_path / "a.wav", seconds + 1e-4, rate=rate)
    extent = encoder.measure(path)
    slots = encoder.num_slots(encoder.read(path))
    assert extent.least <= slots <= extent.most
    assert abs(slots - 12.5 * seconds) < 4


@pytest.mark.parametrize("name", KINDS)
def test_training_mode_neither_masks_nor_drops_layers(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    encoder, module = load(folders[name])
    x = encoder.read(write_wave(tmp_path / "a.wav", 0.5))
    module.train()
    for part in module.modules():  # what is left is ordinary dropout, for those who train it
        for key in ("p", "dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(part, key, None), float):
                setattr(part, key, 0.0)
        if isinstance(part, nn.BatchNorm1d):  # stays so in training, as OmniModel.train says
            part.eval()
    with torch.no_grad():
        found = encoder.encode(module, [x])[0]
        expected = encoder.encode(module.eval(), [x])[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("layer", [-2, 1])
def test_earlier_layer_is_the_librarys_and_later_ones_are_not_built(
    name: str, layer: int, folders: dict[str, Path], tmp_path: Path
) -> None:
    whole, _ = load(folders[name])
    encoder, module = load(folders[name], stack=1, audio_feature_layer=layer)
    assert len(module.state_dict()) < len(whole.build().state_dict())
    again = encoder.build()
    again.load_state_dict(module.state_dict())  # its own weights fit too
    nn.ModuleDict({"audio": again}).load_state_dict(
        {
            f"audio.{key}": value
            for key, value in read_pretrained("audio", folders[name]).state.items()
        }
    )
    path = write_wave(tmp_path / "a.wav", 0.5)
    with torch.no_grad():
        rows = encoder.encode_checked(again.eval(), [encoder.read(path)])[0]
    expected = library(name, folders[name], path, depth=2 if layer == -2 else 1)
    torch.testing.assert_close(rows, expected[: len(rows)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["wav2vec2 base", "wav2vec2 large", "wav2vec2-bert", "parakeet"])
def test_half_precision_weights_give_half_precision_rows(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    encoder, module = load(folders[name])
    inputs = [encoder.read(write_wave(tmp_path / f"{s}.wav", s)) for s in (0.5, 0.7)]
    with torch.no_grad():
        expected = encoder.encode(module, inputs)
        found = encoder.encode(module.bfloat16(), inputs)
    for rows, others in zip(found, expected, strict=True):
        assert rows.dtype == torch.bfloat16
        assert torch.cosine_similarity(rows.float(), others).min() > 0.9


def test_silence_gives_finite_features(folders: dict[str, Path], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 16_000)
    for name in KINDS:
        encoder, module = load(folders[name])
        with torch.no_grad():
            rows = encoder.encode(module, [encoder.read(tmp_path / "silence.wav")])
        assert rows[0].isfinite().all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stack": 0}, "stack is 0, not a whole number"),
        ({"stack": 2.0}, "stack is 2.0, not a whole number"),
        ({"stack": True}, "stack is True"),
        (
            {"audio_feature_layer": 4},
            "audio_feature_layer is 4; it has 3 layers, so expected 1 to 3",
        ),
        ({"audio_feature_layer": 0}, "audio_feature_layer is 0"),
        ({"audio_feature_layer": "last"}, "audio_feature_layer is 'last'"),
        ({"long_audio": "cut"}, "long_audio is 'cut', not refuse or split"),
        ({"max_seconds": 0}, "max_seconds is 0"),
        ({"audio_window": "auto"}, "audio_window: is no setting"),
    ],
)
def test_wrong_settings_are_named(
    settings: dict[str, Any], words: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(UserError, match=words):
        load(folders["wav2vec2 large"], **settings)


def test_folder_without_a_feature_extractor_is_refused(tmp_path: Path) -> None:
    Wav2Vec2Model(Wav2Vec2Config(**WAVES)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"holds no preprocessor_config\.json"):
        read_pretrained("audio", tmp_path)


def test_extractor_of_another_rate_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    Wav2Vec2Model(Wav2Vec2Config(**WAVES)).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="sampling_rate is 8000; sound is read at 16000"):
        read_pretrained("audio", tmp_path)


def test_nested_processor_settings_are_read(folders: dict[str, Path], tmp_path: Path) -> None:
    Wav2Vec2Model(Wav2Vec2Config(**WAVES)).save_pretrained(tmp_path)
    values = Wav2Vec2FeatureExtractor(do_normalize=False).to_dict()
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": values}))
    assert read_pretrained("audio", tmp_path).config["features"]["do_normalize"] is False


def test_configuration_that_is_none_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    values = json.loads((folders["wav2vec2 base"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"hidden_size": "wide"}))
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"config\.json: 'hidden_size' expected int, got str"):
        read_pretrained("audio", tmp_path)
