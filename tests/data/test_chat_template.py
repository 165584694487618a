"""A thinker's own template: rendered as the library renders it, learnt as it is served."""

from pathlib import Path

import pytest
from miniatures import CHATML, CONTROL, FORGETFUL, TEMPLATES, TEXTS, THINKING, tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from omnitune.data.chat_jinja import jinja_of
from omnitune.data.chat_template import TemplateRenderer, renderer_of
from omnitune.data.template import placeholder
from omnitune.data.template_folder import read_renderer
from omnitune.sample import Media, Message, Text, UserError

TALK = [
    ("user", "what is the sky?"),
    ("assistant", "the sky is the air above us."),
    ("user", "which color is the circle?"),
    ("assistant", "red"),
]


def messages(talk: list[tuple[str, str]]) -> list[Message]:
    return [Message(role, (Text(text),)) for role, text in talk]


def renderer(tmp_path: Path, template: str | None, given: str | None = None) -> TemplateRenderer:
    tokenizer(template).save_pretrained(tmp_path)
    return read_renderer(tmp_path, given)


def as_library(template: str, talk: list[tuple[str, str]], prompt: bool) -> list[int]:
    plain = [{"role": role, "content": text} for role, text in talk]
    options = {"add_generation_prompt": prompt, "enable_thinking": False}
    return tokenizer(template).apply_chat_template(plain, **options)["input_ids"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_that_of_the_library(tmp_path: Path, name: str) -> None:
    found = renderer(tmp_path, TEMPLATES[name])
    for talk in (TALK[:1], [("system", "You help."), *TALK[:1]][name in ("no_system",) :]):
        expected = as_library(TEMPLATES[name], talk, prompt=True)
        expected += opening(found)
        assert found.render_prompt(messages(talk)).tokens == expected
    if name != "thinking":
        expected = as_library(TEMPLATES[name], TALK[:3], prompt=True) + opening(found)
        assert found.render_prompt(messages(TALK[:3])).tokens == expected


def opening(found: TemplateRenderer) -> list[int]:
    return list(found.encode_run([(found.opening, True)])) if found.opening else []


def test_control_tokens_before_every_answer_are_part_of_the_prompt(tmp_path: Path) -> None:
    found = renderer(tmp_path, TEMPLATES["channels"])
    assert found.opening == "<think>final</think>"
    out = found.render_prompt(messages(TALK[:1]))
    shown = found.tokenizer.decode(out.tokens, skip_special_tokens=False)
    assert shown.endswith("<|im_end|><|im_start|>assistant<think>final</think>")
    plain = [{"role": role, "content": text} for role, text in TALK[:3]]
    alone = tokenizer(jinja_of(found, [])).apply_chat_template(plain, add_generation_prompt=True)
    assert alone["input_ids"] == found.render_prompt(messages(TALK[:3])).tokens
    assert renderer(tmp_path, TEMPLATES["brackets"]).opening == ""
    empty = "<think>\n\n</think>\n\n"
    without = THINKING.replace(
        "{% if enable_thinking is defined and not enable_thinking %}", "{% if 0 %}"
    )
    assert renderer(tmp_path, without).opening == empty


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_and_their_ends_are_learnt_and_nothing_else(tmp_path: Path, name: str) -> None:
    found = renderer(tmp_path, TEMPLATES[name])
    out = found.render(messages(TALK))
    learnt = [token for token, on in zip(out.tokens, out.supervised, strict=True) if on]
    ends = [n for n, token in enumerate(learnt) if token == found.end]
    assert found.decode(learnt[: ends[0]]) == TALK[1][1]
    assert found.decode(learnt[ends[0] + 1 : ends[1]]) == TALK[3][1]
    assert ends[1] == len(learnt) - 1
    assert out.tokens[-1] == found.end
    assert [(n, out.tokens[stop - 1]) for n, _, stop in out.turns] == [
        (1, found.end),
        (3, found.end),
    ]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_row_begins_as_the_prompt_that_is_served(tmp_path: Path, name: str) -> None:
    found = renderer(tmp_path, TEMPLATES[name])
    for talk in (TALK, [("system", "You help."), *TALK]):
        whole = found.render(messages(talk))
        for place, start, _ in whole.turns:
            prompt = found.render_prompt(messages(talk[:place])).tokens
            assert whole.tokens[:start] == prompt


def test_a_whole_conversation_is_that_of_the_library(tmp_path: Path) -> None:
    found = renderer(tmp_path, CHATML)
    tokens = found.render(messages(TALK)).tokens
    assert tokens == as_library(CHATML, TALK, prompt=False)[: len(tokens)]


def test_what_a_user_says_is_no_control_token(tmp_path: Path) -> None:
    found = renderer(tmp_path, THINKING)
    for text in ("<|im_end|>", "say <think> twice", "<|image|>"):
        found.add_tokens(["<|image|>"])
        plain = found.render(messages([("user", "hello"), TALK[1]]))
        out = found.render(messages([("user", text), TALK[1]]))
        control = {found.id_of(t) for t in ("<|im_end|>", "<think>", "<|image|>")}
        counts = [[r.tokens.count(token) for token in sorted(control)] for r in (plain, out)]
        assert counts[0] == counts[1]
        assert text in found.tokenizer.decode(out.tokens, skip_special_tokens=False)


def test_media_stand_where_the_message_has_them(tmp_path: Path) -> None:
    found = renderer(tmp_path, CHATML)
    found.add_tokens([placeholder("image")])
    picture = Media("image", Path("x.png"))
    asked = Message("user", (Text("look"), picture, Text("what is it?")))
    out = found.render([asked, Message("assistant", (Text("red"),))], [3])
    (slots,) = out.slots
    assert out.tokens[slots.start : slots.start + 3] == [found.id_of("<|image|>")] * 3
    rest = out.tokens[: slots.start] + out.tokens[slots.start + 3 :]
    assert "look" in found.decode(rest)
    assert "what is it?" in found.decode(rest)


def test_an_answer_of_weight_zero_is_read_and_not_learnt(tmp_path: Path) -> None:
    found = renderer(tmp_path, CHATML)
    talk = messages(TALK)
    talk[1] = Message("assistant", talk[1].parts, weight=0)
    out = found.render(talk)
    assert out.tokens == found.render(messages(TALK)).tokens
    assert [n for n, *_ in out.turns] == [3]
    (first, last), *_ = out.masked
    assert not any(out.supervised[first:last])
    assert found.decode(out.tokens[first:last]) == TALK[1][1]


def test_a_template_that_leaves_out_messages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not write each message once and in order"):
        renderer(tmp_path, FORGETFUL)


def test_a_thinker_without_template_is_offered_the_plain_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'no chat template; give "chat_template": "plain"'):
        renderer(tmp_path, None)
    found = read_renderer(tmp_path, "plain")
    out = found.render(messages(TALK))
    shown = found.tokenizer.decode(out.tokens, skip_special_tokens=True)
    assert shown.startswith("User: what is the sky?\nAssistant: the sky")
    file = tmp_path / "mine.jinja"
    file.write_text(CHATML)
    assert read_renderer(tmp_path, str(file)).template.source == CHATML
    with pytest.raises(UserError, match="chat_template: nowhere cannot be read"):
        read_renderer(tmp_path, "nowhere")


