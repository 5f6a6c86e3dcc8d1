"""Verdicts follow from the figures: change a printed value, and the verdict changes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from datbench.errors import UsageError
from datbench.paper import tables
from datbench.paper.records import Cell
from datbench.paper.tables import Build, Printed, TableData, paper_table, read_table
from datbench.paper.verdicts import compare
from datbench.paper.workshop import Workshop

WORKSHOP = Workshop()

COLUMNS = """
[columns]
name = { title = "Model" }
macs = { title = "FLOPs", quantity = "macs", unit = "G" }
params = { title = "#Param", quantity = "params", unit = "M" }
"""


def _written(tmp_path: Path, rows: str, columns: str) -> TableData:
    path = tmp_path / "mine.toml"
    path.write_text(f"rows = [\n{rows}\n]\n{columns}", encoding="utf-8")
    return read_table(path)


def _cells(tmp_path: Path, rows: str, columns: str = COLUMNS) -> dict[tuple[str, str], Cell]:
    table = _written(tmp_path, rows, columns)
    comparison = compare(table, [paper_table("8"), paper_table("9")], WORKSHOP)
    return {(cell.row, cell.column): cell for cell in comparison.cells()}


DAT_T = 'build = { model = "dat_t" }'  # 4.588941408 GMACs


def test_the_last_printed_place_decides(tmp_path: Path) -> None:
    agreeing = "9G 9.0G 9.01 9.008G 9.008368224 9008.4M 0.009T".split()
    for printed in (*agreeing, *"8.9G 9.1G 9.00G 9.0083G 9008.3M".split()):
        row = f'{{ name = "a", macs = "{printed}", build = {{ model = "dat_s" }} }},'
        found = _cells(tmp_path, row)["a", "macs"]
        verdict = "agrees" if printed in agreeing else "differs"
        assert (found.verdict, found.amount) == (verdict, 9_008_368_224), printed


@pytest.mark.parametrize(
    ("printed", "verdict"), [("4.5G", "wrong in print"), ("4.588G", "differs"), ("4.6G", "agrees")]
)
def test_a_print_elsewhere_is_evidence_if_no_figure_rounds_to_both(
    tmp_path: Path, printed: str, verdict: str
) -> None:
    """Table 8 prints 4.59G for dat_t, which 4.588G may be; 4.5G may not."""
    found = _cells(tmp_path, f'{{ name = "a", macs = "{printed}", {DAT_T} }},')["a", "macs"]
    assert found.verdict == verdict
    cited = "Deformable Attention (CVPR 2022), Table 8 (DAT, 196, 49) prints 4.59G"
    assert (cited in found.reason) is (verdict == "wrong in print")


def test_a_difference_without_a_contradiction_is_no_error_of_the_print(tmp_path: Path) -> None:
    rows = '{ name = "a", macs = "15.7G", build = { model = "dat_b" } },'
    cell = _cells(tmp_path, rows)["a", "macs"]
    assert cell.verdict == "differs"
    assert cell.difference == pytest.approx(0.0056, abs=1e-4)
    assert cell.reason == (
        "15.7876G is computed, +0.0876G (+0.6 %); the printed value is this figure cut off, "
        "not rounded; its multiply-adds alone, 15.7214G, would agree"
    )


def test_another_reading_that_explains_the_print_is_found(tmp_path: Path) -> None:
    rows = """
    { name = "a", macs = "15.721G", build = { model = "dat_b" } },
    { name = "b", params = "27.95M", build = { model = "dat_t_ddetr_16_16" } },
    """
    cells = _cells(tmp_path, rows)
    # Same model, but Table 8 counts the masks: another rule is no contradiction.
    assert cells["b", "params"].verdict == "differs"
    assert "with frozen parameters and masks, 27.9518M, would agree" in cells["b", "params"].reason
    halved = WORKSHOP.make(paper_table("2").rows[14].build).totals["torch"] // 2
    assert f"{halved / 1e9:.3f}" == "15.721"
    assert "multiply-adds alone, 15.7214G, would agree" in cells["a", "macs"].reason


def test_tried_configurations(tmp_path: Path) -> None:
    both = 'tried = [{ model = "dat_t" }, { model = "dat_s" }]'
    rows = f'{{ name = "a", macs = "7.5G", {both} }},\n{{ name = "b", macs = "9.0G", {both} }},'
    cells = _cells(tmp_path, rows)
    assert cells["a", "macs"].verdict == "not reproducible"
    assert cells["a", "macs"].evidence[0].model == "dat_s"  # the nearest first
    assert "dat_t at 224x224 gives 4.5889G" in cells["a", "macs"].reason
    assert cells["b", "macs"].verdict == "agrees"


def test_one_choice_for_several_rows(tmp_path: Path) -> None:
    """Rows of one word have one configuration: that which misses least in the worst of them."""
    tried = 'tried = [{ model = "dat_t" }, { model = "dat_t_49_49" }]'  # 4.5889G, 4.3823G
    alone = f"""
    {{ name = "a", macs = "4.59G", {tried} }},
    {{ name = "b", macs = "4.38G", {tried} }},
    """
    assert {c.verdict for c in _cells(tmp_path, alone).values()} == {"agrees"}
    shared = alone.replace("tried", 'together = "strides", tried').replace("4.38G", "4.50G")
    cells = _cells(tmp_path, shared)
    assert cells["a", "macs"].verdict == "agrees"
    assert cells["b", "macs"].verdict == "not reproducible"
    assert cells["b", "macs"].evidence[0].model == "dat_t"
    assert "over all rows that share the choice" in cells["b", "macs"].reason
    other = shared.replace("4.50G", "4.38G").replace("4.59G", "4.39G")
    assert _cells(tmp_path, other)["a", "macs"].evidence[0].model == "dat_t_49_49"


def test_what_is_tried_may_make_no_difference(tmp_path: Path) -> None:
    """Strides change no parameter: the printed value differs, whichever was built."""
    tried = 'tried = [{ model = "dat_t" }, { model = "dat_t_49_49" }]'
    rows = f"""
    {{ name = "a", params = "28.4M", {tried} }},
    {{ name = "b", params = "28.3M", {tried} }},
    """
    cells = _cells(tmp_path, rows)
    assert cells["a", "params"].verdict == "wrong in print"  # Table 8 prints 28.32M
    assert cells["b", "params"].verdict == "agrees"
    cells = _cells(tmp_path, rows.replace("dat_t", "dat_s").replace('"28.4M"', '"49.8M"'))
    assert cells["a", "params"].verdict == "differs"
    assert "tried" not in cells["a", "params"].reason


def test_rules_of_a_plain_backbone(tmp_path: Path) -> None:
    cell = _cells(tmp_path, f'{{ name = "a", macs = "4.6G", {DAT_T} }},')["a", "macs"]
    readings = {reading.rule: reading.amount for reading in cell.readings}
    assert next(iter(readings)) == "fvcore"
    assert readings["fvcore"] == readings[tables.WITHOUT_RESIZING] == 4_588_941_408
    assert cell.follows == tuple(rule for rule in readings if rule != "mmdet")
    params = _cells(tmp_path, f'{{ name = "a", params = "28M", {DAT_T} }},')["a", "params"]
    assert params.readings == params.follows == ()


def test_other_conventions_and_architecture(tmp_path: Path) -> None:
    columns = """
