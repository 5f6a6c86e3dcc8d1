"""The rows of a report: computed here, or read from result files."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..baselines import CountBaseline, MemoryBaseline
from ..benchmark_files import Benchmark, from_document, is_benchmark_file
from ..errors import DatbenchError, UsageError
from ..ledger import PLAIN, MemoryMode, MemoryRow, Recipe
from ..reading import Reader
from ..reports import COMPUTED, PartRole, ReportPart, Source
from ..results import CountRow
from ..types import Resolution, Setting

if TYPE_CHECKING:
    from ..models.resolve import Spec
    from ..paper.tables import TableData
    from ..report.document import Missing

SIZES = (384, 640, 1024)
"""Squares at which models are counted besides their own size."""


@dataclass(frozen=True)
class Wanted:
    """How one model was counted and simulated before, so that both can be compared."""

    counts: tuple[Setting, ...] = ()
    ledgers: tuple[tuple[Setting, MemoryMode, Recipe], ...] = ()


def wanted_again(sources: Sequence[Source]) -> dict[str, Wanted]:
    """By model, the settings of a baseline or of a former report."""
    found: dict[str, Wanted] = {}
    for source in sources:
        for row in source.values if not source.part.role else ():
            if not isinstance(row, (CountRow, CountBaseline, MemoryRow, MemoryBaseline)):
                continue
            before = found.get(row.model, Wanted())
            setting = replace(row.setting, device="meta")
            if isinstance(row, (CountRow, CountBaseline)):
                counts = (*before.counts, replace(setting, backward=False))
                before = replace(before, counts=tuple(dict.fromkeys(counts)))
            else:
                ledgers = (*before.ledgers, (setting, row.mode, row.recipe))
                before = replace(before, ledgers=tuple(dict.fromkeys(ledgers)))
            found[row.model] = before
    return found


def computed(
    specs: Sequence[Spec],
    sizes: Sequence[Resolution] | None,
    tables: Sequence[TableData],
    before: Mapping[str, Wanted] | None = None,
    idle: Callable[[Sequence[Source]], None] | None = None,
) -> tuple[list[Source], list[Missing]]:
    """Everything that needs no machine; and what could not be computed, with the reason.

    Args:
        sizes: of the input; each model's own, and for the curves `SIZES` too, where None.
        before: what to compute of a model besides its own size, where `sizes` is None.
        idle: called with what is there while another process is still at the tables.
    """
    from ..report.document import Missing
    from .progress import progress
    from .report_tables import compared, elsewhere, far

    made = _Made()
    others = far(specs, tables)
    with elsewhere(others) as apart, _fewer_collections():
        for spec in progress(specs, lambda spec: spec.name):
            again = None if sizes or before is None else before.get(spec.name)
            made.model(spec, list(sizes) if sizes else None, again or Wanted())
        done = compared([table for table in tables if table not in others])
        if apart is not None and idle is not None:
            idle(made.sources())
        rows = apart.rows() if apart is not None else None
        if rows is None:
            done |= compared(others)
        else:
            from ..results_files import row_value

            done |= {
                table.table: row_value("table", row)
                for table, row in zip(others, rows, strict=True)
            }
    if tables:
        made.add("table", [done[table.table] for table in tables])
    failed = [Missing(f"{what}: {why}".rstrip(".")) for what, why in made.failed]
    return made.sources(), failed


@contextmanager
def _fewer_collections() -> Iterator[None]:
    """Models by the dozen are live objects: looking for dead ones again and again is in vain."""
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS)
    try:
        yield
    finally:
        gc.set_threshold(*before)


OBJECTS = 200_000
"""Made since the last collection before there is another."""


class _Made:
    """Rows as they are made, and what could not be made."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, PartRole], list[Any]] = {}
        self.failed: list[tuple[str, str]] = []
        self._plain: dict[tuple[str, PartRole], tuple[dict[str, Any], ...]] = {}

    def sources(self) -> list[Source]:
        """The rows, as they are written and as values."""
        from ..measure.environment import summary
        from ..results import document

        here = summary()
        for (kind, role), values in self.rows.items():
            if len(self._plain.get((kind, role), ())) != len(values):
                self._plain[kind, role] = tuple(document(kind, values, here)["rows"])
        return [
            Source(ReportPart(kind, COMPUTED, here, self._plain[kind, role], role), tuple(values))
            for (kind, role), values in self.rows.items()
        ]

    def add(self, kind: str, values: Sequence[Any], role: PartRole = "") -> None:
        self.rows.setdefault((kind, role), []).extend(values)

    def model(self, spec: Spec, sizes: list[Resolution] | None, before: Wanted) -> None:
        """Counts, terms and memory of a model; each may fail by itself."""
        own = sizes or [spec.resolution]
        settings = tuple(dict.fromkeys((*map(Setting, own), *before.counts)))
        try:
            self._counts(spec, settings, () if sizes else SIZES)
        except DatbenchError as error:
            self.failed.append((spec.name, str(error)))
            return
        try:
            from ..measure.complexity.identity import identities

            self.add("eq10", identities(spec, own[0]))
        except UsageError:
            pass  # no formula of this model's attention is known
        try:
            self._memory(spec, own[0], before)
        except DatbenchError as error:
            self.failed.append((f"{spec.name}, memory", str(error)))

    def _counts(self, spec: Spec, own: Sequence[Setting], others: Sequence[int]) -> None:
        from ..measure.conventions import CONVENTIONS
        from ..measure.summary import count_row

        fvcore = CONVENTIONS["fvcore"]
        counted = [count_row(spec, setting, fvcore) for setting in own]
        self.add("flops", counted)
        plain = [row for row in counted if row.setting == Setting(row.setting.resolution)]
        there = {row.setting.resolution for row in plain}
        squares = [r for r in (Resolution(side, side) for side in others) if r not in there]
        curve = [count_row(spec, Setting(size), fvcore) for size in squares]
        # The curve needs totals alone.
        short = [replace(row, modules=(), operators=(), stages=()) for row in (*plain, *curve)]
        self.add("flops", short, "resolutions")

    def _memory(self, spec: Spec, size: Resolution, before: Wanted) -> None:
        from ..measure.memory.rows import memory_row, traced_row
        from ..measure.memory.timeline import timeline

        plain = Setting(size, backward=True)
        row, trace = traced_row(spec, plain, "train")
        others = [each for each in before.ledgers if each != (plain, "train", PLAIN)]
        self.add("memory", [row, *(memory_row(spec, *each) for each in others)])
        setting = f"forward and backward, {size}, batch 1, float32, eager attention"
        drawn = timeline(trace)
        self.add("figure", [{"model": spec.name, "setting": setting, "figure": asdict(drawn)}])


