"""Events, the cache's eviction and the driver's telemetry, where a GPU is."""

import pytest
import torch

from datbench.models.resolve import resolve
from datbench.setting import How, Resolution, Setting
from datbench.timing.process import time_in_process
from datbench.timing.rows import measure_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SETTING = Setting(Resolution(224, 224), 8, device="cuda")


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_a_row_of_a_real_gpu(mode: str) -> None:
    how = How(mode=mode, budget=2.0)  # type: ignore[arg-type]
    (row,) = measure_rows([(resolve("dat_t"), SETTING)], how).rows
    assert (row.outcome, row.reason) == ("measured", None)
    assert row.mac_fraction is not None
    assert 0 < row.mac_fraction < 1.2
    (only,) = row.processes
    assert only.timing is not None
    assert only.timing.calls * only.timing.median > 50e-6  # beyond what the events cost
    assert only.telemetry is not None


def test_an_evicted_cache_is_no_part_of_a_sample() -> None:
    plain, flushed = (
        time_in_process("dat_t", SETTING, How(budget=2.0, flush=flush)) for flush in (False, True)
    )
    assert plain.timing is not None
    assert flushed.timing is not None
    assert flushed.timing.calls == 1
    assert 0.8 < flushed.timing.median / plain.timing.median < 1.5


def test_a_batch_that_a_gpu_does_not_hold_is_halved() -> None:
    wide = Setting(Resolution(1024, 1024), 4096, device="cuda")
    (row,) = measure_rows([(resolve("dat_b"), wide)], How(budget=1.0)).rows
    assert row.requested_batch == 4096
    assert row.setting.batch < 4096
