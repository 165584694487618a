"""What the page shows of an answer is what the model computed."""

from collections.abc import Sequence

import pytest
import torch
from helpers import tiny_model, tiny_renderer, write_image, write_wave

from omnitune.data.packing import pack
from omnitune.generation import generate
from omnitune.sample import UserError
from omnitune.serving.encoded_media import GivenMedium
from omnitune.serving.prompts import Turn
from omnitune.serving.python import ChatModel
from omnitune.serving.web.saw import Saw, look_back, text_of

LABELS = ("medium 1", "medium 2")


@pytest.fixture(scope="module")
def model() -> ChatModel:
    return ChatModel(tiny_model(max_positions=512), tiny_renderer())


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[GivenMedium, ...]:
    folder = tmp_path_factory.mktemp("media")
    files = (write_image(folder / "a.png"), write_wave(folder / "a.wav"))
    kinds = ("image", "audio")
    return tuple(map(GivenMedium, kinds, files, LABELS))


def look(model: ChatModel, media: Sequence[GivenMedium], answer: str) -> Saw:
    prompt = model.prompts.prompt([Turn("user", "what is it?", tuple(media))])
    return look_back(model.model, model.renderer, prompt, answer, LABELS)


def test_the_likeliest_token_is_the_one_that_is_generated(
    model: ChatModel, shown: tuple[GivenMedium, ...]
) -> None:
    prompt = model.prompts.prompt([Turn("user", "what is it?", shown)])
    [[token]] = generate(model.model, [prompt], (), 1)
    first = look(model, shown, "the circle is red.").steps[0]
    assert first.candidates[0][0] == text_of(model.renderer, token)
    shares = [share for _, share in first.candidates]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1 + 1e-5


def test_likelihoods_are_those_of_scoring(model: ChatModel, shown: tuple[GivenMedium, ...]) -> None:
    """The packed row of training and this one are the same model."""
    saw = look(model, shown, "the circle is red.")
    prompt = model.prompts.prompt([Turn("user", "what is it?", shown)])
    said = [*model.renderer.encode("the circle is red."), model.renderer.end]
    rendered = prompt.rendered
    start = len(rendered.tokens)
    rendered.tokens += said
    rendered.supervised += [True] * len(said)
    rendered.turns.append((1, start, len(rendered.tokens)))
    nll = model.model.token_scores(pack([prompt])).nll_N
    found = torch.tensor([step.p for step in saw.steps])
    torch.testing.assert_close(found, (-nll).exp(), rtol=1e-3, atol=1e-6)


def test_attention_over_media(model: ChatModel, shown: tuple[GivenMedium, ...]) -> None:
    saw = look(model, shown, "the circle is red.")
    image, audio = saw.media
    assert (image.index, audio.index) == (0, 1)
    assert image.columns**2 == image.slots
    assert audio.columns == 0
    for medium in saw.media:
        assert [len(row) for row in medium.attention] == [medium.slots] * len(saw.steps)
        assert all(0 < share < 1 for share in medium.share)
    for one, other in zip(image.share, audio.share, strict=True):
        assert one + other < 1


def test_the_row_is_the_template_s(model: ChatModel, shown: tuple[GivenMedium, ...]) -> None:
    saw = look(model, shown, "the circle is red.")
    assert sum(int(piece["count"]) for piece in saw.pieces) == saw.tokens
    trained = [piece["text"] for piece in saw.pieces if "trained" in str(piece["role"])]
    assert "".join(map(str, trained)).strip() == "the circle is red.<|end|>"
    slots = [piece["count"] for piece in saw.pieces if piece["role"] == "placeholder"]
    assert slots == [medium.slots for medium in saw.media]


@pytest.mark.parametrize("answer", ["", "red " * 600])
def test_what_cannot_be_looked_at_is_refused(model: ChatModel, answer: str) -> None:
    with pytest.raises(UserError, match=r"the answer has [\d,]+ tokens, expected 1 to"):
        look(model, (), answer)


def test_looking_back_changes_no_later_answer(model: ChatModel) -> None:
    before = model.chat("hello", max_new_tokens=5)
    look(model, (), before)
    assert model.chat("hello", max_new_tokens=5) == before
