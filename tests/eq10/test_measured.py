"""Measuring attention modules: what comes out, never how fast the machine is."""

import dataclasses
import json
import math
import random
from collections.abc import Iterator

import pytest
import torch

from datbench.counting.count import count
from datbench.eq10 import measured
from datbench.eq10.measured import measure
from datbench.eq10.records import MeasuredModule, Measurements, TimeShare
from datbench.eq10.view import measured_tables
from datbench.errors import MeasurementError, UsageError
from datbench.models.config import SpatialReduction
from datbench.models.mixers import chunks
from datbench.models.mixers.spatial_reduction import SpatialReductionAttention
from datbench.render.text import to_csv, to_markdown
from datbench.timing.records import Ceilings, Timing
from datbench.units import seconds

KINDS = ("DMHA", "MSA", "SRA", "W-MSA", "D-DETR")
SMALL = {
    "dim": 16,
    "heads": 4,
    "groups": 2,
    "kernel": 3,
    "sides": (4, 6, 8),
    "strides": (4, 2, 1),
    "side_for_strides": 8,
    "budget": 0.5,
}


@pytest.fixture(autouse=True, scope="module")
def _given_ceilings() -> Iterator[None]:
    """The real ones take half a second and half a gigabyte; their own test measures small ones."""
    with pytest.MonkeyPatch.context() as patch:
        limits = Ceilings("cpu", "float32", 1, 5e10, 512, 2e10, 1 << 29)
        patch.setattr(measured, "ceilings", lambda *_: limits)
        yield


@pytest.fixture(scope="module")
def small() -> Measurements:
    return measure(**SMALL, batch=2)


def of(found: Measurements, kind: str, side: int, stride: int = 1) -> MeasuredModule:
    (point,) = (p for p in found.points if (p.kind, p.height, p.stride) == (kind, side, stride))
    return point


# A real run.


def test_every_point_is_there_once(small: Measurements) -> None:
    wanted = {(kind, side, 2 if kind == "SRA" else 1) for kind in KINDS for side in (4, 6, 8)}
    wanted |= {("DMHA", 8, 4), ("DMHA", 8, 2), ("SRA", 8, 4)}
    found = [(point.kind, point.height, point.stride) for point in small.points]
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert not small.interrupted
    for point in small.points:
        timing = point.timing
        assert point.reason is None
        assert 0 < timing.low <= timing.median <= timing.high
        assert 0 <= timing.coverage < 1
        assert min(*timing.samples, math.inf) > 0
        assert point.mac_rate == point.macs / timing.median
        assert point.byte_rate == point.bytes / timing.median
        assert point.mac_fraction == pytest.approx(point.mac_rate / 5e10)
        assert point.byte_fraction == pytest.approx(point.byte_rate / 2e10)
        assert point.peak_bytes is None


def test_formula_and_counts_are_the_identitys_for_the_whole_batch(small: Measurements) -> None:
    c, hw, ns, m = 16, 64, 16, 4
    point = of(small, "DMHA", 8, 2)
    assert point.keys == ns
    formula = 2 * hw * ns * c + 2 * hw * c * c + 2 * ns * c * c + 11 * ns * c
    assert point.formula == 2 * formula
    assert point.macs == 2 * (formula + 9 * ns * c + 4 * m * hw * ns)
    alone = of(small, "MSA", 8)
    assert alone.formula == alone.macs == 2 * (4 * hw * c * c + 2 * hw * hw * c)
    mixer = SpatialReductionAttention(16, 4, SpatialReduction(1))
    calls = count(mixer, torch.zeros(2, 8, 8, 16)).calls
    assert alone.bytes == sum(c.bytes_read + c.bytes_written for c in calls)


def test_shares_add_up_and_each_term_has_time_of_its_own(small: Measurements) -> None:
    for point in small.points:
        assert sum(share.share for share in point.shares) == pytest.approx(1)
        assert sum(share.mac_share for share in point.shares) == pytest.approx(1)
        assert sum(share.macs for share in point.shares) == point.macs
        assert all(share.seconds >= 0 for share in point.shares)
        assert {share.group for share in point.shares} <= {"formula", "left out", "rest"}
        names = [share.name for share in point.shares]
        assert not [n for n in names if "unattributed" in n]
    point = of(small, "DMHA", 8)
    groups = {share.name: share.group for share in point.shares if share.seconds > 0}
    assert groups == {
        "query and output projections": "formula",
        "key and value projections": "formula",
        "attention products": "formula",
        "offset network": "formula",
        "LayerNorm of the offset network": "left out",
        "sampling of features": "left out",
        "interpolation of the position bias": "left out",
        "softmax": "rest",
        "elementwise": "rest",
        "copies, views and dispatch": "rest",
    }
    called = {share.name: share.operators for share in point.shares}
    assert called["sampling of features"] == called["interpolation of the position bias"] == 1
    assert called["attention products"] == called["offset network"] == 2


