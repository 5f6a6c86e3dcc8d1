"""A row that prints another model's figures: found by computing both."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from datbench.paper.records import Cell
from datbench.paper.tables import Build, Printed, TableData, paper_table, read_table
from datbench.paper.verdicts import compare
from datbench.paper.workshop import Workshop

WORKSHOP = Workshop()


def _table(**builds: str) -> TableData:
    """Table 2's rows of PVT-M and DPT-M, of other builds where told."""
    table = paper_table("2")
    rows = [row for row in table.rows if row.values["method"] in ("PVT-M", "DPT-M")]
    changed = [
        replace(row, build=Build(builds[row.values["method"].replace("-", "_")]))
        if row.values["method"].replace("-", "_") in builds
        else row
        for row in rows
    ]
    return replace(table, rows=tuple(changed))


def _cells(table: TableData) -> Mapping[tuple[str, str], Cell]:
    lines = compare(table, [], WORKSHOP).lines
    return {
        (line.labels["method"], name): line.cells[name]
        for line in lines
        for name in ("flops", "params")
    }


def test_pvt_m_has_the_figures_of_dpt_m() -> None:
    cells = _cells(_table())
    for name in ("flops", "params"):
        assert cells["DPT-M", name].verdict == "agrees"
        assert cells["PVT-M", name].verdict == "wrong in print"
        assert cells["PVT-M", name].expected == "wrong in print"
        assert (
            "the row prints the figures of DPT-M, 224², which computes to them: "
            "6.8922G for 6.9G and 46.1318M for 46M"
        ) in cells["PVT-M", name].reason


def test_figures_that_nothing_computes_to_are_nobodys() -> None:
    """Neither row's model has the figures: no evidence of where they are from."""
    cells = _cells(_table(DPT_M="dpt_s"))
    assert {cell.verdict for cell in cells.values()} == {"differs"}


MINE = """
rows = [
{rows}
]
[columns]
part = {{ title = "Part" }}
method = {{ title = "Method" }}
flops = {{ title = "FLOPs", quantity = "macs", unit = "G" }}
params = {{ title = "#Param", quantity = "params", unit = "M" }}
"""


def _mine(tmp_path: Path, **rows: tuple[str, str, str]) -> Mapping[tuple[str, str], Cell]:
    """Verdicts of rows of one part: FLOPs, parameters and a build."""
    lines = [
        f'{{ part = "a", method = "{name}", flops = "{flops}", params = "{params}", '
        f"build = {{ {build} }} }},"
        for name, (flops, params, build) in rows.items()
    ]
    path = tmp_path / "mine.toml"
    path.write_text(MINE.format(rows="\n".join(lines)))
    return _cells(read_table(path))


PVT_M, DPT_M = 'model = "pvt_m"', 'model = "dpt_m"'


def test_one_figure_of_a_rows_own_clears_it(tmp_path: Path) -> None:
    """PVT-M's own 7G beside DPT-M's parameters: no evidence that both are DPT-M's."""
    cells = _mine(tmp_path, own=("7G", "46M", PVT_M), other=("7G", "46M", DPT_M))
    assert cells["own", "flops"].verdict == "agrees"
    assert cells["own", "params"].verdict == "differs"
    assert "the row prints the figures of a, other" in cells["own", "params"].reason


def test_another_input_is_no_copy(tmp_path: Path) -> None:
    """At a wrong input the parameters are still the model's own."""
    wrong, right = 'model = "dat_s", res = "256"', 'model = "dat_s"'
    cells = _mine(tmp_path, own=("9.0G", "50M", wrong), other=("9.0G", "50M", right))
    assert cells["own", "params"].verdict == "agrees"
    assert cells["own", "flops"].verdict == "differs"


def test_a_figure_that_may_be_badly_rounded_is_no_copy(tmp_path: Path) -> None:
    """DAT-B at a wrong input: 87.88M is less than one in the last place from Swin-B's 87.8M."""
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    swin = 'model = "timm:swin_base_patch4_window7_224"'
    dat = 'model = "dat_b", res = "256"'
    cells = _mine(tmp_path, own=("15.5G", "87.8M", dat), other=("15.5G", "87.8M", swin))
    assert {cells["other", name].verdict for name in ("flops", "params")} == {"agrees"}
    assert {cells["own", name].verdict for name in ("flops", "params")} == {"differs"}


def test_models_are_told_apart_by_what_is_built(tmp_path: Path) -> None:
    """Not by the first column, which may be a detector or a part."""
    cells = _mine(tmp_path, PVT=("6.9G", "46M", PVT_M), DPT=("6.9G", "46M", DPT_M))
    for name in ("flops", "params"):
        assert cells["PVT", name].verdict == "wrong in print"
        assert cells["DPT", name].verdict == "agrees"


def test_a_model_twice_is_no_copy_of_itself(tmp_path: Path) -> None:
    cells = _mine(tmp_path, one=("6.9G", "46M", PVT_M), two=("6.9G", "46M", PVT_M))
    assert {cell.verdict for cell in cells.values()} == {"differs"}
    assert all("the row prints" not in cell.reason for cell in cells.values())


def test_a_row_that_cannot_be_computed_is_no_evidence() -> None:
    cells = _cells(_table(DPT_M="no_such_model"))
    assert cells["PVT-M", "flops"].verdict == "differs"


def test_a_row_that_is_not_built_is_noticed() -> None:
    table = _table()
    rows = (replace(table.rows[0], build=None, expect={}), table.rows[1])
    cell = _cells(replace(table, rows=rows))["PVT-M", "flops"]
    assert cell.verdict == "published only"
    assert cell.reason.endswith("; it prints the same figures as the row of DPT-M, 224²")


def test_one_figure_in_common_is_a_coincidence() -> None:
    table = _table()
    other = table.rows[1]
    assert other.values["method"] == "DPT-M"
    printed = {**other.printed, "params": Printed.parse("47M")}
    table = replace(table, rows=(table.rows[0], replace(other, printed=printed)))
    assert _cells(table)["PVT-M", "flops"].verdict == "differs"


def test_rounding_twice() -> None:
    assert Printed.parse("25M").is_rounded_twice(24_485_864)  # 24.5, then 25
    assert not Printed.parse("24M").is_rounded_twice(24_485_864)
    assert not Printed.parse("25M").is_rounded_twice(24_449_999)
    assert Printed.parse("4.6G").is_rounded_twice(4_550_000_000)
    assert Printed.parse("9.8G").is_rounded_twice(9_814_000_000)
    cell = compare(
        replace(
            paper_table("2"),
            rows=tuple(r for r in paper_table("2").rows if r.values["method"] == "PVT-S"),
        ),
        [],
        WORKSHOP,
    ).lines[0]
    assert cell.cells["params"].reason.endswith("the print is this figure rounded twice")
