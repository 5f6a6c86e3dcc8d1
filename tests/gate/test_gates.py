"""Baselines as values: folded names, keys, what decides, and times."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datbench.errors import UsageError
from datbench.gate.records import (
    ERRORS,
    Change,
    CountBaseline,
    GateRow,
    TimeBaseline,
    Verdict,
    deciding,
    fold,
    key,
    unfold,
)
from datbench.gate.verdicts import judged, judged_times
from datbench.records import checked, plain
from datbench.setting import Resolution, Setting

SETTING = Setting(Resolution(64, 64), backward=True)


def test_equal_blocks_are_folded() -> None:
    entries = {f"stages.2.blocks.{n}.proj aten::linear": n % 2 for n in range(6)} | {"head": 1}
    assert fold(entries) == {
        "stages.2.blocks.{0,2,4}.proj aten::linear": 0,
        "stages.2.blocks.{1,3,5}.proj aten::linear": 1,
        "head": 1,
    }
    assert list(fold({f"layer{n}.0.conv": 1 for n in (1, 2)})) == ["layer1.0.conv", "layer2.0.conv"]
    assert list(fold({f"{n}.conv": 1 for n in (0, 1, 2, 3, 7)})) == ["{0-3,7}.conv"]
    assert list(fold({"a.00.b": 1, "a.0.b": 1})) == ["a.00.b", "a.0.b"]


PART = st.sampled_from(["a", "b", "0", "1", "2", "10", "01", "c3"])


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.lists(PART, min_size=1, max_size=5).map(".".join), st.integers(0, 2), max_size=12
    )
)
def test_folding_loses_nothing(entries: dict[str, int]) -> None:
    assert unfold(fold(entries)) == entries


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ("same faster", 0),
        ("same ambiguous", 4),
        ("ambiguous missing", 3),
        ("missing failed ambiguous", 5),
        ("failed missing slower", 1),
        ("ambiguous changed failed", 1),
    ],
)
def test_what_decides(verdicts: str, code: int) -> None:
    for order in itertools.permutations(verdicts.split()):
        found = deciding([_row(verdict) for verdict in order])
        assert {ERRORS[row.verdict].exit_code for row in found} <= {code}
        assert bool(found) == bool(code)


def _row(verdict: Any, direction: Any = "") -> GateRow:
    word: Verdict = verdict
    return GateRow("count", "m", SETTING, word, direction=direction)


def _counts(**operators: dict[str, int]) -> CountBaseline:
    work = {name.replace("_", "."): {"forward": cost} for name, cost in operators.items()}
    total = sum(cost["linear"] for cost in operators.values())
    totals = {"fvcore": {"forward": total}}
    setting = replace(SETTING, backward=False)
    return CountBaseline("m", setting, 1, 0, 0, totals, {"w": "1"}, work, {})


LINEAR = {"calls": 1, "linear": 100}


def _two(a: int, b: int) -> CountBaseline:
    """A model of two modules that do so much."""
    return _counts(a={"calls": 1, "linear": a}, b={"calls": 1, "linear": b})


def test_one_mac_more_is_named_and_work_that_moved_is_a_change() -> None:
    row = judged(_two(100, 7), _two(100, 8))
    assert (row.verdict, row.direction) == ("changed", "more")
    assert [(c.place, c.quantity, c.before, c.after) for c in row.changes] == [
        ("", "fvcore MACs forward", 107, 108),
        ("b", "linear", 7, 8),
    ]
    row = judged(_two(100, 7), _two(99, 8))
    assert (row.verdict, row.direction) == ("changed", "moved")


def _with_backward(amount: int, **more: Any) -> CountBaseline:
    row = _counts(a=LINEAR)
    work = {"a": {**row.operators["a"], "backward": {"calls": 1, "linear": amount}}}
    totals = {"fvcore": {"forward": 100, "backward": amount}}
    return replace(row, operators=work, totals=totals, **more)


def test_what_one_side_lacks_is_missing() -> None:
    forward = _counts(a=LINEAR)
    row = judged(_with_backward(200), forward)
    assert (row.verdict, row.reason) == ("missing", "the backward: in the baseline alone")
    row = judged(forward, _with_backward(200))
    reason = "the backward: in what is compared with it alone"
    assert (row.verdict, row.reason) == ("missing", reason)
    wider = _counts(a={"calls": 1, "linear": 101})
    assert judged(_with_backward(200), wider).verdict == "changed"
    more = replace(forward, totals={**forward.totals, "strict": {"forward": 7}})
    row = judged(more, forward)
    assert (row.verdict, row.reason) == ("missing", "strict forward: in the baseline alone")
    assert judged(forward, more).verdict == "missing"


def test_the_backward_of_another_torch_is_not_compared() -> None:
    before, now = _with_backward(200), _with_backward(201)
    assert judged(before, now).verdict == "changed"
    row = judged(before, now, "the baseline is of torch 2.6, this is 2.7")
    assert row.verdict == "missing"
    assert "torch 2.6, this is 2.7, and what autograd does is torch's: not compared" in row.reason
    wider = replace(now, params=2)
    assert judged(before, wider, "the baseline is of torch 2.6").verdict == "changed"


def test_what_is_newly_unknown_has_failed() -> None:
    before = _two(100, 9)
    now = replace(_counts(a=LINEAR), unknown={"my::op": 1})
    row = judged(before, now)
    assert (row.verdict, row.reason) == ("failed", "no rule for my::op: their work is in no total")
    assert deciding([row], allow_fewer=True) == [row]
    assert judged(now, before).verdict == "changed"


def test_what_only_fell_may_pass() -> None:
    """Not so, what is less in total and more at a place."""
    fewer, more = _row("changed", "fewer"), _row("changed", "fewer and more")
    assert deciding([fewer]) == [fewer]
    assert deciding([fewer], allow_fewer=True) == []
    assert deciding([fewer, more], allow_fewer=True) == [more]
    assert deciding([judged(_two(100, 9), _two(90, 9))], allow_fewer=True) == []
    moved = judged(_two(100, 9), _two(90, 10))
    assert moved.direction == "fewer"
    assert deciding([moved], allow_fewer=True) == [moved]


@pytest.mark.parametrize(
    ("was", "now", "passes"),
    [
        ("12x8", "11x8", True),
        ("12x8", "8x12", True),
        ("12x8", "13x8", False),
        ("12", "12 frozen", False),
    ],
)
def test_a_shape_that_shrank_may_pass(was: str, now: str, passes: bool) -> None:
    row = replace(_row("changed", "fewer"), changes=(Change("w", "shape", was, now),))
    assert (deciding([row], allow_fewer=True) == []) == passes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"params": -1}, "params: must not be negative"),
        ({"totals": {}}, "totals: no convention is there"),
        (
            {"totals": {"fvcore": {"sideways": 1}}},
            "must be one of forward, backward, not 'sideways'",
        ),
        ({"tensors": {"9.{5-0}.w": "3"}}, "the numbers in braces do not ascend"),
        ({"tensors": {"{0,1}.w": "3", "1.w": "4"}}, "1.w stands there twice"),
        ({"tensors": {"{0-99999999999}.w": "3"}}, "stands for more than 100000 entries"),
        ({"tensors": {"w": "wide"}}, "tensors.w: 'wide' is not a shape"),
        (
            {"operators": {"a": {"forward": {"linear": -1}}}},
            "operators.a.forward.linear: must not be neg",
        ),
        ({"setting": plain(replace(SETTING, device="foo"))}, "setting.device: 'foo' is none"),
    ],
)
def test_a_row_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    row = plain(_counts(a={"calls": 1, "linear": 1}))
    problem, *_ = checked(CountBaseline, row | changes)[1]
    assert said in str(problem)


@pytest.mark.parametrize("seconds", [(), (0.0,), (-1.0,), (float("inf"),)])
def test_a_time_that_cannot_be_is_refused(seconds: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="seconds: "):
        _time(*seconds)


def test_a_renamed_module_is_missing_and_both_names_are_said() -> None:
    before = _counts(s_0_mixer={"calls": 1, "linear": 9}, s_1_mixer={"calls": 1, "linear": 9})
    now = _counts(s_0_attn={"calls": 1, "linear": 9}, s_1_attn={"calls": 1, "linear": 9})
    row = judged(before, now)
    assert row.verdict == "missing"
    assert "renamed" in row.reason
    assert [(c.place, c.before, c.after) for c in row.changes] == [
        ("s.{0,1}.mixer", "mixer", "attn")
    ]


def test_exact_rows_are_the_same_on_every_device() -> None:
    row = _counts(a={"calls": 1, "linear": 1})
    assert key(row) == key(replace(row, setting=replace(row.setting, device="cpu")))
    assert key(row) != key(replace(row, setting=replace(row.setting, features=True)))


MACHINE = {"processor": "a", "cpus": 2, "torch": "2.6", "threads": [1], "gpus": [{"name": "x"}]}


def _time(*seconds: float, **environment: Any) -> TimeBaseline:
    how = {"mode": "inference", "gpus": 1}
    setting = Setting(Resolution(64, 64), device="cpu")
    return TimeBaseline("m", setting, how, seconds, MACHINE | environment)


SIX = (1.0, 1.001, 0.999, 1.002, 0.998, 1.0)


@pytest.mark.parametrize(
    ("factor", "count", "verdict"),
    [(1.0, 6, "same"), (1.1, 6, "slower"), (0.9, 6, "faster"), (1.1, 3, "ambiguous")],
)
def test_times_are_tested(factor: float, count: int, verdict: str) -> None:
    now = _time(*(factor * seconds for seconds in SIX[:count]))
    row = judged_times(_time(*SIX[:count]), now)
    assert row.verdict == verdict
    assert row.ratio == pytest.approx(1 / factor, rel=0.01)


def test_times_of_another_machine_are_not_compared() -> None:
    row = judged_times(_time(*SIX), _time(*SIX, processor="b", threads=[2]))
    assert row.verdict == "missing"
    assert "processor a there, b here; threads 1 there, 2 here" in row.reason
    assert row.ratio is None
    assert judged_times(_time(*SIX), _time(*SIX, gpus=[])).verdict == "same"  # of a CPU's time
    slower = [1.5 * seconds for seconds in SIX]
    newer = judged_times(_time(*SIX), _time(*slower, torch="2.7"))
    assert (newer.verdict, newer.ratio) == ("missing", None)
    assert "torch was 2.6, is 2.7: not compared" in newer.reason
    patched = judged_times(_time(*SIX, python="3.12.1"), _time(*SIX, python="3.12.2"))
    assert (patched.verdict, patched.reason) == ("same", "python was 3.12.1, is 3.12.2")


def test_a_broken_measurement_is_no_regression() -> None:
    broken = replace(_time(*SIX), seconds=(), reason="crashed: signal 9")
    row = judged_times(_time(*SIX), broken)
    assert (row.verdict, row.reason) == ("failed", "crashed: signal 9")
