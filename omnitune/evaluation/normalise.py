"""How a text is written before it is compared: case, punctuation, numbers, articles, languages.

Two rules hold for every language. What a reader would call another answer stays another: letters,
digits and marks of every script, signs, decimal points, fractions, currencies and emoji count.
And nothing but an empty text is normalised to nothing.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from typing import Any

import regex

ENGLISH = frozenset({"en", "eng", "english"})

_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty"""
_NUMBERS = {word: str(n) for n, word in enumerate(_WORDS.split())}

_LETTER = r"[\p{L}\p{M}\p{N}_]"
_OPENING = r"[\"'“‘«(\[]*"
# Characters that only control how others are shown; not those that make up flags.
_UNSEEN = regex.compile(r"(?![\U000E0020-\U000E007F])\p{Cf}|[\uFE00-\uFE0F]")
# Other shapes of the ASCII characters; a dash of any length may stand before or between numbers.
_SHAPES: dict[int, int | str] = {0xFF01 + n: 0x21 + n for n in range(94)}
_SHAPES |= dict.fromkeys(map(ord, "‐‑‒–−﹣"), "-") | dict.fromkeys(map(ord, "⁄∕"), "/")
_SHAPES |= {ord("٫"): ".", ord("٬"): ",", ord("٪"): "%"}
_FRACTION = regex.compile(r"[\u00BC-\u00BE\u2150-\u215E\u2189]")
_THOUSANDS = regex.compile(
    r"(?<![\d.,])[1-9](?:\d{0,2}(?:,\d{3})+|\d?(?:,\d{2})+,\d{3})(?![\d,])"  # the latter: India's
)
_LIST = regex.compile(r"(?<![\d.,])\d+(?:,\d+){2,}(?![\d,])")
_BARE_POINT = regex.compile(rf"(?<!{_LETTER}|\.)\.(?=\d)")
_OPERATOR = regex.compile(r"(?<=\p{N}) ?([*/]) ?(?=\p{N})")
_DASH = r"(?<=\p{N})[ ]?-[ ]?(?=\p{N})"
_SIGN = rf"(?<!{_LETTER})-"
_PIECE = regex.compile(
    # A word, in which 3.5, 10:30 and 1/2 stay together; with the sign of a number, and C#.
    rf"(?:{_SIGN}(?=\p{{N}}))?{_LETTER}+(?:(?<=\p{{N}})[.,:/*](?=\p{{N}}){_LETTER}+)*"
    rf"(?:(?<=\p{{L}})\#(?!{_LETTER}))?"
    rf"|{_DASH}|{_SIGN}\p{{Sc}}(?=[ ]?\.?\p{{N}})"  # 3-5, -$5
    r"|(?![`´])[\p{S}\p{Co}\p{Cn}\U000E0020-\U000E007F%‰&@§]"
)
# Only before another word, and "a" not before a single letter: in "a b c" it is a letter itself.
_ARTICLE = regex.compile(
    rf"(?<![^\s\"'“‘«(\[])(?:an|the|a(?!\s+{_OPENING}\p{{L}}(?!{_LETTER})))"
    rf"(?=\s+{_OPENING}(?:\p{{Sc}}|{_LETTER}))"
)
# Scripts without spaces between words: each character, with its marks, is a word.
_UNSPACED = regex.compile(
    r"(?=[\p{L}\p{Nl}])[\p{Han}\p{Hiragana}\p{Katakana}\p{scx=Katakana}\p{Thai}\p{Lao}\p{Khmer}"
    r"\p{Myanmar}]"
)
_CLUSTER = regex.compile(r"\X")


def normaliser_of(reference: str, language: str = "") -> str:
    """Which rules a reference and its answer are under.

    Args:
        language: code of the answers' language, such as ``hi``; "" where it is not told. Then it
            is English, unless the reference holds letters beyond A to Z: accented ones too, since
            the English normaliser would drop their accents.

    Returns:
        ``english``; ``characters`` where characters are the words (Chinese, Japanese, Thai, Lao,
        Khmer, Burmese); or ``basic``.
    """
    if is_english(reference, language):
        return "english"
    return "characters" if _UNSPACED.search(reference) else "basic"


def is_english(text: str, language: str = "") -> bool:
    """Whether the rules of English are for a text; see :func:`normaliser_of`."""
    if language:
        return regex.split("[-_]", language.strip().lower())[0] in ENGLISH
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return plain.isascii() or not regex.search(r"(?![A-Za-z])[\p{L}\p{M}]", plain)


@lru_cache(maxsize=1 << 16)  # answers are few, and asked for often
def normalise(text: str, english: bool) -> str:
    """Lower case, one form of each character, punctuation dropped, what counts kept apart.

    Args:
        english: also drops articles before another word, and writes number words to twenty as
            digits.
    """
    text = text.casefold() if text.isascii() else _one_form(text)
    whole = " ".join(text.split())
    text = _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)
    text = _LIST.sub(lambda m: m[0].replace(",", " "), text)
    text = _OPERATOR.sub(r"\1", _BARE_POINT.sub("0.", text))
    words = _PIECE.findall(_ARTICLE.sub(" ", text) if english else text)
    if english:
        words = [_NUMBERS.get(word, word) for word in words]
    else:
        words = [part for word in words for part in _split_unspaced(word)]
    return " ".join(word.strip() for word in words) or whole


def num_words(text: str) -> int:
    """Words of a text; characters where the script has no spaces between words."""
    return sum(len(_split_unspaced(word)) for word in text.split())


def whisper_english(text: str) -> str:
    """Whisper's English normaliser (Radford et al. 2022, appendix C), the sign of numbers kept."""
    # It drops "-" and "+" before it reads numbers, but knows the words.
    text = regex.sub(r"(?<!\S)[-−–](?=\$?\.?\d)", "minus ", text)
    found: str = _whisper()(regex.sub(r"(?<!\S)\+(?=\$?\.?\d)", "plus ", text))
    return found.strip()


def _one_form(text: str) -> str:
    """Case folded, NFC, without what is not seen; dashes, slashes, wide shapes, ½ as in ASCII."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    text = _FRACTION.sub(lambda m: f" {unicodedata.normalize('NFKC', m[0])} ", text)
    return _UNSEEN.sub("", text).translate(_SHAPES)


def _split_unspaced(word: str) -> list[str]:
    """The characters of scripts that have no spaces, each alone; the rest together."""
    if not _UNSPACED.search(word):
        return [word]
    parts: list[str] = []
    joins = False
    for cluster in _CLUSTER.findall(word):
        alone = _UNSPACED.match(cluster) is not None
        if joins and not alone:
            parts[-1] += cluster
        else:
            parts.append(cluster)
        joins = not alone
    return parts


@cache
def _whisper() -> Any:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()
