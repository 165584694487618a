"""The official client, as its users call it."""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from helpers import write_wave

from omnitune import ChatModel
from omnitune.serving.api import transcripts
from omnitune.serving.served import Served


def image_part(path: Path) -> dict[str, Any]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def sound_part(path: Path) -> dict[str, Any]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def user(text: str, *parts: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text}, *parts] if parts else text
    return {"role": "user", "content": content}


def ask(client: openai.OpenAI, *messages: Any, **rest: Any) -> Any:
    values = {"model": "tiny", "max_tokens": 16} | rest
    return client.chat.completions.create(messages=list(messages), **values)


def test_text(client: openai.OpenAI, chat_model: ChatModel) -> None:
    found = ask(client, user("what is the sky?"))
    assert found.choices[0].message.content == chat_model.chat(
        "what is the sky?", max_new_tokens=16
    )
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].finish_reason in ("stop", "length")
    assert found.model == "tiny"
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert 0 < found.usage.completion_tokens <= 16


def test_media(client: openai.OpenAI, chat_model: ChatModel, media: Path) -> None:
    image, sound = media / "a.png", media / "a.wav"
    for parts, given in (
        ([image_part(image)], {"image": image}),
        ([sound_part(sound)], {"audio": sound}),
        ([sound_part(sound), image_part(image)], {"image": image, "audio": sound}),
    ):
        found = ask(client, user("what is it?", *parts))
        expected = chat_model.chat("what is it?", max_new_tokens=16, **given)
        assert found.choices[0].message.content == expected


def test_several_turns_encode_a_picture_once(
    live: tuple[openai.OpenAI, Served], chat_model: ChatModel, media: Path
) -> None:
    client, served = live
    calls: list[int] = []
    hook = served.model.model.encoders["image"].register_forward_hook(lambda *_: calls.append(1))
    talk: list[Any] = [user("what is it?", image_part(media / "b.png"))]
    try:
        first = ask(client, *talk).choices[0].message.content
        talk += [{"role": "assistant", "content": first}, user("and why?")]
        second = ask(client, *talk).choices[0].message.content
    finally:
        hook.remove()
    assert len(calls) == 1
    session = chat_model.session(16)
    session.attach(media / "b.png", "image")
    assert ["".join(session.ask(t)) for t in ("what is it?", "and why?")] == [first, second]


