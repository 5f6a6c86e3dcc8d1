"""What a profile says of models whose answer is known in advance."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import datbench
from datbench.errors import MeasurementError, UsageError
from datbench.profile.profile import profile_model, trace
from datbench.profile.records import ProfileRow, ProfileTotal, part_of
from datbench.profile.view import answer, parts, roofline, sentence
from datbench.setting import Resolution, Setting
from datbench.timing.records import Ceilings, Scatter

SMALL = Setting(Resolution(64, 64), device="cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def slow() -> ProfileRow:
    return profile_model("profile_nets:slow", SMALL, threads=1, budget=0.2)


@pytest.fixture(scope="module")
def dat() -> ProfileRow:
    return profile_model("dat_t", Setting(Resolution(32, 32), device="cpu"), "step", budget=0.2)


@pytest.mark.parametrize("name", ["slow", "dat"])
def test_shares_are_of_the_whole(name: str, request: pytest.FixtureRequest) -> None:
    row: ProfileRow = request.getfixturevalue(name)
    for whole in (row.stages, row.modules, row.operators, [g.part for g in row.groups]):
        assert sum(part.share for part in whole) == pytest.approx(1)
        assert sum(part.mac_share for part in whole) == pytest.approx(1)
        assert sum(part.byte_share for part in whole) == pytest.approx(1)
        assert sum(part.seconds for part in whole) == pytest.approx(row.busy)
        assert sum(part.macs for part in whole) == row.macs
        assert sum(part.ideal for part in whole) == pytest.approx(row.ideal)
    said = row.answer
    assert said.counted + said.uncounted + said.moves + said.dispatch == pytest.approx(1)
    assert said.compute + said.memory + said.above + said.neither == pytest.approx(1)
    assert 0 <= said.launching <= 1


def test_macs_are_the_counters_and_modules_are_cut(dat: ProfileRow) -> None:
    counted = datbench.count_model("dat_t", Setting(Resolution(32, 32), backward=True))
    assert dat.macs == counted.total("fvcore")
    assert {g.phase for g in dat.groups} == {"forward", "backward", "step"}
    step = [g.part for g in dat.groups if g.phase == "step" and g.part.bytes]
    # A step of SGD reads a weight and its gradient, and writes the weight.
    weights = sum(p.numel() for p in datbench.create_model("dat_t", device="meta").parameters())
    assert sum(part.bytes for part in step) == 3 * 4 * weights
    whole = {part.name: part for part in parts(dat, "module", 2)}
    assert sum(part.macs for part in whole.values()) == dat.macs
    (stage,) = [part for part in dat.stages if part.name == "stages.2"]
    assert whole["stages.2"].macs == stage.macs
    assert whole["stages.2"].seconds == pytest.approx(stage.seconds)


def test_what_is_slow_and_not_counted_stands_out(slow: ProfileRow) -> None:
    first = max(slow.operators, key=lambda part: part.excess)
    assert first.name == "aten::sort"
    assert first.macs == 0
    assert first.gap is None
    assert first.share > 0.5
    assert max(slow.stages, key=lambda part: part.excess).name == "1"
    assert max(slow.modules, key=lambda part: part.excess).name == "1"
    assert slow.answer.counted < 0.5
    assert first.bound == "neither"
    assert slow.operators[0].name == "aten::sort"


LIMITS = Ceilings("cpu", "float32", 1, macs=1e9, side=512, bytes=1e9, copied=1 << 20)


@pytest.mark.parametrize(
    ("macs", "moved", "bound"),
    [
        (400, 400, "neither"),
        (600, 500, "compute"),
        (500, 600, "memory"),
        (100, 1190, "memory"),
        (100, 1210, "above"),
        (1210, 600, "above"),
    ],
)
def test_what_passes_a_ceiling_is_not_bound_by_it(macs: int, moved: int, bound: str) -> None:
    part = part_of("x", 1, 1e-6, macs, moved, 0.0, ProfileTotal(1e-6, macs, moved), LIMITS)
    assert part.bound == bound


def known(row: ProfileRow, overhead: float, coverage: float) -> str:
    """The sentence where half of the call passes between operators."""
    timing = replace(row.timing, median=0.2, samples=(0.2,), coverage=coverage)
    return sentence(replace(row, timing=timing, overhead=overhead, between=0.1))


def test_the_answer_in_words_has_the_rows_figures(slow: ProfileRow) -> None:
    text, found = sentence(slow), slow.answer
    assert text.startswith("profile_nets:slow takes ")
    assert f"{100 * found.counted:.1f} % goes into what FLOPs count" in text
    table = answer(slow)
    assert [row[2] for row in table.rows[:4]] == pytest.approx(
        [found.counted, found.uncounted, found.moves, found.dispatch]
    )
    assert "sort" in str(table.rows[1][4])
    assert "of the forward, in order." in " ".join(table.notes)
    # What passes between operators is told only where it is known.
    assert "50.0 % of the call passes between" in known(slow, 0.1, 0.96)
    faster, once = known(slow, -0.2, 0.96), known(slow, 0.1, 0.0)
    assert "between operators is uncertain: the call was faster under the profiler" in faster
    assert "uncertain: too few samples of the plain call (1) for an interval" in once
    assert not any("50.0 %" in text.partition("Launching")[2] for text in (faster, once))
    gpu = replace(slow, launch=None)
    assert "In 50.0 % of the call no kernel runs" in known(gpu, 0.1, 0.96)
    assert "How long no kernel runs is uncertain" in known(gpu, -0.2, 0.96)
    # A class without operators has dashes.
    counted = tuple(group for group in slow.groups if group.work == "counted")
    rows = {row[0]: row for row in answer(replace(slow, groups=counted)).rows}
    empty = rows["copies alone"]
    assert (empty[1], empty[3], empty[4]) == (None, None, "-")
    assert rows["FLOPs count it"][3]


def test_machine_peaks_in_words(slow: ProfileRow) -> None:
    """First those that do not bind; then the scatter of their samples."""
    first = sentence(replace(slow, ideal=slow.busy / 2))
    assert "times what its work takes at machine peak." in first
    low = replace(slow, ideal=2 * slow.busy)
    assert "less than at machine peak" in sentence(low).split(". ")[0]
    assert "times what its work takes" not in sentence(low)
    figure = roofline(low, low.operators, "operators")
    assert "The machine peak is not a bound" in figure.notes[-1]
    product = Scatter(0.75e9, 0.7e9, 0.8e9, 0.96, 9)
    copy = Scatter(1e9, 1e9, 1e9, 0.0, 1)
    row = replace(slow, ceilings=replace(LIMITS, product=product, copy=copy))
    notes = " ".join(answer(row).notes)
    assert "the median is 75 % of it (9 samples) and the only sample." in notes
    without = " ".join(answer(replace(slow, ceilings=LIMITS)).notes)
    assert "the fastest sample of each." in without


def test_a_model_that_does_otherwise_goes_by_modules(slow: ProfileRow) -> None:
    row = profile_model("profile_nets:fickle", SMALL, budget=0.1)
    assert row.matching == "modules"
    assert "not the counter's from call" in row.reason
    assert {"aten::sigmoid", "aten::tanh"} <= set(row.unseen)
    conv = {g.module: g for g in row.groups if g.operator == "aten::conv2d"}
    assert set(conv) == {"0.inner", "1"}
    assert all(group.part.macs and group.part.seconds for group in conv.values())
    relu = next(g for g in row.groups if g.operator == "aten::relu")
    assert (relu.module, relu.part.seconds) == ("0", 0)  # counted, and never ran
    assert sum(part.share for part in row.modules) == pytest.approx(1)
    assert "by module and operator alone" in " ".join(answer(row).notes)
    assert "are not those that were counted" in sentence(row)
    assert "are not those" not in sentence(slow)


def test_the_roofline_has_both_ceilings(slow: ProfileRow) -> None:
    figure = roofline(slow, slow.operators, "operators")
    *points, ceiling = figure.series
    (conv,) = points  # nothing else has MACs
    part = next(p for p in slow.operators if p.macs)
    assert conv.x[0] == pytest.approx(part.macs / part.bytes)
    assert conv.y[0] == pytest.approx(part.macs / part.seconds / 1e9)
    assert not ceiling.marked
    assert max(ceiling.y) == pytest.approx(slow.ceilings.macs / 1e9)
    rates = [y * 1e9 / x for x, y in zip(ceiling.x, ceiling.y, strict=True)]
    assert max(rates) == pytest.approx(slow.ceilings.bytes)
    assert roofline(slow, [p for p in slow.operators if not p.macs], "operators") is None
    setting = "64x64, batch 1, float32, inference, on cpu, 1 thread"
    assert setting in figure.notes[1]
    placed = roofline(slow, slow.operators, "operators", "a machine, torch 9")
    assert placed.notes[1].endswith(f"{setting}; measured on a machine, torch 9.")


def test_an_idle_dropout_moves_nothing() -> None:
    row = profile_model("profile_nets:with_norm", SMALL, budget=0.1)
    dropout = next(part for part in row.operators if part.name == "aten::dropout")
    assert (dropout.bytes, dropout.calls, dropout.bound) == (0, 1, "neither")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_trace_parses_and_names_modules(compressed: bool) -> None:
    content = trace("profile_nets:slow", SMALL, compressed=compressed)
    events = json.loads(gzip.decompress(content) if compressed else content)["traceEvents"]
    names = [event.get("name") for event in events]
    for expected in ("Sequential", "0 (Conv2d)", "1 (Slow)", "2 (Conv2d)"):
        assert names.count(expected) == 1, expected
    assert names.count("aten::sort") >= 8


@pytest.mark.parametrize(
    ("name", "device", "options", "said"),
    [
        ("dat_t", "meta", {}, "meta runs nothing"),
        ("dat_t", "cpu", {"budget": 0}, "budget 0: write a number of seconds"),
        ("dat_t", "cpu", {"threads": 0}, "threads 0"),
        ("profile_nets:failing", "cpu", {"budget": 0.1}, "64x64, batch 1 on cpu: out of memory"),
    ],
)
def test_what_cannot_be_profiled(name: str, device: str, options: Any, said: str) -> None:
    with pytest.raises((UsageError, MeasurementError), match=said):
        profile_model(name, replace(SMALL, device=device), **options)
