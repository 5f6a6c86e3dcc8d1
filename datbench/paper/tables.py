"""Published tables as data: the values of a table's file. Free of torch."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeAlias, get_args

from typing_extensions import Required, TypedDict

from ..errors import UnknownNameError, UsageError
from ..files import read_text
from ..inputs import parse
from ..models.detectors.heads import HEADS, split
from ..models.spec import split_config
from ..records import check_keys, check_name, read_as
from ..setting import Bounds, Positive, Resolution
from .records import Verdict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Figures as a paper prints them: ``4.6G``, ``28.32M``, ``1038``.


_SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}

_PRINTED = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([KMGTP]?)(B?)\s*")


@dataclass(frozen=True)
class Printed:
    """A printed figure."""

    text: str  # as printed
    value: Decimal  # in units of one
    step: Decimal  # a one in the last printed place, in units of one
    prefix: str  # that the figure is in, printed or the column's

    @classmethod
    def parse(cls, text: str, unit: str = "", memory: bool = False) -> Printed:
        """Read a figure; `unit` is the column's prefix, for a figure printed without one.

        Args:
            memory: bytes, with an optional B and prefixes of 2^10, as tools show a GPU's memory.

        Raises:
            ValueError: it is not a number with a prefix of K, M, G, T or P.
        """
        match = _PRINTED.fullmatch(text)
        if match is None or (match[3] and not memory):
            raise ValueError(
                f"{text!r} is not a figure such as 4.6G or 28.32M (a number and a prefix)"
            )
        prefix = match[2] or unit
        scale = 1024 ** list(_SCALES).index(prefix) if memory else _SCALES[prefix]
        number = Decimal(match[1])
        exponent = number.as_tuple().exponent
        assert isinstance(exponent, int)
        return cls(text, number * scale, Decimal(1).scaleb(exponent) * scale, prefix)

    @property
    def low(self) -> Decimal:
        """The least figure that rounds to the printed value."""
        return self.value - self.step / 2

    @property
    def high(self) -> Decimal:
        """The largest figure that rounds to the printed value."""
        return self.value + self.step / 2

    def agrees(self, amount: int) -> bool:
        """Whether `amount` rounds to the printed value; a tie may go either way."""
        return self.low <= amount <= self.high

    def cuts_off(self, amount: int) -> bool:
        """Whether the printed value is `amount` with its last digits cut off."""
        return self.value <= amount < self.value + self.step

    def is_rounded_twice(self, amount: int) -> bool:
        """Whether `amount`, rounded to one place more and then again, is the printed value."""
        rounded = Decimal(amount)
        for step in (self.step / 10, self.step):
            rounded = (rounded / step).quantize(Decimal(1), ROUND_HALF_UP) * step
        return rounded == self.value

    def miss(self, amount: int) -> float | None:
        """The relative difference of `amount` from the printed value; None where that is 0."""
        return float((amount - self.value) / self.value) if self.value else None

    def apart_from(self, other: Printed) -> bool:
        """Whether no figure rounds to both."""
        return self.high < other.low or other.high < self.low


Computed = Literal["macs", "flops", "params", "pairs", "dim", "window", "heads", "groups"]

COMPUTED: tuple[Computed, ...] = get_args(Computed)
"""What can be computed: a count in MACs or FLOPs, parameters, or a size of the architecture."""

CARRIED = {
    "accuracy": "accuracy comes from training and is carried as published",
    "memory": "the table's file gives no batch that this memory would be simulated at",
    "throughput": "throughput belongs to a machine, and this table counts",
    "published": "this column is carried as published",
}
"""What is carried as published, with the reason."""

HOOKS_AND_PRODUCTS = "hooks + products"
"""mmcv's hooks on modules, and the products of attention that no hook sees: what a script counts
that adds these by hand to mmdet's or mmseg's `get_flops`."""

WITHOUT_RESIZING = "fvcore without resizing"
"""fvcore's rules without those of nearest and bilinear resizing of maps (`aten::upsample_*`). No
counter is known to do so; it is there to be compared with."""

ALONE = "multiply-adds"
"""Multiply-adds alone."""

READINGS = (HOOKS_AND_PRODUCTS, WITHOUT_RESIZING, "fvcore", ALONE, "mmdet")
"""By which a printed number of multiply-adds may have been counted."""

Counting = Literal["trainable", "frozen", "masks"]

COUNTING: tuple[Counting, ...] = get_args(Counting)
"""What a print may count as a parameter: masks are buffers of that name."""


@dataclass(frozen=True)
class Build:
    """What a row is computed from."""

    model: str  # any name that `datbench.models.resolve` knows
    res: Resolution | None = None  # the input; None: the model's own
    head: str | None = None  # on the backbone, such as ``retinanet``; ``with`` in the file
    stage: int | None = None  # 1 to 4, for sizes of the architecture
    inputs: tuple[str, ...] = ()  # what the model takes in place of an image: `datbench.inputs`


@dataclass(frozen=True)
class ColumnData:
    """A column of the file; one without a quantity is a label."""

    name: str
    title: str
    quantity: str | None = None
    unit: str = ""
    convention: str = "fvcore"
    batch: int | None = None  # images, of a column of memory; such a column is computed

    @property
    def is_computed(self) -> bool:
        """Whether datbench computes it."""
        return self.quantity in COMPUTED or self.batch is not None


@dataclass(frozen=True)
class RatioData:
    """A quotient of two rows, by their labels, that the paper states."""

    column: str
    row: str
    over: str
    printed: str
    expect: Literal["agrees", "differs"] = "agrees"


@dataclass(frozen=True)
class RowData:
    """A row of the file."""

    number: int  # from 1, for messages
    values: dict[str, str]  # as printed, by column; a cell may be left out
    printed: dict[str, Printed]  # the figures of computed columns
    build: Build | None = None  # None: nothing is built (`unbuilt` says why), or only `tried`
    tried: tuple[Build, ...] = ()  # configurations of which none is known to be the printed one
    unbuilt: str = "the file names nothing to build"
    counting: tuple[str, ...] = ("trainable",)  # what the row counts as parameters
    expect: dict[str, Verdict] = field(default_factory=dict)  # a column's, where not ``agrees``
    # Rows of the same word have the same configuration, by its place in `tried`.
    together: str = ""

    @property
    def builds(self) -> tuple[Build, ...]:
        """What may be built for the row: one thing, what is tried, or nothing."""
        return self.tried if self.build is None else (self.build,)


@dataclass(frozen=True)
class TableData:
    """A table's file."""

    table: str
    title: str
    source: str
    columns: tuple[ColumnData, ...]
    rows: tuple[RowData, ...]
    notes: tuple[str, ...] = ()
    path: Path | None = None
    ratios: tuple[RatioData, ...] = ()

    def row(self, label: str) -> RowData:
        """The row of this label.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if self.label(row) == label:
                return row
        raise KeyError(label)

    def label(self, row: RowData) -> str:
        """The row in words: its labels, and its number where another row has the same."""
        label = self._labels(row)
        alike = sum(self._labels(other) == label for other in self.rows)
        return label if alike == 1 else f"{label} (row {row.number})"

    def _labels(self, row: RowData) -> str:
        names = [c.name for c in self.columns if c.quantity is None]
        return ", ".join(row.values[name] for name in names if row.values.get(name))


# Reading a table's file. Whatever is wrong is one line that names file, row and column.


_Convention = Literal[
    "fvcore", "torch", "mmdet", "strict", "hooks + products", "fvcore without resizing"
]


class _ColumnEntry(TypedDict, total=False):
    title: str
    quantity: Literal[Computed, "accuracy", "memory", "throughput", "published"]
    unit: Literal["", "K", "M", "G", "T"]
    convention: _Convention
    batch: Positive


_BuildEntry = TypedDict(
    "_BuildEntry",
    {
        "model": Required[str],
        "res": str,
        "with": str,
        "stage": Annotated[int, Bounds(1, 4)],
        "inputs": list[str],
    },
    total=False,
)


class _RowEntry(TypedDict, total=False):
    """Beside the cells, by column."""

    build: _BuildEntry
    tried: list[_BuildEntry]
    together: str
    unbuilt: str
    counting: list[Counting]
    expect: dict[str, Verdict]


class _TableEntry(TypedDict, total=False):
    table: str
    title: str
    source: str
    convention: _Convention
    notes: list[str]
    columns: Required[dict[str, _ColumnEntry]]
    rows: Required[list[dict[str, Any]]]
    ratios: list[RatioData]


_Columns: TypeAlias = tuple[ColumnData, ...]

_ROW_KEYS = tuple(_RowEntry.__annotations__)


_CSV: dict[str, _ColumnEntry] = {
    "flops": {"quantity": "macs", "unit": "G"},
    "macs": {"quantity": "macs", "unit": "G"},
    "params": {"quantity": "params", "unit": "M"},
    "top1": {"quantity": "accuracy"},
    "throughput": {"quantity": "throughput"},
}
"""What a column of a CSV file holds, by its heading; others are labels.

