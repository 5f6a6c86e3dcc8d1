"""Published tables as data: the values of a table's file. Free of torch."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, cast

from ..errors import UnknownNameError, UsageError
from ..models.detectors.heads import HEADS
from ..setting import Resolution
from .records import VERDICTS, Verdict

# Figures as a paper prints them: ``4.6G``, ``28.32M``, ``1038``. The print has a last place.


_SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}

_PRINTED = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([KMGTP]?)(B?)\s*")


@dataclass(frozen=True)
class Printed:
    """A printed figure."""

    text: str  # as printed
    value: Decimal  # in units of one
    step: Decimal  # one in the last printed place, in units of one
    prefix: str  # that the figure is in, printed or the column's

    @classmethod
    def parse(cls, text: str, unit: str = "", memory: bool = False) -> Printed:
        """Read a figure; `unit` is the column's prefix for a print that has none.

        Args:
            memory: bytes, with an optional B and prefixes of 2^10, as tools show a GPU's memory.

        Raises:
            ValueError: it is no number with a prefix of K, M, G, T or P.
        """
        match = _PRINTED.fullmatch(text)
        if match is None or (match[3] and not memory):
            raise ValueError(
                f"{text!r} is no figure such as 4.6G or 28.32M (a number and a prefix)"
            )
        prefix = match[2] or unit
        scale = 1024 ** list(_SCALES).index(prefix) if memory else _SCALES[prefix]
        number = Decimal(match[1])
        exponent = number.as_tuple().exponent
        assert isinstance(exponent, int)
        return cls(text, number * scale, Decimal(1).scaleb(exponent) * scale, prefix)

    @property
    def low(self) -> Decimal:
        """The least figure that rounds to the print."""
        return self.value - self.step / 2

    @property
    def high(self) -> Decimal:
        """The largest figure that rounds to the print."""
        return self.value + self.step / 2

    def agrees(self, amount: int) -> bool:
        """Whether `amount`, rounded to the printed place, is the print; a tie may go either way."""
        return self.low <= amount <= self.high

    def cuts_off(self, amount: int) -> bool:
        """Whether the print is `amount` with its last digits cut off."""
        return self.value <= amount < self.value + self.step

    def is_rounded_twice(self, amount: int) -> bool:
        """Whether the print is `amount` rounded to one place more, and that rounded again."""
        rounded = Decimal(amount)
        for step in (self.step / 10, self.step):
            rounded = (rounded / step).quantize(Decimal(1), ROUND_HALF_UP) * step
        return rounded == self.value

    def miss(self, amount: int) -> float | None:
        """How far `amount` is from the print, relative to the print; None of a printed 0."""
        return float((amount - self.value) / self.value) if self.value else None

    def apart_from(self, other: Printed) -> bool:
        """Whether no figure rounds to both."""
        return self.high < other.low or other.high < self.low


COMPUTED = ("macs", "flops", "params", "pairs", "dim", "window", "heads", "groups")
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

COUNTING = ("trainable", "frozen", "masks")
"""What a print may count as a parameter: masks are buffers of that name."""


@dataclass(frozen=True)
class Build:
    """What a row is computed from."""

    model: str  # any name that `datbench.models.resolve` knows
    res: Resolution | None = None  # the input; None: the model's own
    head: str | None = None  # on the backbone, such as ``retinanet``; ``with`` in the file
    stage: int | None = None  # 1 to 4, for sizes of the architecture


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
    expect: Verdict = "agrees"


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


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_CONVENTIONS = ("fvcore", "torch", "mmdet", "strict", HOOKS_AND_PRODUCTS, WITHOUT_RESIZING)

_UNITS = ("", "K", "M", "G", "T")

_ROW_KEYS = ("build", "tried", "together", "unbuilt", "counting", "expect")


def read_table(path: Path) -> TableData:
    """The table in a TOML file.

    Raises:
        UsageError: the file cannot be read, or says something that a table does not; the message
            names file, row and column.
    """
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {error}.") from error
    return _Reader(path).table(content)


class _Reader:
    """Checks every value; `where` grows as it goes down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def table(self, content: Mapping[str, Any]) -> TableData:
        where = f"{self.path}"
        known = ("table", "title", "source", "convention", "notes", "rows", "columns", "ratios")
        self._known(where, content, known)
        convention = self._text(where, content, "convention", "fvcore")
        self._one_of(f"{where}: convention", convention, _CONVENTIONS)
        columns = tuple(
            self._column(name, entry, convention)
            for name, entry in self._mapping(f"{where}: columns", content.get("columns")).items()
        )
        if all(column.quantity is not None for column in columns):
            self._fail(where, "no column is a label (one without a quantity), to name its rows by")
        entries = content.get("rows")
        if not isinstance(entries, list) or not entries:
            self._fail(where, "rows is missing: an array of tables, one for each row")
        table = TableData(
            self._text(where, content, "table", self.path.stem),
            self._text(where, content, "title", ""),
            self._text(where, content, "source", str(self.path)),
            columns,
            tuple(self._row(n, entry, columns) for n, entry in enumerate(entries, start=1)),
            self._texts(f"{where}: notes", content.get("notes", [])),
            self.path,
        )
        self._check_together(where, table)
        ratios = content.get("ratios", [])
        if not isinstance(ratios, list):
            self._fail(f"{where}: ratios", "write an array of tables")
        found = [self._ratio(n, entry, table) for n, entry in enumerate(ratios, start=1)]
        return replace(table, ratios=tuple(found))

    def _ratio(self, number: int, entry: Any, table: TableData) -> RatioData:
        where = f"{self.path}: ratio {number}"
        values = self._mapping(where, entry)
        self._known(where, values, ("column", "row", "over", "printed", "expect"))
        column, row, over, printed = (
            self._text(where, values, key, "") for key in ("column", "row", "over", "printed")
        )
        self._one_of(f"{where}: column", column, [c.name for c in table.columns if c.is_computed])
        labels = [table.label(r) for r in table.rows if column in r.printed and r.build]
        for key, label in (("row", row), ("over", over)):
            if label not in labels:
                raise UsageError(f"{where}: {key}: {UnknownNameError.among('row', label, labels)}")
        try:
            Printed.parse(printed)
        except ValueError as error:
            self._fail(f"{where}: printed", str(error))
        expect = self._text(where, values, "expect", "agrees")
        self._one_of(f"{where}: expect", expect, ("agrees", "differs"))
        return RatioData(column, row, over, printed, cast("Verdict", expect))

    def _column(self, name: str, entry: Any, convention: str) -> ColumnData:
        where = f"{self.path}: column {name}"
        if name in _ROW_KEYS:
            self._fail(where, f"{name} has a meaning of its own; give the column another name")
        values = self._mapping(where, entry)
        self._known(where, values, ("title", "quantity", "unit", "convention", "batch"))
        quantity = values.get("quantity")
        if quantity is not None:
            self._one_of(f"{where}: quantity", quantity, (*COMPUTED, *CARRIED))
        unit = self._text(where, values, "unit", "")
        self._one_of(f"{where}: unit", unit, _UNITS)
        own = self._text(where, values, "convention", convention)
        self._one_of(f"{where}: convention", own, _CONVENTIONS)
        counts_flops = own in ("torch", "strict")
        if quantity in ("macs", "flops") and counts_flops is not (quantity == "flops"):
            self._fail(where, f"{own} counts {'FLOPs' if counts_flops else 'MACs'}, not {quantity}")
        batch = values.get("batch")
        if batch is not None and (quantity != "memory" or type(batch) is not int or batch < 1):
            self._fail(f"{where}: batch", "write a number of images, of a column of memory")
        title = self._text(where, values, "title", name)
        return ColumnData(name, title, quantity, unit, own, batch)

    def _row(self, number: int, entry: Any, columns: tuple[ColumnData, ...]) -> RowData:
        where = f"{self.path}: row {number}"
        values = self._mapping(where, entry)
        first = values.get(columns[0].name)
        if isinstance(first, str):
            where += f" ({first})"
        self._known(where, values, (*(c.name for c in columns), *_ROW_KEYS))
        texts = {c.name: self._cell(where, c, values) for c in columns if c.name in values}
        if not any(c.quantity is None and c.name in texts for c in columns):
            self._fail(where, "it has no label")
        self._check_one_source(where, values)
        build = values.get("build")
        tried = values.get("tried", [])
        if not isinstance(tried, list):
            self._fail(f"{where}: tried", "write an array of tables, each as build is")
        return RowData(
            number,
            texts,
            {
                c.name: self._printed(where, c, texts[c.name])
                for c in columns
                if c.is_computed and c.name in texts
            },
            None if build is None else self._build(f"{where}: build", build),
            tuple(self._build(f"{where}: tried {n}", t) for n, t in enumerate(tried, start=1)),
            self._text(where, values, "unbuilt", "the file names nothing to build"),
            self._counting(where, values),
            self._expect(where, values, texts, columns),
            self._text(where, values, "together", ""),
        )

    def _check_together(self, where: str, table: TableData) -> None:
        first: dict[str, RowData] = {}
        for row in table.rows:
            other = first.setdefault(row.together, row) if row.together else row
            if len(row.tried) != len(other.tried) or (row.together and not row.tried):
                self._fail(
                    f"{where}: row {row.number}: together",
                    f"write as many tried as the first row of {row.together!r} has, one or more",
                )

    def _check_one_source(self, where: str, values: Mapping[str, Any]) -> None:
        given = [key for key in ("build", "tried", "unbuilt") if key in values]
        if len(given) > 1:
            self._fail(where, f"it has {' and '.join(given)}; a row is computed in one way")

    def _cell(self, where: str, column: ColumnData, values: Mapping[str, Any]) -> str:
        value = values[column.name]
        if not isinstance(value, str):
            self._fail(
                f"{where}, column {column.name}",
                f'write what is printed between quotes, "{value}": its digits tell the rounding',
            )
        return " ".join(value.split())

    def _printed(self, where: str, column: ColumnData, text: str) -> Printed:
        try:
            return Printed.parse(text, column.unit, column.quantity == "memory")
        except ValueError as error:
            self._fail(f"{where}, column {column.name}", str(error))

    def _build(self, where: str, entry: Any) -> Build:
        values = self._mapping(where, entry)
        self._known(where, values, ("model", "res", "with", "stage"))
        if not isinstance(values.get("model"), str):
            self._fail(where, 'write { model = "NAME" }, a name as `datbench flops` takes it')
        stage = values.get("stage")
        if stage is not None and (type(stage) is not int or not 1 <= stage <= 4):
            self._fail(f"{where}: stage", "write a number from 1 to 4")
        res = self._text(where, values, "res", "")
        head = self._text(where, values, "with", "")
        if head:
            self._one_of(f"{where}: with", head, HEADS)
        try:
            size = Resolution.parse(res) if res else None
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        return Build(self._model(values["model"]), size, head or None, stage)

    def _model(self, name: str) -> str:
        """A configuration's path is relative to the table's file, as people expect."""
        if not name.startswith("config:"):
            return name
        path = Path(name[len("config:") :]).expanduser()
        return f"config:{path if path.is_absolute() else self.path.parent / path}"

    def _counting(self, where: str, values: Mapping[str, Any]) -> tuple[str, ...]:
        counting = self._texts(f"{where}: counting", values.get("counting", ["trainable"]))
        for what in counting:
            self._one_of(f"{where}: counting", what, COUNTING)
        if not counting or len(set(counting)) < len(counting):
            self._fail(f"{where}: counting", f"write some of {', '.join(COUNTING)}, once each")
        return counting

    def _expect(
        self,
        where: str,
        values: Mapping[str, Any],
        texts: Mapping[str, str],
        columns: tuple[ColumnData, ...],
    ) -> dict[str, Verdict]:
        found = self._mapping(f"{where}: expect", values.get("expect", {}))
        computed = [c.name for c in columns if c.is_computed and c.name in texts]
        self._known(f"{where}: expect", found, computed)
        if found and "build" not in values and "tried" not in values:
            self._fail(f"{where}: expect", "nothing is computed for this row")
        for column, verdict in found.items():
            self._one_of(f"{where}, column {column}: expect", verdict, VERDICTS)
        return cast("dict[str, Verdict]", dict(found))

    def _mapping(self, where: str, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self._fail(where, "missing, or no TOML table")
        return value

    def _text(self, where: str, values: Mapping[str, Any], key: str, default: str) -> str:
        value = values.get(key, default)
        if not isinstance(value, str):
            self._fail(f"{where}: {key}", f"write a text between quotes, not {value!r}")
        return " ".join(value.split())

    def _texts(self, where: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._fail(where, "write an array of texts")
        return tuple(value)

    def _known(self, where: str, values: Iterable[str], known: Iterable[str]) -> None:
        names = list(known)
        for key in values:
            if key not in names:
                raise UsageError(f"{where}: {UnknownNameError.among('key', key, names)}")

    def _one_of(self, where: str, value: Any, known: Iterable[str]) -> None:
        names = list(known)
        if value not in names:
            shown = ", ".join(name or '""' for name in names)
            self._fail(where, f"{value!r} is none of {shown}")

    def _fail(self, where: str, problem: str) -> NoReturn:
        raise UsageError(f"{where}: {problem}.")


# The tables that come with datbench.


FILES = {
    **{str(number): f"table{number}.toml" for number in range(1, 10)},
    "datpp": "datpp.toml",
    "davit": "davit.toml",
    "davit_dense": "davit_dense.toml",
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
            "--file FILE takes a table of your own."
        )
    return read_table(tables_directory() / FILES[name])


def paper_tables() -> tuple[TableData, ...]:
    """Every table of the papers."""
    return tuple(paper_table(name) for name in FILES)


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
        raise UsageError(f"name a table: {', '.join(FILES)} or all; or --file FILE.")
    return found
