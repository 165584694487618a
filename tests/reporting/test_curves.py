"""The axes of diagrams."""

import re

import pytest

from omnitune.reporting.curves import inline_drawings
from omnitune.reporting.diagrams import Curve, Diagram


@pytest.mark.parametrize("lowest", [0.3, 1e-3, 1e-5, 1e-9, 1e-14])
def test_a_loss_has_numbers_along_its_axis_however_far_it_falls(lowest: float) -> None:
    curve = Curve("c1", [1.0, 2.0, 3.0], [3.0, 1.0, lowest], "text")
    [(_, svg)] = inline_drawings([Diagram("Loss", "loss", "loss", [curve])])
    axis = svg[svg.index('id="loss-matplotlib.axis_2"') :]
    assert 2 <= len(re.findall(r">[\d.e-]+</text>", axis)) <= 12
