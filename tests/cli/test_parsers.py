"""What is read back from text: resolutions, documents, CSV, figures."""

import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datbench import units
from datbench.errors import DatbenchError, ResolutionError, UnknownNameError, UsageError
from datbench.models.dat import REGISTRY
from datbench.records import LARGEST, VERSION, document, dumps, parse, parse_json
from datbench.render.table import Column, Table
from datbench.render.text import to_csv, to_latex, to_markdown
from datbench.setting import MAX_SIDE, Resolution, Setting

FEW = settings(max_examples=60, deadline=None)
sides = st.integers(1, MAX_SIDE)


@FEW
@given(width=sides, height=sides, cross=st.sampled_from("xX×"), blank=st.sampled_from(["", " "]))
def test_a_resolution_is_read_back(width: int, height: int, cross: str, blank: str) -> None:
    size = Resolution(width, height)
    assert Resolution.parse(str(size)) == size
    assert Resolution.parse(f"{blank}{width}{cross}{height}{blank}") == size
    assert Resolution.parse(str(width)) == Resolution(width, width) == Resolution(width)
    for said in (str(size), (width, height), [width, height], size):
        assert Setting(said).resolution == Resolution(said) == size  # type: ignore[arg-type]


@FEW
@given(st.integers().filter(lambda side: not 1 <= side <= MAX_SIDE), sides)
def test_a_side_out_of_range_is_refused(wrong: int, right: int) -> None:
    for text in (f"{wrong}", f"{wrong}x{right}", f"{right}x{wrong}"):
        with pytest.raises(ResolutionError):
            Resolution.parse(text)


@FEW
@given(st.one_of(st.text(), st.from_regex(r"\A[\d.xX×+_-]{0,12}\Z")))
@example("٢٢٤")
@example("1_000")
@example("+224")
@example("224X")
def test_any_text_is_a_resolution_or_an_error_that_shows_it(text: str) -> None:
    try:
        size = Resolution.parse(text)
    except ResolutionError as error:
        assert str(error).startswith("resolution ")  # noqa: PT017
    else:
        assert re.fullmatch(r"\d+([xX×]\d+)?", text.strip(), re.ASCII)
        assert text.strip().lower().replace("×", "x") in (str(size), str(size.width))


@FEW
@given(st.text(max_size=20))
def test_another_name_is_suggested(text: str) -> None:
    if text not in REGISTRY:
        error = UnknownNameError.among("model", text, REGISTRY, "`datbench models` lists them all.")
        assert repr(text) in str(error)
        assert "datbench models" in str(error)


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-LARGEST, LARGEST),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)


def _read(text: str, name: str) -> dict[str, Any]:
    return parse(parse_json(text, name), name).document()


@FEW
@given(st.lists(st.dictionaries(st.text(), values, max_size=5), max_size=5))
def test_a_document_is_read_back(rows: list[dict[str, object]]) -> None:
    written = document("env", rows, {"datbench": "0.1.0"})
    assert _read(dumps(written), "x.json") == written
    text = dumps(written)
    for cut in range(0, len(text) - 2, max(len(text) // 20, 1)):
        with pytest.raises(UsageError):
            _read(text[:cut], "x.json")


@FEW
@given(st.text())
@example("[" * 100_000)
@example("9" * 5000)
@example('{"format": "datbench"}')
@example('{"format": "datbench", "version": "1"}')
@example(json.dumps({"format": "datbench", "version": VERSION + 1}))
@example("null")
def test_any_other_text_is_no_document(text: str) -> None:
    with pytest.raises(UsageError, match=r"x\.json"):
        _read(text, "x.json")


words = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=12)


@FEW
@given(st.lists(st.tuples(words, st.integers(), st.floats(allow_nan=False)), min_size=1))
def test_csv_is_read_back_exactly(rows: list[tuple[str, int, float]]) -> None:
    columns = (Column("name", "Name"), Column("n", "N", units.integer), Column("x", "X", str))
    text = to_csv([Table(columns, tuple(rows), "a title", ("a note",))])
    head, *body = csv.reader(io.StringIO(text))
    assert head == ["name", "n", "x"]
    assert [(name, int(n), float(x)) for name, n, x in body] == rows


@FEW
@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_text_of_others_cannot_break_a_table(cells: list[str]) -> None:
    table = Table((Column("a", "a"), Column("b", "b")), tuple((cell, "end") for cell in cells))
    latex = to_latex([table])
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")].splitlines()[1:]
    assert len(body) == len(cells)
    assert all(line.endswith(r"& end \\") for line in body)
    latex = latex.replace("~", "") if any("\xa0" in cell for cell in cells) else latex
    safe = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|text\w+)\{\}", "", latex)
    assert not re.search(r"(?<!\\)[#$_^~]", safe)
    markdown = to_markdown([table]).splitlines()
    assert len(markdown) == 2 + len(cells)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in markdown} == {3}


@FEW
@given(st.integers(0, 10**18), st.sampled_from(["MAC", "FLOP", ""]))
@example(999_999, "MAC")
@example(999_999_999_999, "FLOP")
def test_an_amount_keeps_its_value_and_its_unit(value: int, unit: str) -> None:
    text = units.amount(value, unit)
    match = re.fullmatch(r"([\d.]+)(?: ([KMGTP]?)(MAC|FLOP)?)?", text)
    assert match, text
    scale = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}[match[2] or ""]
    assert float(match[1]) * scale == pytest.approx(value, rel=1e-3)
    assert float(match[1]) < 1000 or scale == 1e15
    assert (match[3] or "") == unit


@FEW
@given(st.integers(0, 2**60))
@example(2**20 - 1)
def test_a_size_keeps_its_value(value: int) -> None:
    number, unit = units.size(value).split()
    scale = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[unit]
    assert float(number) * scale == pytest.approx(value, rel=0.06)
    assert float(number) < 1024 or unit == "TiB"


@FEW
@given(st.text())
@example("\x1b[2J\udcff\u202e")
def test_printable_text_is_one_harmless_line(text: str) -> None:
    shown = units.printable(text)
    assert shown.isprintable()
    assert units.printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_every_error_has_a_documented_exit_code() -> None:
    def below(kind: type[DatbenchError]) -> set[type[DatbenchError]]:
        return {kind}.union(*(below(sub) for sub in kind.__subclasses__()))

    found = {kind.__name__: kind.exit_code for kind in below(DatbenchError)}
    assert (
        found.items()
        >= {
            "UsageError": 2,
            "ResolutionError": 2,
            "UnknownNameError": 2,
            "CheckpointError": 2,
            "CheckFailed": 1,
            "MissingError": 3,
            "AmbiguousError": 4,
            "MeasurementError": 5,
        }.items()
    )
    assert set(found.values()) <= {1, 2, 3, 4, 5}
