"""What an encoder's pretraining learnt to say in the thinker's words, kept beside its weights.

Shape suffixes: N feature rows, D feature width, V words of the thinker.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Log-odds against silence from which on a row may say a word: one in twenty. A faint row too many
# reads as half a word and mostly silence, a row too few is a word lost.
FAINTEST = -3.0


class VocabHead(nn.Module):
    """A linear head that names the thinker's words in each feature row.

    Its weights are buffers: what trains the encoder further leaves them as they are.

    Args:
        exclusive: a row says one word, or nothing, which is the last class (the blank of CTC);
            otherwise it may say any number of words at once.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, feature_dim: int, num_words: int, exclusive: bool) -> None:
        super().__init__()
        self.exclusive = exclusive
        classes = num_words + exclusive
        self.register_buffer("weight", torch.zeros(classes, feature_dim))
        self.register_buffer("bias", torch.zeros(classes))

    @staticmethod
    def state_of(head: nn.Linear) -> dict[str, Tensor]:
        """What a trained head adds to its encoder's state, to be the encoder's readout."""
        return {"readout.weight": head.weight.detach(), "readout.bias": head.bias.detach()}

    def forward(self, features_ND: Tensor) -> Tensor:
        """Log-odds, or of an exclusive head logits: ``[N, V]``, with the blank ``[N, V + 1]``."""
        return nn.functional.linear(features_ND.to(self.weight.dtype), self.weight, self.bias)

    def soft_embed(self, features_ND: Tensor, embeddings_VE: Tensor, silence_NE: Tensor) -> Tensor:
        """What the thinker would read in place of the rows if their words were written: ``[N, E]``.

        Words in one place add up, as in a glimpse; each counts as much as it is likely.

        Args:
            embeddings_VE: of the thinker's words.
            silence_NE: what stands for a row that says none.
        """
        logits = self(features_ND)
        if self.exclusive:
            shares = logits.softmax(dim=-1)
            words_NV, silent_N1 = shares[:, :-1], shares[:, -1:]
        else:
            words_NV = logits.sigmoid()
            silent_N1 = nn.functional.logsigmoid(-logits).sum(dim=-1, keepdim=True).exp()
        words_NV = words_NV.to(embeddings_VE.dtype)
        return words_NV @ embeddings_VE[: words_NV.shape[1]] + silent_N1 * silence_NE


def ctc_compress(features_ND: Tensor, readout: VocabHead, count: int) -> Tensor:
    """Of rows that follow each other in time the ``count`` that say most: ``[count, D]``.

    Those that say a word come first, in the order of time; then come the most silent. So words
    stand one after the other, as they do in text, which is what the thinker learnt to read
    (CTC compression, Gaido et al. 2021, with the number of slots known before anything is heard).

    Args:
        readout: an exclusive one.
        count: how many rows to give, at most N. If more of them say a word, the faintest go.
    """
    with torch.no_grad():
        logits_NV = readout(features_ND)
        best_N, word_N = logits_NV[:, :-1].max(dim=-1)
        odds_N = best_N - logits_NV[:, -1]
        says_N = odds_N > FAINTEST
        # Rows in a row that say the same are one word, at its clearest.
        runs_N = torch.ones_like(word_N)
        runs_N[1:] = (word_N[1:] != word_N[:-1]) | ~says_N[1:] | ~says_N[:-1]
        run_N = runs_N.cumsum(0) - 1
        clearest = odds_N.new_full((len(odds_N),), -torch.inf)
        clearest.scatter_reduce_(0, run_N, odds_N, "amax")
        says_N &= odds_N == clearest[run_N]
        # Of a number that is known beforehand, with no step that depends on what is said.
        rows = len(odds_N)
        place_N = torch.arange(rows, device=odds_N.device)
        loudness_N = odds_N.argsort().argsort()
        # Words go first, the clearest first; then come the most silent rows.
        wanted_N = torch.where(says_N, rows - 1 - loudness_N, rows + loudness_N)
        chosen = wanted_N.argsort()[:count]
        order_N = torch.where(says_N, place_N, rows + loudness_N)
        chosen = chosen[order_N[chosen].argsort()]
    return features_ND[chosen]