[columns]
name = {}
flops = { quantity = "flops", convention = "torch", unit = "G" }
hooks = { quantity = "macs", convention = "mmdet", unit = "G" }
heads = { quantity = "heads" }
"""
    rows = (
        '{ name = "a", flops = "9.13", hooks = "4.30", heads = "12", '
        'build = { model = "dat_t", stage = 3 } },'
    )
    cells = _cells(tmp_path, rows, columns)
    assert cells["a", "flops"].verdict == "agrees"
    assert cells["a", "flops"].evidence[0].unit == "FLOP"
    assert cells["a", "heads"].verdict == "agrees"
    dat_t = paper_table("9").rows[6].build
    assert cells["a", "hooks"].amount == WORKSHOP.make(dat_t).totals["mmdet"]


def test_a_model_that_cannot_be_built_spoils_its_own_row_alone(tmp_path: Path) -> None:
    rows = f"""
    {{ name = "a", macs = "1G", build = {{ model = "torch.nn:Linear" }} }},
    {{ name = "c", macs = "4.6G", {DAT_T} }},
    {{ name = "d", macs = "1G", unbuilt = "nobody has its code" }},
    {{ name = "e", macs = "1G", build = {{ model = "dat_t", with = "retinanet" }} }},
    """
    cells = _cells(tmp_path, rows)
    verdicts = {row: (c.verdict, c.failed) for (row, _), c in cells.items()}
    assert verdicts == {
        "a": ("published only", True),
        "c": ("agrees", False),
        "d": ("published only", False),
        "e": ("differs", False),
    }
    assert "torch.nn:Linear needs arguments" in cells["a", "macs"].reason
    assert cells["d", "macs"].reason == "nobody has its code"
    assert cells["e", "macs"].evidence[0].model == "dat_t+retinanet"


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("dat_q", "unknown model 'dat_q'; did you mean dat_"),
        ("timm:swin_minute", "unknown timm model 'swin_minute'"),
        ("no_such_module_here:make", "there is no module 'no_such_module_here'"),
        ("torch.nn:Linaer", "unknown factory 'Linaer'; did you mean Linear"),
        ("config:none.yaml", "there is no file .*none.yaml"),
    ],
)
@pytest.mark.parametrize("key", ["build = {}", "tried = [{}]"])
def test_a_model_that_does_not_exist_is_an_error(
    tmp_path: Path, model: str, problem: str, key: str
) -> None:
    if model.startswith("timm:"):
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    build = key.replace("{}", f'{{ model = "{model}" }}')
    with pytest.raises(UsageError, match=rf"mine\.toml: row 2 \(b\).*: {problem}"):
        _cells(
            tmp_path, f'{{ name = "a", macs = "4.6G" }},\n{{ name = "b", macs = "1G", {build} }}'
        )


# A row that prints another model's figures: found by computing both.


def _table(**builds: str) -> TableData:
    """Table 2's rows of PVT-M and DPT-M, of other builds where told."""
    table = paper_table("2")
    rows = [row for row in table.rows if row.values["method"] in ("PVT-M", "DPT-M")]
    names = [row.values["method"].replace("-", "_") for row in rows]
    changed = (
        replace(row, build=Build(builds[name])) if name in builds else row
        for row, name in zip(rows, names, strict=True)
    )
    return replace(table, rows=tuple(changed))