def given(path: Path) -> list[Source]:
    """What a result file holds; of a former report, every part.

    Raises:
        UsageError: it is broken, empty or somebody else's.
    """
    from ..results_files import read, values

    benchmarks = _benchmarks(path)
    if benchmarks is not None:
        return [benchmarks]
    content = read(path)
    rows = values(content, str(path))
    if not rows:
        raise UsageError(f"{path} holds no rows.")
    if content["kind"] == "report":
        return [_part(part, path.name) for part in rows]
    plain = tuple(content["rows"])
    part = ReportPart(content["kind"], path.name, content["environment"], plain)
    return [Source(part, tuple(rows))]


def _part(part: ReportPart, name: str) -> Source:
    """A part of a former report."""
    from ..results import document
    from ..results_files import values

    match part.kind:
        case "figure":
            rows = list(part.rows)
        case "pytest-benchmark":
            rows = [Reader().read(Benchmark, row, "") for row in part.rows]
        case _:
            rows = values(document(part.kind, part.rows, part.environment), name)
    source = name if part.source == COMPUTED else f"{name}: {part.source}"
    moved = ReportPart(part.kind, source, part.environment, part.rows, part.role)
    return Source(moved, tuple(rows))


def _benchmarks(path: Path) -> Source | None:
    """What pytest-benchmark measured; None of any other file, which its own reader refuses."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not is_benchmark_file(content):
        return None
    found = from_document(content, path)
    plain = tuple(json.loads(json.dumps(asdict(row))) for row in found.rows)
    part = ReportPart("pytest-benchmark", path.name, found.environment(), plain)
    return Source(part, found.rows)
