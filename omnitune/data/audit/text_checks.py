"""What the texts of a sample should not hold: control tokens, unfilled places, another script."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache

from omnitune.data.template import ChatRenderer
from omnitune.sample import Described, Message, Sample, Text

# Those of the usual chat templates, which a text has only by mistake.
USUAL_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>"),
    *("<end_of_turn>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<|user|>"),
    *("<|assistant|>", "<|system|>", "<|end|>", "<|eos|>", "<|pad|>"),
)
FEWEST_LETTERS = 10  # of an answer whose script is looked at
_UNFILLED = re.compile(r"\{\{\s*(?:[A-Za-z_][\w.\- ]*)?\s*\}\}")
_SIGN = re.compile(r"^\W|\W$")

# Languages that are written in other letters than Latin ones, by their scripts.
_SCRIPTS = {
    "ARABIC": "ar fa ur ps sd ug ckb",
    "ARMENIAN": "hy",
    "BENGALI": "bn as",
    "CYRILLIC": "ru uk be bg mk",
    "DEVANAGARI": "hi mr ne sa bho mai",
    "ETHIOPIC": "am ti",
    "GEORGIAN": "ka",
    "GREEK": "el",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "HANGUL": "ko",
    "HEBREW": "he yi",
    "KANNADA": "kn",
    "KHMER": "km",
    "LAO": "lo",
    "MALAYALAM": "ml",
    "MYANMAR": "my",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
    "CJK": "zh yue ja",
    "LATIN": (
        "en de fr es it pt nl sv da no nb nn fi is pl cs sk sl hr hu ro et lv lt tr az vi id ms tl "
        "sw cy ga eu ca gl af sq mt"
    ),
}
# Scripts that such a language has besides.
_BESIDES = {"ja": ("HIRAGANA", "KATAKANA"), "ko": ("CJK",), "pa": ("ARABIC",), "az": ("CYRILLIC",)}
_OF_LANGUAGE: dict[str, set[str]] = {}
for _script, _codes in _SCRIPTS.items():
    for _code in _codes.split():
        _OF_LANGUAGE.setdefault(_code, set(_BESIDES.get(_code, ()))).add(_script)


class TextChecks:
    """Looks through the texts of samples.

    Args:
        renderer: of a model, whose own control tokens are sought too.
    """

    def __init__(self, renderer: ChatRenderer | None = None) -> None:
        tokens = set(USUAL_TOKENS)
        if renderer:
            added = renderer.tokenizer.get_added_tokens_decoder().values()
            tokens |= {token.content for token in added if token.special and len(token.content) > 2}
        # A word of letters alone would be found in any text.
        signed = sorted(token for token in tokens if _SIGN.search(token))
        self._tokens = re.compile("|".join(map(re.escape, signed)))

    def _control(self, text: str) -> re.Match[str] | None:
        """The first control token; struck-out text of HTML holds none."""
        struck = "<s>" in text
        found = self._tokens.finditer(text)
        return next((one for one in found if not (struck and one[0] == "</s>")), None)

    def __call__(self, sample: Sample) -> Iterator[tuple[str, str, str]]:
        """Yields field, code and what is wrong, of each text."""
        for number, message in enumerate(sample.messages):
            field = _field(sample, number)
            text = message.text
            if found := self._control(text):
                yield (
                    field,
                    "control-token",
                    f"holds {found[0]}, a control token of a chat template; take it out, the "
                    "template is added when the sample is rendered",
                )
            if found := _UNFILLED.search(text):
                yield (
                    field,
                    "unfilled",
                    f"holds {found[0]}, a place that nothing was filled into; put the value there",
                )
            if message.role == "user" and not text.strip() and not _shows(message):
                yield field, "empty-question", "the user says nothing and shows nothing"
            if message.learnt and sample.language:
                yield from _language(field, text, sample.language)


def _shows(message: Message) -> bool:
    return any(not isinstance(part, Text) or isinstance(part, Described) for part in message.parts)


def _field(sample: Sample, number: int) -> str:
    """The message, as errors about records call it."""
    if not sample.independent_turns:
        return f"message {number + 1}"
    key = "question" if number % 2 == 0 else "answer"
    return f"pair {number // 2 + 1} {key}" if len(sample.messages) > 2 else key


def _language(field: str, text: str, language: str) -> Iterator[tuple[str, str, str]]:
    """A mismatch that is certain: no letter at all is of the language's script."""
    code, *rest = language.split("-")
    expected = _OF_LANGUAGE.get(code)
    if expected is None or any(len(part) == 4 for part in rest):  # a script is named, as in hi-Latn
        return
    found = scripts(text)
    if found.total() < FEWEST_LETTERS or not found.keys().isdisjoint(expected):
        return
    [(most, _)] = found.most_common(1)
    told = f"is said to be {language}, and none of its {found.total()} letters is; most are {most}"
    # Latin letters may spell any language.
    reason = "other-script" if most == "LATIN" else "wrong-language"
    yield field, reason, told + '; correct "language", or the text'


def scripts(text: Iterable[str]) -> Counter[str]:
    """How many letters of each script a text has, by Unicode's names of letters."""
    return Counter(script for letter in text if (script := _script_of(letter)))


@lru_cache(maxsize=1 << 14)
def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0] if letter.isalpha() else ""
