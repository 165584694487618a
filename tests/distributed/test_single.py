"""One process has nothing to share."""

from omnitune.data.packing import WHOLE
from omnitune.distributed.protocol import Distributed
from omnitune.distributed.single import SingleProcess


def test_alone_nothing_is_shared() -> None:
    ranks: Distributed = SingleProcess()
    assert (ranks.rank, ranks.world_size, ranks.shard) == (0, 1, WHOLE)
    assert (ranks.broadcast([1]), ranks.add_gradients([1.0]), ranks.add(2.0)) == ([1], [1.0], 2.0)
    with ranks.resting():
        ranks.end_step()