def test_a_stream_is_the_same_answer(client: openai.OpenAI, media: Path) -> None:
    messages = [user("what is it?", image_part(media / "a.png"))]
    whole = ask(client, *messages)
    chunks = list(ask(client, *messages, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(bool(piece) for piece in pieces) > 2
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert not any(c.usage for c in ask(client, *messages, stream=True))


def test_choices_and_seeds(client: openai.OpenAI) -> None:
    def texts(**rest: Any) -> list[str]:
        found = ask(client, user("hello"), temperature=1.5, **rest)
        return [choice.message.content for choice in found.choices]

    three = texts(n=3, seed=5)
    assert three == texts(n=3, seed=5)
    assert len(set(three)) == 3
    assert texts(n=1, seed=5) == three[:1]
    assert texts(n=3, seed=6) != three
    greedy = ask(client, user("hello"), n=2)
    assert len({choice.message.content for choice in greedy.choices}) == 1
    assert [choice.index for choice in greedy.choices] == [0, 1]


def test_choices_are_streamed_side_by_side(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"n": 2, "seed": 1, "temperature": 1.5}
    whole = ask(client, user("hello"), **settings)
    texts = ["", ""]
    for chunk in ask(client, user("hello"), stream=True, **settings):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_stop(client: openai.OpenAI) -> None:
    whole = ask(client, user("hello")).choices[0].message.content
    stop = whole[4:6]
    for rest in ({"stop": stop}, {"stop": ["never seen", stop]}):
        choice = ask(client, user("hello"), **rest).choices[0]
        assert choice.message.content == whole[: whole.index(stop)]
        assert choice.finish_reason == "stop"
    pieces = [
        c.choices[0].delta.content or "" for c in ask(client, user("hello"), stop=stop, stream=True)
    ]
    assert "".join(pieces) == whole[: whole.index(stop)]


def test_longest_answer(client: openai.OpenAI) -> None:
    for key in ("max_tokens", "max_completion_tokens"):
        found = ask(client, user("hello"), **{"max_tokens": None, key: 3})
        assert found.usage.completion_tokens == 3
        assert found.choices[0].finish_reason == "length"
    found = ask(client, user("hello " * 120), max_tokens=100_000)
    assert 480 < found.usage.prompt_tokens < found.usage.total_tokens <= 512


def test_logprobs(client: openai.OpenAI) -> None:
    found = ask(client, user("hello"), logprobs=True, top_logprobs=3)
    told = found.choices[0].logprobs.content
    assert len(told) == found.usage.completion_tokens
    for token in told:
        assert len(token.top_logprobs) == 3
        assert token.logprob == max(one.logprob for one in token.top_logprobs) <= 0
        assert (token.token, token.logprob) in [(t.token, t.logprob) for t in token.top_logprobs]
    content = found.choices[0].message.content
    assert "".join(token.token for token in told) == content
    assert bytes(b for token in told for b in token.bytes).decode() == content
    streamed, text = [], ""
    for chunk in ask(client, user("hello"), logprobs=True, top_logprobs=3, stream=True):
        text += chunk.choices[0].delta.content or ""
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert (streamed, text) == (told, content)
    stopped = ask(client, user("hello"), logprobs=True, stop=content[4:6]).choices[0]
    tokens = stopped.logprobs.content
    assert "".join(token.token for token in tokens) == stopped.message.content
    plain = ask(client, user("hello"), logprobs=True).choices[0].logprobs.content
    assert [t.top_logprobs for t in plain] == [[]] * len(plain)
    assert ask(client, user("hello")).choices[0].logprobs is None


def test_transcripts(
    client: openai.OpenAI, chat_model: ChatModel, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcripts, "MAX_NEW_TOKENS", 20)
    expected = chat_model.transcribe(media / "a.wav", max_new_tokens=20)
    with (media / "a.wav").open("rb") as file:
        found = client.audio.transcriptions.create(model="tiny", file=file)
    assert found.text == expected
    content = ("a.wav", (media / "a.wav").read_bytes())
    text: Any = client.audio.transcriptions.create(
        model="tiny", file=content, response_format="text"
    )
    assert text.strip() == expected
    verbose = client.audio.transcriptions.create(
        model="tiny",
        file=content,
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    )
    assert (verbose.text, verbose.duration) == (expected, pytest.approx(0.6))
    assert verbose.segments is None
    for form, begins, ends in (
        ("srt", "1\n00:00:00,000 --> 00:00:00,600\n", "\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:00.600\n", "\n\n"),
    ):
        timed: Any = client.audio.transcriptions.create(
            model="tiny",
            file=content,
            response_format=form,  # type: ignore[call-overload]
        )
        assert timed == begins + expected + ends
    events = list(client.audio.transcriptions.create(model="tiny", file=content, stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert "".join(deltas) == events[-1].text == expected  # type: ignore[union-attr]


def test_what_is_not_there_is_told(client: openai.OpenAI) -> None:
    for ask_for in (
        lambda: client.responses.create(model="tiny", input="hello"),
        lambda: client.embeddings.create(model="tiny", input="hello"),
        lambda: client.batches.list(),
    ):
        with pytest.raises(openai.NotFoundError, match="there is POST /v1/chat/completions"):
            ask_for()


def test_helpers_of_the_client(client: openai.OpenAI) -> None:
    """``stream`` and ``parse`` make more of the same requests; both refuse what was cut off."""
    messages: Any = [user("hello")]
    stop = ask(client, *messages).choices[0].message.content[4:6]
    whole = ask(client, *messages, logprobs=True, stop=stop)
    values: Any = {"model": "tiny", "messages": messages, "stop": stop}
    with client.chat.completions.stream(**values, logprobs=True) as stream:
        events = [event.type for event in stream]
        found = stream.get_final_completion()
    assert found.choices[0].message.content == whole.choices[0].message.content
    assert found.choices[0].logprobs == whole.choices[0].logprobs
    assert "content.done" in events
    parsed = client.chat.completions.parse(**values)
    assert parsed.choices[0].message.content == whole.choices[0].message.content
    again = ask(client, *messages, parsed.choices[0].message, user("and then?"))
    assert again.choices[0].message.role == "assistant"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "omnitune"
    with pytest.raises(openai.NotFoundError, match="there is tiny"):
        client.models.retrieve("gpt-4o")
    with pytest.raises(openai.NotFoundError, match="there is tiny"):
        ask(client, user("hello"), model="gpt-4o")


def test_many_at_once_are_answered_as_one_is(
    live: tuple[openai.OpenAI, Served], chat_model: ChatModel, media: Path
) -> None:
    """32 clients, of texts, pictures and sounds."""
    client, _ = live
    given: list[dict[str, Any]] = [{}, {"image": media / "a.png"}, {"audio": media / "a.wav"}]
    asked = [(f"what is number {n}?", given[n % 3], 3 + n % 9) for n in range(32)]
    expected = [chat_model.chat(t, max_new_tokens=n, **found) for t, found, n in asked]

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=str(client.base_url), api_key="any", max_retries=0
        ) as many:
            tasks = []
            for text, found, limit in asked:
                parts = [image_part(p) for k, p in found.items() if k == "image"]
                parts += [sound_part(p) for k, p in found.items() if k == "audio"]
                tasks.append(
                    many.chat.completions.create(
                        model="tiny",
                        messages=[user(text, *parts)],
                        max_tokens=limit,  # type: ignore[list-item]
                    )
                )
            answers = await asyncio.gather(*tasks)
            return [answer.choices[0].message.content or "" for answer in answers]

    assert asyncio.run(all_of_them()) == expected


def test_mp3(start: Callable[..., Any], chat_model: ChatModel, tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.mp3", 0.7)
    data = base64.b64encode(path.read_bytes()).decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
    with start() as (client, _):
        found = ask(client, user("what?", part)).choices[0].message.content
    assert found == chat_model.chat("what?", audio=path, max_new_tokens=16)
