"""Readouts: words a row says, and clips whose words come first."""

import pytest
import torch

from omnitune.encoders.vocab_head import VocabHead, ctc_compress

BLANK = 3  # the last of four classes


def saying(*classes: tuple[int, float]) -> torch.Tensor:
    """Rows that say a class so loudly, the blank being at 0."""
    rows = torch.full((len(classes), BLANK + 1), -9.0)
    rows[:, BLANK] = 0.0
    for row, (word, loudness) in zip(rows, classes, strict=True):
        row[word] = loudness
    return rows


def identity(exclusive: bool = True) -> VocabHead:
    """A readout whose logits are the features themselves."""
    readout = VocabHead(BLANK + 1, BLANK + (not exclusive), exclusive)
    readout.load_state_dict({"weight": torch.eye(BLANK + 1), "bias": torch.zeros(BLANK + 1)})
    return readout


def test_words_come_first_in_time_and_once_at_their_clearest() -> None:
    rows = saying((BLANK, 1.0), (2, 4.0), (BLANK, 5.0), (0, 2.0), (0, 6.0), (0, 3.0), (1, 9.0))
    chosen = ctc_compress(rows, identity(), 5)
    assert torch.equal(chosen[:3], rows[[1, 4, 6]])
    assert torch.equal(chosen[3:], rows[[2, 0]])  # the most silent before the others


def test_a_word_said_twice_with_silence_between_is_two() -> None:
    rows = saying((0, 2.0), (BLANK, 5.0), (0, 2.0))
    assert torch.equal(ctc_compress(rows, identity(), 2), rows[[0, 2]])


def test_the_faintest_go_where_there_are_too_many_words() -> None:
    rows = saying((0, 5.0), (1, 1.0), (2, 4.0), (0, 3.0))
    assert torch.equal(ctc_compress(rows, identity(), 3), rows[[0, 2, 3]])


def test_every_row_is_given_once_where_all_are_asked_for() -> None:
    rows = torch.randn(12, BLANK + 1, generator=torch.Generator().manual_seed(0))
    chosen = ctc_compress(rows, identity(), 12)
    assert sorted(map(tuple, chosen.tolist())) == sorted(map(tuple, rows.tolist()))


def test_gradients_pass_through_the_chosen_rows_alone() -> None:
    rows = saying((0, 5.0), (BLANK, 5.0), (1, 5.0)).requires_grad_()
    ctc_compress(rows, identity(), 2).sum().backward()
    assert rows.grad is not None
    assert rows.grad.sum(dim=1).tolist() == [BLANK + 1, 0, BLANK + 1]


@pytest.mark.parametrize("exclusive", [True, False])
def test_words_in_one_place_add_up_and_a_row_without_is_silent(exclusive: bool) -> None:
    embeddings, silence = torch.randn(6, 5), torch.randn(2, 5)
    rows = torch.full((2, BLANK + 1), -40.0)
    rows[0, [0, 2]] = 40.0  # two words at once
    if exclusive:
        rows[1, BLANK] = 40.0
    said, nothing = identity(exclusive).soft_embed(rows, embeddings, silence)
    both = embeddings[0] + embeddings[2]
    torch.testing.assert_close(said, both / 2 if exclusive else both)
    torch.testing.assert_close(nothing, silence[1])


def test_a_half_likely_word_counts_half() -> None:
    embeddings, silence = torch.randn(4, 5), torch.randn(1, 5)
    rows = torch.tensor([[0.0, -40.0, -40.0, -40.0]])
    said = identity(exclusive=False).soft_embed(rows, embeddings, silence)
    torch.testing.assert_close(said, (embeddings[:1] + silence) / 2)


def test_a_readout_has_nothing_to_train() -> None:
    assert not list(identity().parameters())
    head = torch.nn.Linear(4, 4)
    readout = identity()
    readout.load_state_dict({k.partition(".")[2]: v for k, v in VocabHead.state_of(head).items()})
    rows = torch.randn(3, 4)
    torch.testing.assert_close(readout(rows), head(rows))
