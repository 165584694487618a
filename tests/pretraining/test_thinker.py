"""Stage A: media become words, subwords decode to what was written."""

from pathlib import Path

import pytest
from helpers import conversation, tiny_tokenizer

from omnitune.config import load_config
from omnitune.data.chat import SPECIAL_TOKENS
from omnitune.pretraining.thinker import ThinkerConfig, put_into_words
from omnitune.sample import Media, UserError


def test_media_are_replaced_by_their_words_where_they_stood() -> None:
    media = (Media("image", Path("a.png")), Media("audio", Path("a.wav")))
    stand_ins = {"image": "a red circle", "audio": "is it red"}
    sample = conversation("both", "answer.", "yes", media=media, stand_ins=stand_ins)
    worded = put_into_words(sample)
    assert worded.messages[0].text == "a red circle. is it red. answer."
    assert worded.messages[1] == sample.messages[1]
    assert worded.media == ()


@pytest.mark.parametrize(
    "text", ["12", "it is 10:30.", "x2y", "a  b", "line\nline", "<|end|>", "café 🙂"]
)
def test_subwords_decode_to_what_was_written(text: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.encode_special_tokens = True
    assert tokenizer.decode(tokenizer.encode(text).ids).strip() == text


def test_special_tokens_are_single_and_first() -> None:
    tokenizer = tiny_tokenizer()
    assert [tokenizer.token_to_id(t) for t in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="hidden_size 128 is not a multiple of num_heads 3"):
        load_config(ThinkerConfig, None, ["--num-heads", "3", "--num-kv-heads", "3"])