Papers print multiply-adds in G and parameters in M; a figure may have another prefix of its own.
"""


def _from_csv(path: Path) -> dict[str, Any]:
    """The content of a CSV file as a TOML file would have it: `model` and `res` say what to build.

    Raises:
        UsageError: it has no such columns, or a row has others.
    """
    lines = read_text(path).removeprefix("\ufeff").splitlines()
    heads, *rows = [
        [cell.strip() for cell in row] for row in csv.reader(lines, skipinitialspace=True) if row
    ] or [[]]
    heads = [head.lower() for head in heads]
    if "model" not in heads or not set(heads) & set(_CSV) or len(set(heads)) < len(heads):
        _fail(f"{path}", f"it needs a column model, and some of {', '.join(_CSV)}, once each")
    found = []
    for number, row in enumerate(rows, start=1):
        if len(row) != len(heads):
            _fail(f"{path}: row {number}", f"write {len(heads)} cells, as the heading has")
        cells = {head: cell for head, cell in zip(heads, row, strict=True) if cell}
        found.append({**cells, "build": {n: cells[n] for n in ("model", "res") if n in cells}})
    return {"columns": {head: _CSV.get(head, {}) for head in heads}, "rows": found}


def template() -> str:
    """A table's file to fill in, with comments."""
    return Path(__file__).with_name("template.toml").read_text(encoding="utf-8")


