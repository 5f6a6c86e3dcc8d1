"""Results as files that a test writes: what no machine of the tests could measure."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from datbench.profile.records import CallGroup, ProfileAnswer, ProfileRow, part_of, summed
from datbench.profile.records import ProfileTotal as Whole
from datbench.records import document, dumps
from datbench.setting import How, Resolution, Setting
from datbench.timing.pytest_benchmark import stats
from datbench.timing.records import Ceilings, ThroughputRow, Timing
from tests.row_samples import sample

HOSTILE = '<script>alert("1")</script>&[x](y)|`z'
"""A model's name, as a file of somebody else's may have it."""

HERE = {
    "datbench": "0.1.0",
    "torch": "2.6.0",
    "processor": "Example CPU",
    "usable_cpus": 8,
    "cuda": "12.4",
    "gpus": [{"name": "Example GPU", "memory_bytes": 1 << 34}],
}
ELSEWHERE = {**HERE, "gpus": [{"name": "Other GPU", "memory_bytes": 1 << 34}]}

LIMITS = Ceilings("cuda", "float32", 1, 1e13, 4096, 1e12, 1 << 28)
SETTING = Setting(Resolution(224, 224), batch=64, device="cuda")
TIMING = Timing((0.08,) * 9, (0.1,), 1, "interval", 0.08, 0.079, 0.081, 0.96)


def throughput(model: str, rate: float) -> ThroughputRow:
    seconds = 64 / rate
    return ThroughputRow(
        *(model, SETTING, How(), "measured", None, 64, 1, 1, ()),
        seconds=seconds,
        low=seconds * 0.99,
        high=seconds * 1.01,
        coverage=0.96,
        images_per_second=rate,
        images_low=rate * 0.99,
        images_high=rate * 1.01,
        interval_of="samples",
        samples=9,
        warmup=1,
        stopped=("interval",),
    )


def profile(model: str) -> ProfileRow:
    whole = Whole(0.08, 4 * 10**9, 2 * 10**9)

    def group(operator: str, module: str, seconds: float, macs: int, moved: int) -> CallGroup:
        part = part_of(operator, 1, seconds, macs, moved, seconds / 2, whole, LIMITS)
        return CallGroup(operator, module, "stage 1", "forward", "counted", (), part)

    groups = (
        group("aten::mm", "stages.0.blocks.0.mixer", 0.05, 3 * 10**9, 10**9),
        group("aten::convolution", "stem.conv", 0.02, 10**9, 5 * 10**8),
        group("aten::add", "stages.0", 0.01, 0, 5 * 10**8),
    )
    return replace(
        sample(ProfileRow),
        model=model,
        setting=SETTING,
        mode="inference",
        timing=TIMING,
        ceilings=LIMITS,
        macs=whole.macs,
        bytes=whole.bytes,
        groups=groups,
        matching="calls",
        reason=None,
        unseen={},
        channels_last=False,
        profiled=0.09,
        busy=0.07,
        between=0.01,
        launch=None,
        ideal=0.04,
        overhead=0.125,
        answer=ProfileAnswer(0.9, 0.1, 0.0, 0.0, 0.6, 0.3, 0.1, 0.1),
        stages=summed(groups, lambda g: g.stage, LIMITS),
        modules=summed(groups, lambda g: g.module, LIMITS),
        operators=summed(groups, lambda g: g.operator, LIMITS),
    )


def written(path: Path, kind: str, rows: list[Any], environment: dict[str, Any] = HERE) -> str:
    path.write_text(dumps(document(kind, rows, environment)), encoding="utf-8")
    return str(path)


BENCHMARKS = {
    "machine_info": {"cpu": {"brand_raw": "Example CPU", "count": 8}, "python_version": "3.11"},
    "version": "5.0.0",
    "benchmarks": [{"name": "test_forward", "stats": stats([0.01, 0.02, 0.03])}],
}


def benchmarks(path: Path) -> str:
    path.write_text(json.dumps(BENCHMARKS), encoding="utf-8")
    return str(path)
