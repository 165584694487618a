"""Whisper's encoder: what the library gives on a whole window, the same rows whatever the batch."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers import write_wave
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from omnitune.encoders.registry import build_encoder, read_pretrained, with_settings
from omnitune.encoders.speech import stacked
from omnitune.encoders.whisper import MARGIN, WhisperSpeechEncoder, window_mel
from omnitune.media.audio import SAMPLE_RATE, cut, read_wave
from omnitune.sample import UserError

PARTS = Path(os.environ.get("OMNITUNE_PARTS", Path(__file__).parents[2] / "parts"))
SMALL: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 50,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    "init_std": 0.2, "encoder_layerdrop": 0.9,
}  # fmt: skip
SECONDS = 9  # of the miniature's window


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature(tmp_path_factory.mktemp("whisper"))


def miniature(folder: Path, kind: Any = WhisperForConditionalGeneration, bins: int = 80) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = WhisperConfig(**SMALL, num_mel_bins=bins, max_source_positions=50 * SECONDS)
        kind(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=bins, chunk_length=SECONDS).save_pretrained(folder)
    return folder


def load(folder: Path, **settings: Any) -> tuple[WhisperSpeechEncoder, nn.Module]:
    config, state = read_pretrained("audio", folder)
    config = with_settings("audio", json.loads(json.dumps(config)), settings)
    encoder = build_encoder("audio", config)
    assert isinstance(encoder, WhisperSpeechEncoder)
    module = encoder.build()
    module.load_state_dict(state)
    return encoder, module.eval()


@pytest.mark.parametrize("kind", [WhisperForConditionalGeneration, WhisperModel])
@pytest.mark.parametrize("bins", [80, 128])
def test_whole_window_gives_the_librarys_rows(kind: Any, bins: int, tmp_path: Path) -> None:
    folder = miniature(tmp_path, kind, bins)
    encoder, module = load(folder, audio_window="full", stack=1)
    assert not any("decoder" in name for name in module.state_dict())
    model = kind.from_pretrained(folder).eval()
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    for seconds, count in ((0.025, 2), (0.7, 35), (1.2345, 62), (8.97, 449), (8.99, 450), (9, 450)):
        path = write_wave(tmp_path / "a.wav", seconds)
        given = extractor(read_wave(path), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with torch.no_grad():
            rows = encoder.encode_checked(module, [encoder.read(path)])[0]
            expected = model.get_encoder()(given["input_features"]).last_hidden_state[0]
        assert rows.shape == (count, 16)
        torch.testing.assert_close(rows, expected[:count], atol=1e-5, rtol=1e-5)
        heard = window_mel(encoder.read(path), 100 * SECONDS)
        torch.testing.assert_close(heard.T, given["input_features"][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", ["auto", "full"])
def test_batch_changes_nothing_and_slots_are_rows(
    window: str, folder: Path, tmp_path: Path
) -> None:
    encoder, module = load(folder, audio_window=window, long_audio="split")
    seconds = (0.025, 0.03, 0.9, 1.0, 1.01, 2.3, 2.31, 8.999, 9.0, 9.01, 19.7)
    paths = [write_wave(tmp_path / f"{s}.wav", s, seed=n) for n, s in enumerate(seconds)]
    paths += [write_wave(tmp_path / "other.wav", 1.77, rate=22_050, channels=2)]
    inputs = [encoder.read(path) for path in paths]
    with torch.no_grad():
        together = encoder.encode_checked(module, inputs)
        alone = [encoder.encode_checked(module, [x])[0] for x in inputs]
    for path, one, many in zip(paths, alone, together, strict=True):
        torch.testing.assert_close(one, many, atol=1e-5, rtol=0)
        extent = encoder.measure(path)
        assert extent.least <= len(one) <= extent.most
        assert abs(len(one) - 12.5 * extent.whole) < 2
        assert one.shape[1] == encoder.feature_dim == 64


@pytest.mark.parametrize("seconds", [0.025, 1.0, 8.999, 9.0, 9.01, 18.0, 30.0, 30.01, 65.0])
@pytest.mark.parametrize("rate", [16_000, 11_025])
def test_header_bounds_the_slots(folder: Path, tmp_path: Path, seconds: float, rate: int) -> None:
    encoder, _ = load(folder, long_audio="split", stack=1)
    path = write_wave(tmp_path / "a.wav", seconds + 1e-4, rate=rate)
    extent = encoder.measure(path)
    assert extent.least <= encoder.num_slots(encoder.read(path)) <= extent.most
    assert extent.most - extent.least <= 6 + 2 * (seconds / SECONDS)


@pytest.mark.parametrize("limit", [9, 20, 30])
def test_no_sound_has_more_rows_than_the_most(folder: Path, tmp_path: Path, limit: int) -> None:
    """Engines make room by it: wherever a clip is cut, each piece is rounded up by itself."""
    encoder, _ = load(folder, max_seconds=limit, stack=1)
    for seed in range(3):
        path = write_wave(tmp_path / f"{seed}.wav", limit, seed=seed)
        rows = encoder.num_slots(encoder.read(path))
        assert rows <= encoder.most_rows <= rows + 2 * (1 + limit / SECONDS) * (limit > SECONDS)


def test_long_clip_is_its_pieces_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    encoder, module = load(folder, stack=1, max_seconds=25)
    path = write_wave(tmp_path / "a.wav", 20.0)
    pieces = cut(read_wave(path), SECONDS * SAMPLE_RATE)
    assert len(pieces) == 3
    with torch.no_grad():
        rows = encoder.encode(module, [encoder.read(path)])[0]
        expected = [encoder.encode(module, [encoder.listen(piece)])[0] for piece in pieces]
    torch.testing.assert_close(rows, torch.cat(expected), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match=r"b\.wav: 25\.5 s of sound, the limit is 25 s"):
        encoder.read(write_wave(tmp_path / "b.wav", 25.5))


def test_short_window_is_the_beginning_of_the_long_one(folder: Path, tmp_path: Path) -> None:
    encoder, module = load(folder, stack=1)
    piece = encoder.read(write_wave(tmp_path / "a.wav", 0.9))
    assert encoder.window_of(piece) == 50 * (1 + MARGIN)
    assert encoder.window_of(encoder.read(write_wave(tmp_path / "b.wav", 3.5))) == 50 * SECONDS
    short = (
        WhisperModel(WhisperConfig(**SMALL, max_source_positions=50 * (1 + MARGIN)))
        .get_encoder()
        .eval()
    )
    state = module.state_dict()
    state["embed_positions.weight"] = state["embed_positions.weight"][: 50 * (1 + MARGIN)]
    short.load_state_dict(state)
    with torch.no_grad():
        expected = short(window_mel(piece, 100 * (1 + MARGIN)).T[None]).last_hidden_state[0, :45]
        rows = encoder.encode(module, [piece])[0]
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-5)


def test_rows_are_stacked_and_the_last_filled_with_zeros() -> None:
    rows = torch.arange(10.0).view(5, 2) + 1
    found = stacked(rows, 2)
    assert found.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 0]]
    assert stacked(rows, 1) is rows
    assert stacked(rows, 7).shape == (1, 14)


@pytest.mark.parametrize("layer", [1, 2, -2])
def test_earlier_layer_is_the_librarys(layer: int, folder: Path, tmp_path: Path) -> None:
    encoder, module = load(folder, audio_window="full", stack=1, audio_feature_layer=layer)
    assert len(module.layers) == abs(layer)
    path = write_wave(tmp_path / "a.wav", 0.7)
    with torch.no_grad():
        rows = encoder.encode(module, [encoder.read(path)])[0]
        found = (
            WhisperModel.from_pretrained(folder)
            .eval()
            .get_encoder()(
                window_mel(encoder.read(path), 100 * SECONDS).T[None], output_hidden_states=True
            )
        )
    expected = found.hidden_states[abs(layer)][0, :35]
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-5)


def test_training_mode_drops_no_layer(folder: Path, tmp_path: Path) -> None:
    encoder, module = load(folder)
    module.config.dropout = 0.0
    for layer in module.layers:
        layer.dropout = layer.self_attn.dropout = 0.0
    piece = encoder.read(write_wave(tmp_path / "a.wav", 0.7))
    with torch.no_grad():
        expected = encoder.encode(module, [piece])[0]
        found = encoder.encode(module.train(), [piece])[0]
    torch.testing.assert_close(found, expected)


def test_half_precision_weights_give_half_precision_rows(tmp_path: Path) -> None:
    folder = miniature(tmp_path)
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    _, state = read_pretrained("audio", folder)
    assert {value.dtype for value in state.values()} == {torch.bfloat16}
    encoder, module = load(folder)
    piece = encoder.read(write_wave(tmp_path / "a.wav", 0.7))
    with torch.no_grad():
        rows = encoder.encode(module.bfloat16(), [piece])[0]
    assert rows.dtype == torch.bfloat16
    assert rows.isfinite().all()


def test_silence_gives_the_librarys_silence(folder: Path, tmp_path: Path) -> None:
    encoder, module = load(folder)
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), SAMPLE_RATE)
    piece = encoder.read(tmp_path / "a.wav")
    assert (window_mel(piece, 400) == -1.5).all()
    with torch.no_grad():
        assert encoder.encode(module, [piece])[0].isfinite().all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"audio_window": "short"}, "audio_window is 'short', not auto or full"),
        ({"stack": -1}, "stack is -1, not a whole number from 1 on"),
        ({"audio_feature_layer": -4}, "it has 3 layers, so expected 1 to 3, or -1"),
        ({"max_seconds": "long"}, "max_seconds is 'long'"),
        ({"window": "auto"}, "window: is no setting.*did you mean audio_window"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str, folder: Path) -> None:
    with pytest.raises(UserError, match=words):
        load(folder, **settings)


@pytest.mark.real
@pytest.mark.skipif(not (PARTS / "audio").is_dir(), reason="no pretrained parts")
@pytest.mark.parametrize("window", ["auto", "full"])
def test_whispers_own_decoder_understands_the_rows(window: str) -> None:
    clip = Path(os.environ.get("OMNITUNE_DATA", PARTS.parent / "shared/data")) / "jfk/jfk.flac"
    if not clip.is_file():
        pytest.skip("no clip")
    encoder, module = load(PARTS / "audio", audio_window=window, stack=1)
    model = WhisperForConditionalGeneration.from_pretrained(PARTS / "audio").eval()
    with torch.no_grad():
        rows = encoder.encode_checked(module, [encoder.read(clip)])[0]
    end, never = model.generation_config.eos_token_id, model.generation_config.suppress_tokens
    given, cache, said = [50257, 50362], None, []
    while len(said) < 40 and end not in said:
        with torch.no_grad():
            found = model(
                encoder_outputs=(rows[None],),
                decoder_input_ids=torch.tensor([given]),
                past_key_values=cache,
                use_cache=True,
            )
        found.logits[..., never] = -torch.inf
        given, cache = [int(found.logits[0, -1].argmax())], found.past_key_values
        said += given
    tokenizer = PreTrainedTokenizerFast.from_pretrained(PARTS / "audio")
    text = tokenizer.decode(said, skip_special_tokens=True).lower()
    words = "my fellow americans ask not what your country can do for you ask what you can do for"
    assert words in "".join(c for c in text if c.isalpha() or c == " ")


def test_settings_of_another_extractor_are_refused(tmp_path: Path) -> None:
    folder = miniature(tmp_path)
    for values in (
        {"image_processor_type": "SiglipImageProcessor"},
        {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": SAMPLE_RATE},
    ):
        (folder / "preprocessor_config.json").write_text(json.dumps(values))
        with pytest.raises(UserError, match=r"json is that of a \w+, expected a WhisperFeature"):
            read_pretrained("audio", folder)


def test_another_number_of_mel_bins_than_the_encoders_is_refused(tmp_path: Path) -> None:
    folder = miniature(tmp_path, bins=128)
    WhisperFeatureExtractor(feature_size=80, chunk_length=SECONDS).save_pretrained(folder)
    with pytest.raises(UserError, match=r"feature_size is 80.*num_mel_bins is 128"):
        read_pretrained("audio", folder)
