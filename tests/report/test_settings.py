"""No chart and no table puts two runs under one name, or says more of a run than is known."""

from dataclasses import replace
from typing import Any

import pytest

from datbench import units
from datbench.memory import view
from datbench.memory.records import MemoryRow
from datbench.memory.simulation import memory_row
from datbench.models.resolve import resolve
from datbench.render.vega import Chart
from datbench.setting import How, Recipe, Resolution, Setting, describe, labels, varying
from datbench.timing import view as timing_view
from datbench.timing.records import ProcessTiming, ThroughputRow

from .rows import throughput


@pytest.fixture(scope="module")
def row() -> MemoryRow:
    return memory_row(resolve("dat_t"), Setting(Resolution(64, 64)), "backward")


def drawn(chart: Chart) -> list[dict[str, Any]]:
    return list(chart.spec["data"]["values"])


def test_two_recipes_are_two_bars(row: MemoryRow) -> None:
    other = replace(row, recipe=Recipe(autocast="bfloat16"))
    chart = view.charts([row, other])[0]
    bars = list(dict.fromkeys(d["bar"] for d in drawn(chart)))
    peak = units.size(row.peak.amount)
    names = ["dat_t, no autocast", "dat_t, autocast to bfloat16"]
    assert bars == [f"{name}: {peak}" for name in names]
    for label in bars:
        mib = sum(d["amount"] for d in drawn(chart) if d["bar"] == label)
        assert mib * (1 << 20) == pytest.approx(row.peak.amount)
    table = view.many_models([row, other])
    assert [column.name for column in table.visible()][:2] == ["model", "autocast"]
    assert "autocast" not in table.title


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"mode": "inference"}, "dat_t, inference"),
        ({"recipe": Recipe(checkpointing="block")}, "dat_t, block checkpointing"),
        ({"recipe": Recipe(optimizer="sgd")}, "dat_t, sgd"),
        ({"setting": Setting(Resolution(64, 64), dtype="float16")}, "dat_t, float16"),
        ({"setting": Setting(Resolution(64, 64), attention="sdpa")}, "dat_t, sdpa attention"),
        ({"setting": Setting(Resolution(64, 96))}, "dat_t, 64x96"),
        ({"setting": Setting(Resolution(64, 64), batch=2)}, "dat_t, batch 2"),
    ],
)
def test_rows_are_named_by_whatever_differs(
    row: MemoryRow, change: dict[str, Any], name: str
) -> None:
    rows = [row, replace(row, **change)]
    found = labels(rows)
    assert found[1] == name
    assert found[0] != found[1]
    (column,) = varying(rows)[1:]
    assert column in [shown.name for shown in view.many_models(rows).visible()]


def test_equal_rows_have_numbers(row: MemoryRow) -> None:
    assert labels([row, row]) == ["dat_t, run 1", "dat_t, run 2"]
    table = view.many_models([row, row])
    place = [column.name for column in table.columns].index("run")
    assert [line[place] for line in table.rows] == [1, 2]
    assert "run" not in [column.name for column in view.many_models([row]).columns]


def test_modes_are_all_in_the_caption(row: MemoryRow) -> None:
    chart = view.charts([row, replace(row, mode="inference")])[0]
    assert "modes backward and inference" in chart.caption
    (first, *_) = drawn(chart)
    assert first["about"] == describe(row)


def test_an_interval_that_the_table_withholds_is_not_drawn() -> None:
    sure = throughput("dat_t", 1000.0)
    chart = timing_view.charts([sure, replace(sure, model="dat_s", coverage=0.875)], "here")[0]
    one, other = drawn(chart)
    assert (one["low"], one["high"]) == pytest.approx((990.0, 1010.0))
    assert (other["low"], other["high"]) == (None, None)
    assert "95 % interval" in chart.caption
    assert "Without a bar" in chart.caption


@pytest.mark.parametrize(
    "change",
    [
        {"how": How(mode="step")},
        {"how": How(compile=True)},
        {"how": How(channels_last=True)},
        {"how": How(flush=True)},
        {"gpus": 2},
        {"processes": (ProcessTiming("measured", threads=4),)},
        {"setting": Setting(Resolution(224, 224), batch=64, device="cpu")},
    ],
)
def test_timed_rows_are_named_by_whatever_differs(change: dict[str, Any]) -> None:
    one = throughput("dat_t", 1000.0)
    assert len(set(_named([one, replace(one, **change)]))) == 2
    assert "run" not in " ".join(_named([one, replace(one, **change)]))
    numbered = ["dat_t, run 1", "dat_t, run 2"]
    assert _named([one, throughput("dat_t", 990.0)]) == numbered


def _named(rows: list[ThroughputRow]) -> list[str]:
    return [d["model"] for d in drawn(timing_view.charts(rows, "here")[0])]


def test_a_point_may_say_where_it_is_from() -> None:
    chart = timing_view.charts([throughput("dat_t", 1000.0)], "a machine")[0]
    assert chart.spoken()["transform"][1]["calculate"] == '"a machine"'
    (datum,) = drawn(chart)
    own = replace(chart, spec={**chart.spec, "data": {"values": [{**datum, "where": "elsewhere"}]}})
    assert own.spoken()["transform"][1]["calculate"] == 'datum.where || "a machine"'
