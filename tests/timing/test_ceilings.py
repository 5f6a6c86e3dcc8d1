"""The machine's ceilings from timings made up here: the fastest sample is what counts."""

import pytest
import torch

from datbench.timing import ceilings
from datbench.timing.records import Timing


def test_the_fastest_sample_is_the_ceiling_and_the_median_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Timing((4.0, 4.0, 4.0), (), 1, "budget", 4.0, 3.0, 5.0, 0.75)
    wide = Timing((8.0, 2.0, 10.0), (), 1, "budget", 8.0, 2.0, 10.0, 0.75)
    answers = iter([slow, slow, wide, slow, wide])  # two ways at two sides, then the copy
    monkeypatch.setattr(ceilings, "time_calls", lambda *_, **__: next(answers))
    cpu = torch.device("cpu")
    found = ceilings.ceilings(cpu, torch.float32, 1.0, sides=(20, 40), copied=1000)
    assert (found.side, found.macs, found.bytes) == (40, 40**3 / 2, 1000.0)
    assert found.product is not None
    assert found.copy is not None
    assert (found.product.median, found.product.low, found.product.high) == (8e3, 6.4e3, 32e3)
    assert (found.copy.median, found.copy.samples, found.copy.coverage) == (250.0, 3, 0.75)
