"""Published accuracy against cost, from tables that a test writes."""

from dataclasses import replace
from typing import Any

from datbench.paper.accuracy import charts
from datbench.paper.records import Cell, Comparison, Evidence, Heading, Line
from datbench.render.vega import Chart
from datbench.setting import Resolution, Setting

from .rows import throughput


def cell(column: str, printed: str, model: str = "", side: int = 224) -> Cell:
    found = Evidence(model, f"{side}x{side}", 5 * 10**9, "MAC", "fvcore")
    low, high = (4e9, 6e9) if column != "top1" else (None, None)
    about = ("agrees", "agrees", None, "", (found,) if model else ())
    return Cell("t", "r", column, column, printed, low, high, *about)


def line(method: str, model: str = "", top1: str = "82.0", side: int = 224) -> Line:
    cells = {name: cell(name, "5", model, side) for name in ("flops", "params")}
    if top1:
        cells["top1"] = cell("top1", top1)
    return Line({"method": method, "resolution": f"{side}²"}, cells)


def table(*lines: Line) -> Comparison:
    headings = tuple(Heading(name, name) for name in ("method", "flops", "params", "top1"))
    return Comparison("t", "A table", "A paper", headings, lines, ())


EVERY = table(
    line("DAT-T", "dat_t"),
    line("DAT-B", "dat_b", "84.0"),
    line("DAT-B", "dat_b_384", "84.8", 384),
    line("DAT-T*", "dat_t_star", "82.7"),
    line("DAT-T++", "datpp_t", "83.9"),
    line("DAT-S++", "datpp_s", ""),
    line("Other-S"),
)


def points(chart: Chart) -> dict[tuple[str, str], dict[str, Any]]:
    return {(d["method"], d["input"]): d for d in chart.spec["data"]["values"]}


def test_points_tell_what_they_are_and_a_line_joins_one_family_alone() -> None:
    macs = next(charts([EVERY]))
    found = points(macs)
    labels = ["DAT-T", "DAT-B", "DAT-B, 384", "DAT-T*", "DAT-T++", ""]  # with another input
    assert [d["label"] for d in found.values()] == labels
    assert found["DAT-T", "224x224"]["where"] == "cost computed, accuracy printed"
    assert found["Other-S", "224x224"]["where"] == "cost printed, accuracy printed"
    families = {method: d["family"] for (method, _), d in found.items()}
    assert families == {
        "DAT-T": "DAT",
        "DAT-B": "DAT",
        "DAT-T*": "DAT",
        "DAT-T++": "DAT++",
        "Other-S": "others",
    }
    joined = [method for (method, _), d in found.items() if d["joined"]]
    assert joined == ["DAT-T", "DAT-B", "DAT-B", "DAT-T++"]
    joining = macs.spec["layer"][0]["encoding"]
    assert (joining["color"]["field"], joining["detail"]["field"]) == ("family", "input")
    assert "DAT-S++" in macs.caption


def test_families_look_alike_in_every_chart() -> None:
    def scales(chart: Chart) -> list[Any]:
        encoding = chart.spec["layer"][1]["encoding"]
        return [encoding[channel]["scale"] for channel in ("color", "shape")]

    whole, part = (next(charts([t])) for t in (EVERY, table(line("Other-S"))))
    assert scales(whole) == scales(part)


def test_speed_is_measured_and_of_one_setting() -> None:
    slow = throughput("dat_t", 100.0)
    quick = replace(
        throughput("dat_t", 300.0),
        setting=Setting(Resolution(224, 224), batch=64, device="cuda", dtype="float16"),
    )
    drawn = [c for c in charts([EVERY], [("here", [slow, quick])]) if "through" in c.key]
    assert [[d["x"] for d in points(chart).values()] for chart in drawn] == [[100.0], [300.0]]
    for chart, dtype in zip(drawn, ("float32", "float16"), strict=True):
        (point,) = points(chart).values()
        assert point["known"] == "measured"
        assert dtype in point["where"]
        assert dtype in chart.where


def test_one_point_has_axes_of_some_length() -> None:
    chart = next(charts([table(line("DAT-T", "dat_t"))]))
    for channel in ("x", "y"):
        low, high = chart.spec["encoding"][channel]["scale"]["domain"]
        assert low < high