def read_table(path: Path) -> TableData:
    """The table in a TOML or CSV file.

    Raises:
        UsageError: the file cannot be read, or says something that a table does not; the message
            names file, row and column.
    """
    if not path.exists():
        raise UsageError(
            f"there is no file {path}; `datbench table template --out FILE.toml` writes one to "
            "fill in."
        )
    if path.suffix.lower() == ".csv":
        return _table(path, _from_csv(path))
    try:
        content = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # numbers and nesting beyond Python's limits too
        raise UsageError(f"{path} is not valid TOML: {error}.") from error
    return _table(path, content)


def _table(path: Path, content: dict[str, Any]) -> TableData:
    check_keys(content, _TableEntry.__annotations__, f"{path}")
    entry: _TableEntry = read_as(_TableEntry, content, f"{path}")
    for name in entry["columns"]:
        if name in _ROW_KEYS:
            _fail(f"{path}: column {name}", f"{name} has a meaning of its own; give another name")
    convention = entry.get("convention", "fvcore")
    columns = tuple(
        _column(f"{path}: column {name}", name, column, convention)
        for name, column in entry["columns"].items()
    )
    if all(column.quantity is not None for column in columns):
        _fail(f"{path}", "no column is a label (one without a quantity), to name its rows by")
    if not entry["rows"]:
        _fail(f"{path}", "rows is empty: write an array of tables, one for each row")
    table = TableData(
        _joined(entry.get("table", path.stem)),
        _joined(entry.get("title", "")),
        _joined(entry.get("source", str(path))),
        columns,
        tuple(_row(path, n, row, columns) for n, row in enumerate(entry["rows"], start=1)),
        tuple(entry.get("notes", ())),
        path,
        tuple(entry.get("ratios", ())),
    )
    _check_together(table)
    computed = [column.name for column in columns if column.is_computed]
    for number, ratio in enumerate(table.ratios, start=1):
        where = f"{path}: ratio {number}"
        check_name("column", ratio.column, computed, f"{where}: column")
        labels = [table.label(r) for r in table.rows if ratio.column in r.printed and r.build]
        check_name("row", ratio.row, labels, f"{where}: row")
        check_name("row", ratio.over, labels, f"{where}: over")
        _printed(f"{where}: printed", ratio.printed)
    return table