def _copied(table: TableData) -> Mapping[tuple[str, str], Cell]:
    lines = compare(table, [], WORKSHOP).lines
    return {
        (line.labels["method"], name): line.cells[name]
        for line in lines
        for name in ("flops", "params")
    }


def test_pvt_m_has_the_figures_of_dpt_m() -> None:
    cells = _copied(_table())
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
    cells = _copied(_table(DPT_M="dpt_s"))
    assert {cell.verdict for cell in cells.values()} == {"differs"}


COPIES = """
[columns]
part = { title = "Part" }
method = { title = "Method" }
flops = { title = "FLOPs", quantity = "macs", unit = "G" }
params = { title = "#Param", quantity = "params", unit = "M" }
"""


def _mine(tmp_path: Path, **rows: tuple[str, str, str]) -> Mapping[tuple[str, str], Cell]:
    """Verdicts of rows of one part: FLOPs, parameters and a build."""
    lines = [
        f'{{ part = "a", method = "{name}", flops = "{flops}", params = "{params}", '
        f"build = {{ {build} }} }},"
        for name, (flops, params, build) in rows.items()
    ]
    return _copied(_written(tmp_path, "\n".join(lines), COPIES))


PVT_M, DPT_M = 'model = "pvt_m"', 'model = "dpt_m"'