def test_a_saved_renderer_is_the_same(tmp_path: Path) -> None:
    found = renderer(tmp_path, THINKING)
    found.add_tokens(["<|image|>"])
    again = renderer_of(found.state())
    assert isinstance(again, TemplateRenderer)
    assert again.render(messages(TALK)) == found.render(messages(TALK))
    assert (again.end, again.ends, again.id_of("<|image|>")) == (
        found.end,
        found.ends,
        found.id_of("<|image|>"),
    )


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no tokenizer that can be read"):
        read_renderer(tmp_path)
    Tokenizer.from_str(tokenizer().backend_tokenizer.to_str())  # the library's own still works


def spaced(kind: str, template: str) -> PreTrainedTokenizerFast:
    """A tokenizer in the manner of SentencePiece, which puts a space in front of a text."""
    found = Tokenizer(models.BPE(byte_fallback=True))
    if kind == "normalised":  # Llama 2, Phi-3
        steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        found.normalizer = normalizers.Sequence(steps)
    else:
        found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    found.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", *CONTROL[1:3]], show_progress=False
    )
    found.train_from_iterator([*TEXTS, "\n"], trainer)
    whole = PreTrainedTokenizerFast(tokenizer_object=found, bos_token="<s>", eos_token="<|im_end|>")
    whole.chat_template = template
    return whole


@pytest.mark.parametrize("kind", ["normalised", "first", "always"])
@pytest.mark.parametrize("name", ["chatml", "brackets"])
def test_no_space_comes_in_where_an_answer_or_a_medium_begins(
    tmp_path: Path, kind: str, name: str
) -> None:
    words = spaced(kind, TEMPLATES[name])
    words.add_special_tokens({"additional_special_tokens": [placeholder("image")]})
    words.save_pretrained(tmp_path)
    found = read_renderer(tmp_path)
    plain = [{"role": role, "content": text} for role, text in TALK]
    expected = words.apply_chat_template(plain)["input_ids"]
    out = found.render(messages(TALK))
    assert out.tokens == expected[: len(out.tokens)]
    for place, start, _ in out.turns:
        assert out.tokens[:start] == found.render_prompt(messages(TALK[:place])).tokens
    plain[0]["content"] = f"look{placeholder('image')}what is it?"
    asked = (Text("look"), Media("image", Path("x.png")), Text("what is it?"))
    shown = found.render_prompt([Message("user", asked)], [1])
    expected = words.apply_chat_template(plain[:1], add_generation_prompt=True)["input_ids"]
    assert shown.tokens == expected


def test_a_template_that_writes_the_date_renders_alike_on_every_day(tmp_path: Path) -> None:
    clock = "{{- strftime_now('%d %b %Y') + ', ' ~ strftime_now( \"%B\" ) }}"
    found = renderer(tmp_path, clock + CHATML)
    out = found.render_prompt(messages(TALK[:1]))
    assert found.tokenizer.decode(out.tokens, skip_special_tokens=False).startswith(
        "26 Jul 2024, July<|im_start|>"
    )
    assert "strftime_now" not in found.template.source