def _column(where: str, name: str, entry: _ColumnEntry, convention: str) -> ColumnData:
    quantity, batch = entry.get("quantity"), entry.get("batch")
    own = entry.get("convention", convention)
    counts_flops = own in ("torch", "strict")
    if quantity in ("macs", "flops") and counts_flops is not (quantity == "flops"):
        _fail(where, f"{own} counts {'FLOPs' if counts_flops else 'MACs'}, not {quantity}")
    if batch is not None and quantity != "memory":
        _fail(f"{where}: batch", "write a number of images, of a column of memory")
    title = _joined(entry.get("title", name))
    return ColumnData(name, title, quantity, entry.get("unit", ""), own, batch)


def _row(path: Path, number: int, values: dict[str, Any], columns: _Columns) -> RowData:
    where = f"{path}: row {number}"
    first = values.get(columns[0].name)
    if isinstance(first, str):
        where += f" ({first})"
    names = [column.name for column in columns]
    check_keys(values, (*names, *_ROW_KEYS), where)
    own = {name: value for name, value in values.items() if name in _ROW_KEYS}
    entry: _RowEntry = read_as(_RowEntry, own, where)
    texts = {n: _cell(f"{where}, column {n}", values[n]) for n in names if n in values}
    if not any(column.quantity is None and column.name in texts for column in columns):
        _fail(where, "it has no label")
    sources = [key for key in ("build", "tried", "unbuilt") if key in entry]
    if len(sources) > 1:
        _fail(where, f"it has {' and '.join(sources)}; a row is computed in one way")
    printed = {
        c.name: _printed(f"{where}, column {c.name}", texts[c.name], c.unit, c.quantity == "memory")
        for c in columns
        if c.is_computed and c.name in texts
    }
    counting = tuple(entry.get("counting", ("trainable",)))
    if not counting or len(set(counting)) < len(counting):
        _fail(f"{where}: counting", f"write some of {', '.join(COUNTING)}, once each")
    expect = entry.get("expect", {})
    if expect and "build" not in entry and "tried" not in entry:
        _fail(f"{where}: expect", "nothing is computed for this row")
    check_keys(expect, printed, f"{where}: expect")
    build = _build(path, f"{where}: build", entry["build"]) if "build" in entry else None
    tried = tuple(
        _build(path, f"{where}: tried {n}", each)
        for n, each in enumerate(entry.get("tried", ()), start=1)
    )
    unbuilt = _joined(entry.get("unbuilt", "the file names nothing to build"))
    together = _joined(entry.get("together", ""))
    return RowData(number, texts, printed, build, tried, unbuilt, counting, expect, together)