DAT_S, SWIN_B = 'model = "dat_s"', 'model = "timm:swin_base_patch4_window7_224"'


@pytest.mark.parametrize(
    ("own", "other", "verdicts"),
    [
        # PVT-M's own 7G beside DPT-M's parameters: no evidence that both are DPT-M's.
        (("7G", "46M", PVT_M), ("7G", "46M", DPT_M), "agrees, differs; agrees, agrees"),
        # At a wrong input the parameters are still the model's own.
        (
            ("9.0G", "50M", 'model = "dat_s", res = "256"'),
            ("9.0G", "50M", DAT_S),
            "differs, agrees; agrees, agrees",
        ),
        # DAT-B at a wrong input: 87.88M is less than one in the last place from Swin-B's 87.8M.
        (
            ("15.5G", "87.8M", 'model = "dat_b", res = "256"'),
            ("15.5G", "87.8M", SWIN_B),
            "differs, differs; agrees, agrees",
        ),
        # Told apart by what is built, not by the first column, which may be a detector or a part.
        (
            ("6.9G", "46M", PVT_M),
            ("6.9G", "46M", DPT_M),
            "wrong in print, wrong in print; agrees, agrees",
        ),
    ],
    ids=["one of its own", "another input", "badly rounded", "told apart"],
)
def test_two_rows_of_the_same_print(
    tmp_path: Path, own: tuple[str, str, str], other: tuple[str, str, str], verdicts: str
) -> None:
    if SWIN_B in other:
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    cells = _mine(tmp_path, own=own, other=other)
    found = (
        ", ".join(cells[row, name].verdict for name in ("flops", "params"))
        for row in ("own", "other")
    )
    assert "; ".join(found) == verdicts
    if own[0] == "7G":
        assert "the row prints the figures of a, other" in cells["own", "params"].reason


def test_a_model_twice_is_no_copy_of_itself(tmp_path: Path) -> None:
    cells = _mine(tmp_path, one=("6.9G", "46M", PVT_M), two=("6.9G", "46M", PVT_M))
    assert {cell.verdict for cell in cells.values()} == {"differs"}
    assert all("the row prints" not in cell.reason for cell in cells.values())


def test_a_row_that_is_not_computed_is_noticed_and_no_evidence() -> None:
    cells = _copied(_table(DPT_M="no_such_model"))
    assert cells["PVT-M", "flops"].verdict == "differs"
    table = _table()
    rows = (replace(table.rows[0], build=None, expect={}), table.rows[1])
    cell = _copied(replace(table, rows=rows))["PVT-M", "flops"]
    assert cell.verdict == "published only"
    assert cell.reason.endswith("; it prints the same figures as the row of DPT-M, 224²")


def test_one_figure_in_common_is_a_coincidence() -> None:
    table = _table()
    other = table.rows[1]
    assert other.values["method"] == "DPT-M"
    printed = {**other.printed, "params": Printed.parse("47M")}
    table = replace(table, rows=(table.rows[0], replace(other, printed=printed)))
    assert _copied(table)["PVT-M", "flops"].verdict == "differs"


def test_rounding_twice() -> None:
    assert Printed.parse("25M").is_rounded_twice(24_485_864)  # 24.5, then 25
    assert not Printed.parse("24M").is_rounded_twice(24_485_864)
    assert not Printed.parse("25M").is_rounded_twice(24_449_999)
    assert Printed.parse("4.6G").is_rounded_twice(4_550_000_000)
    assert Printed.parse("9.8G").is_rounded_twice(9_814_000_000)
    table = paper_table("2")
    rows = tuple(row for row in table.rows if row.values["method"] == "PVT-S")
    cell = compare(replace(table, rows=rows), [], WORKSHOP).lines[0]
    assert cell.cells["params"].reason.endswith("the printed value is this figure rounded twice")
