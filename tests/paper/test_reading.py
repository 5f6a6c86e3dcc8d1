"""Files of tables: what is wrong is named, with file, row and column."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datbench.errors import DatbenchError, UsageError
from datbench.paper.tables import read_table

GOOD = """
table = "mine"
title = "A table"
source = "My paper, Table 1"
convention = "fvcore"
notes = ["a note"]
ratios = [{ column = "flops", row = "DAT-S", over = "DAT-S", printed = "2.6" }]

rows = [
  { name = "DAT-S", flops = "9.0G", params = "50M", build = { model = "dat_s", res = "224" } },
  { name = "Mine", flops = "1G", tried = [{ model = "dat_s" }], COUNTING, expect = EXPECT },
  { name = "Theirs", flops = "1.0G", unbuilt = "no code" },
]

[columns]
name = { title = "Model" }
flops = { title = "FLOPs", quantity = "macs", unit = "G" }
params = { quantity = "params", unit = "M" }
top1 = { title = "Top-1", quantity = "accuracy" }
""".replace("EXPECT", '{ flops = "differs" }').replace("COUNTING", 'counting = ["masks"]')


def _read(tmp_path: Path, text: str | bytes):
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_table(path)


def test_a_good_file(tmp_path: Path) -> None:
    table = _read(tmp_path, GOOD)
    assert (table.table, table.title, table.notes) == ("mine", "A table", ("a note",))
    assert [c.title for c in table.columns] == ["Model", "FLOPs", "params", "Top-1"]
    first, second, third = table.rows
    assert table.label(first) == "DAT-S"
    assert (first.build.model, str(first.build.res)) == ("dat_s", "224x224")
    assert set(first.printed) == {"flops", "params"}
    assert (second.build, second.expect) == (None, {"flops": "differs"})
    assert [build.model for build in second.tried] == ["dat_s"]
    assert (third.build, third.unbuilt) == (None, "no code")
    assert second.counting == ("masks",)


BUILD, SIZE = 'model = "dat_s"', 'res = "224"'
EXPECTED, UNBUILT = '{ flops = "differs" }', 'unbuilt = "no code"'

BAD = [
    # What is replaced in the good file, by what, and what is said then.
    ("rows = [", "rows = ", "is not valid TOML: "),
    ("rows", "lines", "unknown key 'lines'; did you mean"),
    ("9.0G", "9,0G", "row 1 (DAT-S), column flops: '9,0G' is not a figure such as 4.6G"),
    ('"9.0G"', "9.0", 'row 1 (DAT-S), column flops: write what is printed in quotes, "9.0"'),
    ("params =", "param =", "row 1 (DAT-S): unknown key 'param'; did you mean params"),
    ('"macs"', '"mac"', "columns.flops.quantity: must be one of macs, flops, params"),
    ('"M" }', '"MB" }', "columns.params.unit: must be one of \"\", K, M, G, T, not 'MB'"),
    ('"fvcore"', '"thop"', "convention: must be one of fvcore, torch"),
    ('"macs"', '"flops"', "column flops: fvcore counts MACs, not flops"),
    ('"fvcore"', '"torch"', "column flops: torch counts FLOPs, not macs"),
    ("top1", "build", "column build: build has a meaning of its own"),
    ('title = "Model"', 'quantity = "published"', "no column is a label"),
    ('name = "Mine", ', "", "row 2: it has no label"),
    (BUILD, 'name = "dat_s"', "row 1 (DAT-S): build.name: is not a known field"),
    (f"{BUILD}, ", "", "row 1 (DAT-S): build.model: is missing"),
    ('"224"', '"12y0"', "row 1 (DAT-S): build: resolution '12y0' is not understood"),
    (SIZE, "stage = 5", "row 1 (DAT-S): build.stage: must be at most 4, not 5"),
    (SIZE, "stage = 1.0", "build.stage: must be a whole number, not 1.0"),
    (SIZE, "stage = true", "build.stage: must be a whole number, not True"),
    (SIZE, 'with = "x"', "row 1 (DAT-S): build: with: unknown head 'x'; choose one of retinanet"),
    ('"differs"', '"wrong"', "row 2 (Mine): expect.flops: must be one of agrees, differs"),
    (EXPECTED, '{ name = "differs" }', "row 2 (Mine): expect: unknown key 'name'"),
    (
        EXPECTED,
        '{ params = "differs" }',
        "row 2 (Mine): expect: unknown key 'params'; choose one of flops",
    ),
    (
        '"masks"',
        '"mask"',
        "row 2 (Mine): counting[1]: must be one of trainable, frozen, masks, not 'mask'",
    ),
    ('["masks"]', "[]", "counting: write some of trainable"),
    ('["masks"]', '["masks", "masks"]', "counting: write some of"),
    ('["a note"]', '"a note"', "notes: must be a list, not 'a note'"),
    (UNBUILT, 'tried = "dat_t"', "row 3 (Theirs): tried: must be a list"),
    (
        UNBUILT,
        'together = "x"',
        "row 3: together: write as many tried as the first row of 'x' has, one or more",
    ),
    (
        f"{UNBUILT} }}",
        'together = "x", tried = [{ model = "dat_t" }] }, { name = "Fourth", together = "x", '
        'tried = [{ model = "dat_t" }, { model = "dat_s" }] }',
        "row 4: together: write as many tried",
    ),
    (
        UNBUILT,
        'unbuilt = "x", build = { model = "dat_t" }',
        "row 3 (Theirs): it has build and unbuilt; a row is computed in one way",
    ),
    (UNBUILT, f"expect = {EXPECTED}", "row 3 (Theirs): expect: nothing is computed for this row"),
    (
        '"macs"',
        '"macs", batch = 64',
        "column flops: batch: write a number of images, of a column of memory",
    ),
    ('row = "DAT', 'row = "DAT-X', "ratio 1: row: unknown row 'DAT-X-S'; did you mean DAT-S?"),
    (
        'column = "flops"',
        'column = "top1"',
        "ratio 1: column: unknown column 'top1'; choose one of flops, params",
    ),
    ('"2.6"', '"2,6"', "ratio 1: printed: '2,6' is not a figure"),
]

WHOLE = [
    (b"\xff\xfe\x00", "is not UTF-8 text (byte 0)"),
    ("", "columns: is missing"),
    ('rows = "x"\n[columns]\nname = {}\n', "rows: must be a list, not 'x'"),
    ('rows = ["x"]\n[columns]\nname = {}\n', "rows[1]: must be an object, not 'x'"),
]


@pytest.mark.parametrize(
    ("text", "message"),
    [*WHOLE, *((GOOD.replace(old, new, 1), message) for old, new, message in BAD)],
    ids=lambda value: "" if "\n" in str(value) else str(value)[:40],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        _read(tmp_path, text)
    said = str(refused.value)
    assert message in said
    assert "mine.toml" in said
    assert "\n" not in said.strip() or "TOML" in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match=path.name):
            read_table(path)


def test_what_editors_do_to_a_file(tmp_path: Path) -> None:
    """A byte order mark, line breaks and blanks inside a text."""
    text = GOOD.replace('title = "A table"', 'title = """ A\n  table """')
    table = _read(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert table.title == "A table"


def test_a_configuration_is_beside_its_table(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/mine.yaml").touch()
    for tail in ("", "+retinanet", ",code=2022-01", ",code=2022-01+retinanet"):
        name = f"config:sub/mine.yaml{tail}"
        text = GOOD.replace('model = "dat_s", res = "224"', f'model = "{name}"')
        build = _read(tmp_path, text).rows[0].build
        assert build.model == name.replace("sub", f"{tmp_path}/sub")


def test_rows_with_the_same_label_are_told_apart(tmp_path: Path) -> None:
    table = _read(tmp_path, GOOD.replace('"Theirs"', '"Mine"'))
    assert [table.label(row) for row in table.rows] == ["DAT-S", "Mine (row 2)", "Mine (row 3)"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Cut, doubled or overwritten anywhere: never another exception."""
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(len(GOOD), start + 40)))
    middle = data.draw(
        st.sampled_from(["", "{", "]", '"', "=", "1.5", "true", "{}", "[]", "é", "\x00"])
    )
    with contextlib.suppress(DatbenchError):
        _read(tmp_path, GOOD[:start] + middle + GOOD[end:])
