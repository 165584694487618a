"""The metrics, with the normalisation that each is under. A new metric is one more entry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import jiwer
from rapidfuzz.distance import Levenshtein

from omnitune.evaluation.normalise import is_english, normalise, normaliser_of, whisper_english
from omnitune.evaluation.overlap import BLEU, CHRF, Pool
from omnitune.evaluation.truth import ANLS_THRESHOLD, Truth, anls, consensus, right_choice, rouge_l
from omnitune.tasks import TASKS, get_task


def normalise_answer(text: str, language: str = "") -> str:
    """Lower case, without punctuation; in English without articles, number words as digits.

    The rules of VQA's and SQuAD's scorers, so that "The red circle." equals "red circle" and
    "two" equals "2"; but signs, decimal points, fractions and symbols count, and an answer that
    is nothing else ("A", "?") is kept.

    Args:
        language: code of the text's language; "" where it is not told (``normaliser_of``).
    """
    return normalise(text, is_english(text, language))


def exact_match(answer: str, reference: str, language: str = "") -> bool:
    """Whether an answer equals its reference, both normalised as the reference's language asks."""
    english = is_english(reference, language)
    return normalise(answer, english) == normalise(reference, english)


def normalise_transcript(text: str, language: str = "") -> str:
    """Whisper's English normaliser; of other languages that of :func:`normalise_answer`.

    What Whisper's drops altogether ("um", "[noise]") keeps its words.
    """
    found = whisper_english(text) if is_english(text, language) else ""
    return found or normalise(text, english=False)


def word_errors(answer: str, reference: str, language: str = "") -> tuple[int, int]:
    """Word edits that turn the answer into the reference, and the reference's words.

    The reference decides how both are normalised, so that its words are the same under any
    answer. Of Chinese, Japanese, Thai, Lao, Khmer and Burmese the characters are the words.
    """
    hypothesis, truth = _transcripts(answer, reference, language)
    if not truth:
        # jiwer refuses an empty reference; each word said instead of nothing is one insertion.
        return len(hypothesis.split()), 0
    result = jiwer.process_words(truth, hypothesis)
    edits = result.substitutions + result.deletions + result.insertions
    return edits, len(truth.split())


def character_errors(answer: str, reference: str, language: str = "") -> tuple[int, int]:
    """Character edits that turn the answer into the reference, and the reference's characters.

    Both are normalised as by :func:`word_errors`. A blank between words is a character; languages
    that have none between words have none here.
    """
    hypothesis, truth = _transcripts(answer, reference, language)
    if normaliser_of(truth or hypothesis, language) == "characters":
        hypothesis, truth = hypothesis.replace(" ", ""), truth.replace(" ", "")
    return Levenshtein.distance(hypothesis, truth), len(truth)


def _transcripts(answer: str, reference: str, language: str) -> tuple[str, str]:
    """An answer and its reference, both as the reference asks; "" is silence."""
    # Silence has no language: what is said into it is counted in its own.
    english = normaliser_of(reference.strip() or answer, language) == "english"
    truth = whisper_english(reference) if english else ""
    if reference.strip() and not truth:
        truth, hypothesis = (normalise(text, english=False) for text in (reference, answer))
    else:
        hypothesis = normalise_transcript(answer, "en" if english else "other")
    return hypothesis, truth


def word_error_rate(answers: Sequence[str], references: Sequence[str], language: str = "") -> float:
    """Edits summed over the corpus, divided by its reference words (never a mean of rates)."""
    pairs = [word_errors(a, r, language) for a, r in zip(answers, references, strict=True)]
    words = sum(n for _, n in pairs)
    edits = sum(n for n, _ in pairs)
    return edits / words if words else float(edits > 0)


def _match(answer: str, reference: str, language: str) -> tuple[int, int]:
    return int(exact_match(answer, reference, language)), 1


