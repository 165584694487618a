"""Speech and sentences: repeatable sound, many voices, many words."""

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omnitune.tiny.corpus.basics import partition
from omnitune.tiny.corpus.speech import (
    ACCENT_GROUPS,
    NOISES,
    TEST_VOICES,
    TRAIN_VOICES,
    Synthesizer,
    Utterance,
    accent_group,
    make_noise,
    render,
    sample_utterance,
    speak_block,
    trim,
)
from omnitune.tiny.corpus.words import KINDS, sample_sentence, vocabulary

PLAIN = Utterance(
    text="anna bought three apples at the market",
    voice="en-us+m3",
    rate=175,
    pitch=50,
    pitch_range=50,
    peak=0.5,
    noise="none",
    snr_db=20.0,
    seed=1,
)


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer()


def test_blocks_repeat_exactly_whatever_was_said_before(tmp_path: Path) -> None:
    rng = random.Random(2)
    spoken = [sample_utterance(rng, PLAIN.text, TRAIN_VOICES) for _ in range(12)]
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        speak_block([(folder / f"{i}.wav", utterance) for i, utterance in enumerate(spoken)])
        with Synthesizer() as between:
            between.say(PLAIN, 200)
    for path in sorted((tmp_path / "first").iterdir()):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


def test_every_voice_exists_and_differs(synthesizer: Synthesizer) -> None:
    short = replace(PLAIN, text="hello")
    sounds = {
        synthesizer.say(replace(short, voice=voice), 200).tobytes()
        for voice in (*TRAIN_VOICES, *TEST_VOICES)
    }
    assert len(sounds) == len(TRAIN_VOICES) + len(TEST_VOICES)


def test_there_are_enough_voices_and_test_speakers_are_new() -> None:
    assert len(set(TRAIN_VOICES)) >= 80
    assert len(set(TEST_VOICES)) >= 10
    trained = {voice.split("+")[1] for voice in TRAIN_VOICES}
    assert not trained & {voice.split("+")[1] for voice in TEST_VOICES}


def test_every_group_of_accents_has_many_voices_and_new_ones() -> None:
    for voices, fewest in ((TRAIN_VOICES, 15), (TEST_VOICES, 1)):
        groups = Counter(accent_group(voice) for voice in voices)
        assert set(groups) == set(ACCENT_GROUPS)
        assert min(groups.values()) >= fewest


@pytest.mark.parametrize("voice", ["en-us+nobody", "nowhere+m3"])
def test_an_unknown_voice_is_refused(synthesizer: Synthesizer, voice: str) -> None:
    with pytest.raises(ValueError, match=voice.replace("+", r"\+")):
        synthesizer.say(replace(PLAIN, voice=voice), 175)


@pytest.mark.parametrize("noise", NOISES)
def test_rendered_speech_has_its_level_and_noise(synthesizer: Synthesizer, noise: str) -> None:
    samples = render(synthesizer, replace(PLAIN, noise=noise)).astype(np.float64) / 32767
    lead = samples[:800]  # the pause before the speech is at least 50 ms
    if noise == "none":
        assert np.abs(samples).max() == pytest.approx(0.5, abs=0.001)
        assert np.abs(lead[:700]).max() < 0.02
    else:
        speech_level = np.sqrt(np.mean(np.square(samples)))
        ratio = 20 * np.log10(speech_level / np.sqrt(np.mean(np.square(lead[:700]))))
        assert 14 < ratio < 27


@pytest.mark.parametrize(
    ("text", "rate"), [("hello", 240), ("the " + "very " * 14 + "long way", 150)]
)
def test_speech_lasts_as_long_as_it_should(synthesizer: Synthesizer, text: str, rate: int) -> None:
    samples = render(synthesizer, replace(PLAIN, text=text, rate=rate))
    plain = trim(synthesizer.say(replace(PLAIN, text=text), rate))
    seconds = len(samples) / 16_000
    assert abs(len(plain) / 22_050 - 2.3) > abs(seconds - 2.3)
    assert seconds < 3.6


def test_trimming_keeps_what_is_loud() -> None:
    sound = np.array([0, 0.001, 0.5, 0, -1, 0.01, 0], dtype=np.float32)
    assert trim(sound).tolist() == [0.5, 0, -1]
    assert len(trim(np.zeros(5, dtype=np.float32))) == 5


@pytest.mark.parametrize("kind", NOISES[1:])
def test_noise_has_unit_level(kind: str) -> None:
    noise = make_noise(kind, 16_000, np.random.default_rng(0))
    assert noise.shape == (16_000,)
    assert np.sqrt(np.mean(np.square(noise))) == pytest.approx(1, abs=0.05)
    power = np.square(np.abs(np.fft.rfft(noise)))
    low, high = power[:2000].sum(), power[2000:].sum()
    assert (low > high) == (kind != "white")


def test_sentences_are_short_and_answer_their_questions() -> None:
    rng = random.Random(4)
    kinds = set()
    for _ in range(500):
        sentence = sample_sentence(rng, "train")
        assert partition(sentence.text) == "train"
        assert 5 <= len(sentence.text.split()) <= 12
        for fact in sentence.facts:
            assert f" {fact.answer} " in f" {sentence.text} "
            assert fact.question.endswith("?")
            assert not re.search(rf"\b{fact.answer}\b", fact.question), fact
            kinds.add(fact.kind)
    assert kinds == {"what", *KINDS.values()}


def test_the_vocabulary_is_wide() -> None:
    words = vocabulary()
    assert len(words) >= 400
    assert all(re.fullmatch("[a-z]+", word) for word in words)
