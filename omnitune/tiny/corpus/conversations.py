"""Text conversations: described scenes, sums, repeating, reading and small talk."""

from collections.abc import Callable

from omnitune.tiny.corpus.basics import Dice, Question, partition
from omnitune.tiny.corpus.questions import questions
from omnitune.tiny.corpus.scenes import (
    Digits,
    Word,
    caption,
    sample_told,
)
from omnitune.tiny.corpus.words import sample_sentence

Turn = tuple[str, str]
LARGEST = 20

HELD_OUT_SHARES = {
    "described_scene": 0.45,
    "arithmetic": 0.12,
    "repeat": 0.15,
    "reading": 0.12,
    "small_talk": 0.16,
}
# All small talk is soon known, where scenes and sums have no end: what is trained on has more of
# these, as few are learnt by heart and then answered too surely when they are new.
TRAINING_SHARES = {
    "described_scene": 0.58,
    "arithmetic": 0.16,
    "repeat": 0.12,
    "reading": 0.08,
    "small_talk": 0.06,
}

SMALL_TALK: tuple[Turn, ...] = (
    ("hello.", "hello, how can i help you?"),
    ("good morning.", "good morning to you."),
    ("good night.", "good night, sleep well."),
    ("how are you?", "i am fine, thank you."),
    ("who are you?", "i am a small model that sees and hears."),
    ("what can you do?", "i answer questions about text, pictures and sounds."),
    ("are you a person?", "no, i am a computer program."),
    ("can you see?", "yes, i can look at small pictures."),
    ("can you hear?", "yes, i can listen to short sentences."),
    ("do you sleep?", "no, i never sleep."),
    ("thank you.", "you are welcome."),
    ("sorry.", "that is all right."),
    ("tell me a joke.", "my keyboard is tired, it has two shifts."),
    ("goodbye.", "goodbye, see you soon."),
    ("what is the sky?", "the sky is the air above us."),
    ("what is rain?", "rain is water that falls from clouds."),
    ("what is snow?", "snow is soft frozen water."),
    ("what is a river?", "a river is water that flows to the sea."),
    ("what is a forest?", "a forest is a place with many trees."),
    ("what is a library?", "a library is a house full of books."),
    ("what is a doctor?", "a doctor helps sick people."),
    ("what is a baker?", "a baker makes bread."),
    ("what is a pilot?", "a pilot flies airplanes."),
    ("what is a bird?", "a bird is an animal with wings."),
    ("what is a fish?", "a fish is an animal that lives in water."),
    ("what is a bee?", "a bee is an insect that makes honey."),
    ("what is milk?", "milk is a white drink from cows."),
    ("what is bread?", "bread is food made from flour."),
    ("what is a clock?", "a clock shows the time."),
    ("what is a map?", "a map shows where places are."),
    ("what is a bridge?", "a bridge is a road over water."),
    ("what is winter?", "winter is the cold part of the year."),
    ("what is summer?", "summer is the warm part of the year."),
    ("what is the moon?", "the moon goes around the earth."),
    ("what is the sun?", "the sun gives us light and heat."),
    ("how many days are in a week?", "there are seven days in a week."),
    ("how many months are in a year?", "there are twelve months in a year."),
    ("how many legs does a dog have?", "a dog has four legs."),
    ("what color is grass?", "grass is green."),
    ("what color is snow?", "snow is white."),
    ("what is a triangle?", "a triangle is a shape with three sides."),
    ("what is a square?", "a square is a shape with four equal sides."),
    ("what is a circle?", "a circle is a round shape."),
    ("what is a digit?", "a digit is a number from zero to nine."),
)


def _turns(opening: str, asked: list[Question]) -> list[Turn]:
    """Returns the questions as turns, the first one after the opening words."""
    turns = [(question.question, question.answer) for question in asked]
    return [(f"{opening} {turns[0][0]}", turns[0][1]), *turns[1:]]


def _described_scene(rng: Dice, split: str) -> list[Turn]:
    picture = sample_told(rng, split)
    if isinstance(picture, Digits):
        opening = f"here are some digits: {' '.join(map(str, picture.values))}."
    elif isinstance(picture, Word):
        opening = f"here is a word: {picture.text}."
    else:
        opening = f"here is a scene: {caption(picture)}."
    asked = questions(picture, rng, rng.choice((3, 4)))
    if isinstance(picture, Word):  # its first question would repeat the opening
        asked = asked[1:]
    return _turns(opening, asked)


def _sum(rng: Dice) -> Turn:
    form = rng.choice(("plus", "minus", "larger", "smaller", "after"))
    first = rng.randint(0, LARGEST)
    if form == "plus":
        second = rng.randint(0, LARGEST - first)
        return f"what is {first} plus {second}?", str(first + second)
    if form == "minus":
        second = rng.randint(0, first)
        return f"what is {first} minus {second}?", str(first - second)
    if form == "after":
        return f"what comes after {first}?", str(first + 1)
    second = rng.choice([number for number in range(LARGEST + 1) if number != first])
    answer = max(first, second) if form == "larger" else min(first, second)
    return f"which is {form}, {first} or {second}?", str(answer)


def _arithmetic(rng: Dice, split: str) -> list[Turn]:
    return [_sum(rng) for _ in range(rng.randint(3, 5))]


def _repeat(rng: Dice, split: str) -> list[Turn]:
    turns = []
    for _ in range(rng.randint(2, 4)):
        sentence = sample_sentence(rng, split).text
        request = rng.choice(("repeat after me:", "say this again:", "write this down:"))
        turns.append((f"{request} {sentence}.", sentence))
    return turns


def _reading(rng: Dice, split: str) -> list[Turn]:
    turns: list[Turn] = []
    for _ in range(2):
        sentence = sample_sentence(rng, split)
        asked = rng.sample(sentence.facts, rng.choice((1, 2, 2)))
        opening = rng.choice(("read this:", "here is a sentence:"))
        turns += _turns(f"{opening} {sentence.text}.", asked)
    return turns


def _small_talk(rng: Dice, split: str) -> list[Turn]:
    return rng.sample(SMALL_TALK, rng.randint(3, 5))


_MAKERS: dict[str, Callable[[Dice, str], list[Turn]]] = {
    "described_scene": _described_scene,
    "arithmetic": _arithmetic,
    "repeat": _repeat,
    "reading": _reading,
    "small_talk": _small_talk,
}


def sample_conversation(rng: Dice, split: str, kind: str) -> list[dict[str, str]]:
    """Draws one conversation that `split` owns.

    Args:
        rng: The source of randomness.
        split: "train", "validation" or "test"; a conversation is only ever in one.
        kind: A key of `HELD_OUT_SHARES`.

    Returns:
        Messages with "role" (user and assistant by turns) and "content".
    """
    while True:
        turns = _MAKERS[kind](rng, split)
        if partition(str(turns)) == split:
            break
    messages = []
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return messages


def shared_kinds(count: int, split: str) -> list[str]:
    """Returns `count` kinds of conversation, in a split's shares and each at least once."""
    shares = TRAINING_SHARES if split == "train" else HELD_OUT_SHARES
    kinds = list(shares)
    for kind, share in shares.items():
        kinds += [kind] * max(0, round(count * share) - 1)
    kinds += ["described_scene"] * (count - len(kinds))
    return kinds[:count]