def _build(path: Path, where: str, entry: _BuildEntry) -> Build:
    model, res = entry["model"], entry.get("res")
    if model.startswith("config:"):  # its path is relative to the table's file, as people expect
        model = f"config:{path.parent / Path(model.removeprefix('config:')).expanduser()}"
        file, _ = split_config((split(model) or (model,))[0])
        if not file.is_file():
            _fail(f"{where}: model", f"there is no file {file}")
    if "with" in entry:
        check_name("head", entry["with"], HEADS, f"{where}: with")
    try:
        size = Resolution.parse(res) if res else None
        inputs = tuple(entry.get("inputs", ()))
        parse(inputs)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return Build(model, size, entry.get("with"), entry.get("stage"), inputs)


def _check_together(table: TableData) -> None:
    first: dict[str, RowData] = {}
    for row in table.rows:
        other = first.setdefault(row.together, row) if row.together else row
        if len(row.tried) != len(other.tried) or (row.together and not row.tried):
            _fail(
                f"{table.path}: row {row.number}: together",
                f"write as many tried as the first row of {row.together!r} has, one or more",
            )


def _cell(where: str, value: Any) -> str:
    if not isinstance(value, str):
        _fail(where, f'write what is printed in quotes, "{value}": its digits tell the rounding')
    return _joined(value)


def _printed(where: str, text: str, unit: str = "", memory: bool = False) -> Printed:
    try:
        return Printed.parse(text, unit, memory)
    except ValueError as error:
        _fail(where, str(error))


def _joined(text: str) -> str:
    """A text on one line, as a file may break it."""
    return " ".join(text.split())


def _fail(where: str, problem: str) -> NoReturn:
    raise UsageError(f"{where}: {problem}.")


# The tables that come with datbench.


FILES = {
    **{str(number): f"table{number}.toml" for number in range(1, 10)},
    "datpp": "datpp.toml",
    "davit": "davit.toml",
    "davit_dense": "davit_dense.toml",
    "nat": "nat.toml",
}
"""File by the table's name, in the order in which `datbench table all` prints them."""


def tables_directory() -> Path:
    """Where the tables are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_tables"
    return installed if installed.is_dir() else package.parent / "tables"


@cache
def paper_table(name: str) -> TableData:
    """One of the papers' tables.

    Raises:
        UnknownNameError: there is no such table; the message lists what there is.
    """
    if name not in FILES:
        raise UnknownNameError(
            f"unknown table {name!r}; there are {', '.join(FILES)} and all. "
            "FILE.toml or FILE.csv is a table of your own."
        )
    return read_table(tables_directory() / FILES[name])


def paper_tables() -> tuple[TableData, ...]:
    """Every table of the papers."""
    return tuple(paper_table(name) for name in FILES)


def files_among(names: Iterable[str]) -> tuple[list[str], list[Path]]:
    """Names, and tables' files: those with their suffix, or with a path and no model's colon."""
    given = list(names)
    files = [
        name
        for name in given
        if name.lower().endswith((".toml", ".csv")) or ("/" in name and ":" not in name)
    ]
    return [name for name in given if name not in files], [Path(name) for name in files]


def chosen_tables(names: Iterable[str], files: Iterable[Path]) -> list[TableData]:
    """The tables of the papers with these names (``all``: every one), and those in `files`.

    The folder of a file is put on Python's search path: a table's own factories are there.

    Raises:
        UsageError: nothing was named, a name is unknown, or a file is wrong.
    """
    expanded = [each for name in names for each in (FILES if name == "all" else (name,))]
    found = [paper_table(name) for name in dict.fromkeys(expanded)]
    for path in dict.fromkeys(files):
        table = read_table(path)
        if table.table in FILES:
            raise UsageError(f"{path}: table {table.table!r} is one of the papers'; choose a name.")
        found.append(table)
        sys.path.insert(0, str(path.parent.resolve()))
    if not found:
        raise UsageError(f"name a table: {', '.join(FILES)} or all; or a TOML file.")
    return found