def test_exponents_stand_beside_the_formulas_in_records_and_tables(small: Measurements) -> None:
    lines = {(line.kind, line.over): line for line in small.exponents}
    assert set(lines) == {(kind, "HW") for kind in KINDS} | {("DMHA", "Ns")}
    assert lines["W-MSA", "HW"].formula == pytest.approx(1)
    assert lines["D-DETR", "HW"].formula == pytest.approx(1)
    assert 1 < lines["MSA", "HW"].formula < 2
    assert 0 < lines["DMHA", "Ns"].formula < 1
    for line in lines.values():
        assert line.low <= line.time <= line.high
        assert line.points == 3
    text = json.dumps(dataclasses.asdict(small), allow_nan=False)
    assert json.loads(text)["points"][0]["timing"]["samples"]
    found = measured_tables(small)
    assert len(to_csv(found).splitlines()) == 1 + len(small.points)
    text = to_markdown(found)
    assert "Does r = 1 cost the same as global attention?" in text
    assert "of the matrix product's MAC/s; global attention" in text
    assert "interpolation of the position bias" in text


@pytest.mark.parametrize(("attention", "kind"), [("sdpa", "MSA"), ("chunked", "DMHA")])
def test_attention_of_one_operator_is_the_products(
    attention: str, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written: some builds of torch write lines at every profile, below Python."""
    monkeypatch.setattr(chunks, "LIMIT", 2000)
    found = measure(**SMALL, attention=attention)
    shares = {share.name: share for share in of(found, kind, 8).shares}
    assert shares["attention products"].operators == 1
    if attention == "sdpa":
        assert shares["softmax"].seconds == 0
    else:
        assert shares["attention products"].share > shares["copies, views and dispatch"].share
    assert capfd.readouterr() == ("", "")


# What goes wrong.


def test_out_of_memory_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = SpatialReductionAttention.forward

    def full(self: SpatialReductionAttention, x: torch.Tensor) -> torch.Tensor:
        if not x.is_meta and x.shape[1] == 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB.\nmore")
        return forward(self, x)

    monkeypatch.setattr(SpatialReductionAttention, "forward", full)
    found = measure(**SMALL)
    point = of(found, "MSA", 8)
    assert point.reason == "out of memory: CUDA out of memory. Tried to allocate 1 TiB"
    assert point.timing is None
    assert point.macs > 0
    assert of(found, "DMHA", 8).timing is not None
    assert [ratio.side for ratio in found.ratios] == [4, 6]
    assert "MSA" not in {line.kind for line in found.exponents}
    assert f"{point.name}: {point.reason}." in measured_tables(found)[0].notes


def test_what_is_larger_than_the_memory_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "available_bytes", lambda _: 40_000)
    found = measure(**SMALL)
    reasons = [point.reason for point in found.points if point.reason]
    assert reasons
    assert len(reasons) < len(found.points)
    assert all(r.startswith("out of memory: one operator moves ") for r in reasons)
    monkeypatch.setattr(measured, "available_bytes", lambda _: 1)
    with pytest.raises(MeasurementError, match="no attention module could be measured: out of"):
        measure(**SMALL)


@pytest.mark.parametrize("finished", [0, 7])
def test_an_interruption_keeps_the_finished_points(finished: int) -> None:
    steps: list[str] = []

    def step(text: str) -> None:
        steps.append(text)
        if len(steps) == finished + 2:  # the first is the ceilings'
            raise KeyboardInterrupt

    found = measure(**SMALL, step=step)
    assert found.interrupted
    assert len(found.points) == finished
    assert all(point.timing for point in found.points)
    assert "Interrupted" in " ".join(measured_tables(found)[0].notes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sides": (4, 8)}, "sides: a line with its interval takes three"),
        ({"strides": (1, 2, 2)}, "strides: a line with its interval takes three"),
        ({"strides": (16, 2, 1)}, "stride 16 leaves no key on a map of side 8"),
        ({"sides": (1, 4, 8)}, "side 1: the smallest map"),
        ({"sides": (0, 4, 8)}, "numbers from 1"),
        ({"heads": 3}, "16 is not a multiple of 3 heads"),
        ({"groups": 3}, "4 heads are no multiple of 3 groups"),
        ({"batch": 0}, "batch 0"),
        ({"budget": 0.0}, "budget 0"),
        ({"budget": math.nan}, "budget nan"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"attention": "flash"}, "attention 'flash'"),
        ({"device": "meta"}, "nothing can be timed"),
        ({"device": "tpu"}, "device 'tpu' is not available"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        measure(**(SMALL | wrong))


# Answers, from points made up here.


def point(kind: str, side: int, time: float, noise: float = 0.0, stride: int = 1) -> MeasuredModule:
    rng = random.Random(side)
    samples = tuple(time * (1 + noise * rng.random()) for _ in range(20))
    middle = sorted(samples)[10]
    timing = Timing(samples, (), 1, "interval", middle, min(samples), max(samples), 0.99)
    shares = (
        TimeShare("attention products", "formula", 1.0, 0.5, 90, 0.9, 2),
        TimeShare("sampling of features", "left out", 0.4, 0.2, 10, 0.1, 1),
        TimeShare("softmax", "rest", 0.6, 0.3, 0, 0.0, 1),
    )
    keys = (side // stride) ** 2
    cost = side**2 * keys
    return MeasuredModule(
        kind, side, side, keys, stride, cost, 2 * cost, 8 * side**2, timing, shares=shares,
        mac_fraction=0.1,
    )  # fmt: skip


def test_planted_exponents_are_recovered() -> None:
    grown = [point("DMHA", side, 1e-6 * side**3) for side in (8, 16, 32)]
    keyed = [point("DMHA", 32, 1e-6 * 32**3 / r, stride=r) for r in (8, 4, 2)]
    over_map, over_keys = measured.exponents(grown + keyed, 2, 32)
    assert (over_map.over, over_map.held, over_map.points) == ("HW", "r = 1", 3)
    assert over_map.time == pytest.approx(1.5)
    assert over_map.formula == pytest.approx(2)
    assert over_map.macs == pytest.approx(2)
    assert over_map.bytes == pytest.approx(1)
    assert (over_keys.over, over_keys.held, over_keys.points) == ("Ns", "HW = 32x32", 4)
    assert over_keys.time == pytest.approx(0.5)
    assert over_keys.formula == pytest.approx(1)


def test_the_ratio_of_two_medians_has_an_interval_of_both() -> None:
    points = [point("DMHA", 8, 2.0, 0.1), point("MSA", 8, 1.0, 0.1), point("DMHA", 16, 2.0)]
    (ratio,) = measured.ratios(points)
    assert ratio.side == 8
    assert 1.8 < ratio.low < ratio.time < ratio.high < 2.2
    assert ratio.formula == ratio.bytes == 1
    assert ratio.memory is None
    # Too few samples give none.
    short = point("MSA", 8, 1.0)
    timing = dataclasses.replace(short.timing, samples=(1.0, 1.0, 1.0), coverage=0.75)
    short = dataclasses.replace(short, timing=timing)
    (ratio,) = measured.ratios([point("DMHA", 8, 2.0), short])
    assert (ratio.time, ratio.low, ratio.high) == (2.0, None, None)


def test_left_out_is_summed_by_group() -> None:
    alone, both = measured.left_out(
        [point("DMHA", 8, 2.0), point("DMHA", 16, 2.0), point("MSA", 16, 1.0)]
    )
    assert (alone.side, alone.terms, alone.rest, alone.macs) == (8, 0.2, 0.3, 0.1)
    assert (alone.global_rest, alone.global_mac_fraction) == (None, None)
    assert (both.side, both.global_rest, both.global_mac_fraction) == (16, 0.3, 0.1)


def _answers(small: Measurements, times: dict[int, float]) -> str:
    """What is said where DMHA takes these times by the side, and global attention 1."""
    points = []
    for side, time in times.items():
        points += [point("DMHA", side, time, 0.1), point("MSA", side, 1.0, 0.1)]
    found = dataclasses.replace(small, ratios=measured.ratios(points))
    return " ".join(note for table in measured_tables(found) for note in table.notes)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ((2.0, 2.0), "more on 2 of 2 maps"),
        ((0.5, 0.5), "less on 2 of 2 maps"),
        ((2.0, 0.5), "more on 1, less on 1 of 2 maps"),
        ((1.0, 1.0), "no difference shown on 2 of 2 maps"),
        ((2.0, 1.0), "more on 1, no difference shown on 1 of 2 maps"),
    ],
)
def test_the_verdict_follows_the_intervals(
    small: Measurements, times: tuple[float, float], said: str
) -> None:
    assert said in _answers(small, dict(zip((8, 16), times, strict=True)))


def test_why_is_asked_only_of_what_is_slower(small: Measurements) -> None:
    side = small.left_out[-1].side
    for time, asked in ((2.0, "Why is DAT slower than its MACs say?"), (1.0, "Where does DAT's")):
        assert asked in _answers(small, {side: time})


def test_seconds_have_three_figures() -> None:
    values = {2.0: "2.00 s", 0.01234: "12.3 ms", 999.96e-6: "1.00 ms", 1.23e-4: "123 us"}
    for value, text in {**values, 0: "0.00 ns"}.items():
        assert seconds(value) == text


@pytest.mark.gpu
def test_a_gpu_has_peaks_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(**(SMALL | {"device": "cuda", "budget": 10.0}))
    for measured_point in found.points:
        assert measured_point.peak_bytes
        assert sum(share.share for share in measured_point.shares) == pytest.approx(1)
    assert all(ratio.memory for ratio in found.ratios)