@dataclass(frozen=True)
class Metric:
    """How answers are scored, and how such a score is written.

    Attributes:
        name: key of the score in the results.
        label, title: the name in tables, and in full.
        compare: of an answer, its reference and the reference's language a numerator and a
            denominator; the score is the sum of the ones divided by that of the others. Of
            several references the nearest counts.
        judge: the same of an answer and all that is known of the right one, in its place.
        pool: how the score of many answers is made where it is no sum over a sum; ``judge`` is
            then that of one answer.
        generated: answers are generated and compared; else the reference's tokens are scored.
        unit: ``percent`` or ``loss``.
        lower_is_better: a perfect score is 0; else it is 1.
        part: what of an answer ``compare`` counts, such as a word; "" if an answer is right or
            wrong as a whole.
        graded: an answer of many words gets a share for how near it comes; none is all right but
            the reference itself.
        unspaced: the metric whose words say it where the characters of all references are the
            words; "" for itself.
        rules: how texts are compared, in words; "" where it follows the normalisers.
        libraries: the packages whose version a score depends on.
        silence: share that empty answers get right, which stands for guessing; None where only
            a prior does.
        words: what follows a value: "right", "of the words wrong"; "" if it is not told in words.
    """

    name: str
    label: str
    title: str
    compare: Callable[[str, str, str], tuple[float, float]] = _match
    generated: bool = True
    unit: str = "percent"
    lower_is_better: bool = False
    part: str = ""
    silence: float | None = None
    words: str = "right"
    judge: Callable[[str, Truth], tuple[float, float]] | None = None
    pool: Pool | None = None
    graded: bool = False
    unspaced: str = ""
    rules: str = ""
    libraries: tuple[str, ...] = ()

    @property
    def whole_answers(self) -> bool:
        """Whether a generated answer is right or wrong as a whole."""
        return self.generated and not self.part and not self.graded

    def score(self, answer: str, truth: Truth) -> tuple[float, float]:
        """Numerator and denominator of one answer."""
        if self.judge:
            return self.judge(answer, truth)
        references = dict.fromkeys(truth.all)
        pairs = [self.compare(answer, text, truth.language) for text in references]
        if len(pairs) == 1:
            return pairs[0]
        sign = 1 if self.lower_is_better else -1
        return min(pairs, key=lambda pair: sign * (pair[0] / pair[1] if pair[1] else pair[0]))

    def is_right(self, answer: str, truth: Truth) -> bool:
        """Whether an answer is all right."""
        numerator, denominator = self.score(answer, truth)
        return numerator == (0 if self.lower_is_better else denominator)

    def shown_as(self, normalisers: Collection[str]) -> Metric:
        """The metric whose words say a score of references under these normalisers."""
        return METRICS[self.unspaced or self.name] if set(normalisers) == {"characters"} else self

    def write(self, value: float) -> str:
        """A value in the terminal."""
        return f"{value:.1%}" if self.unit == "percent" else f"{value:.3f}"


_METRICS = (
    Metric("exact_match", "exact match", "exact match"),
    Metric(
        "wer", "WER", "word error rate", word_errors, lower_is_better=True,
        part="word", silence=0.0, words="of the words wrong",
        unspaced="cer", libraries=("jiwer", "rapidfuzz", "whisper-normalizer"),
    ),
    Metric(
        "cer", "CER", "character error rate", character_errors, lower_is_better=True,
        part="character", silence=0.0, words="of the characters wrong",
        libraries=("rapidfuzz", "whisper-normalizer"),
    ),
    Metric("vqa", "VQA accuracy", "VQA accuracy", judge=consensus),
    Metric(
        "anls", "ANLS", "normalised Levenshtein similarity", judge=anls, libraries=("rapidfuzz",),
        rules=f"case and blanks do not count; threshold {ANLS_THRESHOLD}",
    ),
    Metric(
        "choice", "accuracy", "accuracy of the options", judge=right_choice,
        rules="the key or the text of an option",
    ),
    Metric(
        "chrf", "chrF", "chrF", judge=CHRF.alone, pool=CHRF, graded=True, words="in chrF",
        libraries=("sacrebleu",),
    ),
    Metric(
        "rouge_l", "ROUGE-L", "ROUGE-L", judge=rouge_l, graded=True, words="in ROUGE-L",
        rules="F-measure by words; case and punctuation do not count",
        libraries=("rapidfuzz",),
    ),
    Metric(
        "bleu", "BLEU", "BLEU", judge=BLEU.alone, pool=BLEU, graded=True, words="in BLEU",
        libraries=("sacrebleu",),
    ),
    Metric("token_acc", "token accuracy", "token accuracy", generated=False, words=""),
    Metric("loss", "loss", "loss", generated=False, unit="loss", lower_is_better=True, words=""),
)  # fmt: skip
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
TASKS.know_metrics(METRICS)  # tasks lie below, and cannot look here


def metric_of(task: str) -> Metric:
    """The metric that a task is scored by."""
    return METRICS[get_task(task).metric]


def metrics_of(task: str) -> list[Metric]:
    """All metrics of a task, that which it is scored by first."""
    found = get_task(task)
    return [METRICS[name] for name in (found.metric, *found.also)]


def ranked_metrics() -> list[Metric]:
    """The metrics, those of generated answers first: the first that a task has stands for it."""
    return sorted(METRICS.values(), key=lambda metric: not metric.generated)
