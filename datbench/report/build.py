"""The rows of a report: computed here, or read from result files."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..counting.records import CountRow
from ..errors import DatbenchError, MeasurementError, UsageError
from ..files import append_summary, write_all
from ..gate.records import CountBaseline, MemoryBaseline
from ..inputs import told
from ..machine import COMMAND, summary
from ..memory.records import MemoryRow, Timeline
from ..records import ResultFile, document, dumps, load_all, parse, plain, read_json
from ..setting import PLAIN, MemoryMode, Recipe, Resolution, Setting
from ..timing.pytest_benchmark import from_document, is_benchmark_file
from ..units import printable
from .records import COMPUTED, PartRole, ReportPart, Source, distinct

if TYPE_CHECKING:
    from ..models.resolve import Spec
    from ..paper.tables import TableData
    from ..paper.workshop import Workshop
    from .records import Content, Missing

SIZES = (384, 640, 1024)
"""Squares at which models are counted besides their own size."""


@dataclass(frozen=True)
class ReportRequest:
    """How one model was counted and simulated before, so that both can be compared."""

    counts: tuple[Setting, ...] = ()
    ledgers: tuple[tuple[Setting, MemoryMode, Recipe], ...] = ()


def wanted_again(sources: Sequence[Source]) -> dict[str, ReportRequest]:
    """By model, the settings of a baseline or of a former report."""
    found: dict[str, ReportRequest] = {}
    for source in sources:
        for row in source.values if not source.part.role else ():
            if not isinstance(row, (CountRow, CountBaseline, MemoryRow, MemoryBaseline)):
                continue
            before = found.get(row.model, ReportRequest())
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
    before: Mapping[str, ReportRequest] | None = None,
    inputs: tuple[str, ...] = (),
    workshop: Workshop | None = None,
) -> tuple[list[Source], list[Missing]]:
    """Everything that needs no machine; and what could not be computed, with the reason.

    Args:
        sizes: of the input; each model's own, and for the curves `SIZES` too, where None.
        before: what to compute of a model besides its own size, where `sizes` is None.
        inputs: what the models take in place of an image (`datbench.inputs`).
        workshop: where models of tables are counted.
    """
    from ..render.terminal import progress
    from .records import Missing

    made = _Made(inputs)
    for spec in progress(specs, lambda spec: spec.name):
        again = None if sizes or before is None else before.get(spec.name)
        made.model(spec, list(sizes) if sizes else None, again or ReportRequest())
    if tables:
        from ..paper.verdicts import compare_tables

        watched = progress(tables, lambda table: f"table {table.table}")
        made.add("table", compare_tables(watched, workshop=workshop))
    failed = [Missing(f"{what}: {why}".rstrip(".")) for what, why in made.failed]
    return made.sources(), failed


class _Made:
    """Rows as they are made, and what could not be made."""

    def __init__(self, inputs: tuple[str, ...]) -> None:
        self.inputs = inputs
        self.rows: dict[tuple[str, PartRole], list[Any]] = {}
        self.failed: list[tuple[str, str]] = []

    def sources(self) -> list[Source]:
        """The rows, as they are written and as values."""
        here = summary()
        return [
            Source(
                ReportPart(kind, COMPUTED, here, tuple(document(kind, rows, here)["rows"]), role),
                tuple(rows),
            )
            for (kind, role), rows in self.rows.items()
        ]

    def add(self, kind: str, values: Sequence[Any], role: PartRole = "") -> None:
        self.rows.setdefault((kind, role), []).extend(values)

    def model(self, spec: Spec, sizes: list[Resolution] | None, before: ReportRequest) -> None:
        """Counts, terms and memory of a model; each may fail by itself."""
        own = sizes or [spec.resolution]
        asked = [Setting(size, inputs=self.inputs) for size in own]
        settings = tuple(dict.fromkeys((*asked, *before.counts)))
        curve = not sizes and (not self.inputs or told(self.inputs, "HW"))
        try:
            self._counts(spec, settings, SIZES if curve else ())
        except DatbenchError as error:
            self.failed.append((spec.name, str(error)))
            return
        try:
            from ..eq10.identity import identities

            if not self.inputs:
                self.add("eq10", identities(spec, own[0]))
        except UsageError:
            pass  # no formula of this model's attention is known
        try:
            self._memory(spec, own[0], before)
        except DatbenchError as error:
            self.failed.append((f"{spec.name}, memory", str(error)))

    def _counts(self, spec: Spec, own: Sequence[Setting], others: Sequence[int]) -> None:
        from ..counting.conventions import CONVENTIONS
        from ..counting.count import count_row

        fvcore = CONVENTIONS["fvcore"]
        counted = [count_row(spec, setting, fvcore) for setting in own]
        self.add("flops", counted)
        usual = [Setting(setting.resolution, inputs=self.inputs) for setting in own]
        plain = [row for row, s, known in zip(counted, own, usual, strict=True) if s == known]
        there = {row.setting.resolution for row in plain}
        squares = [r for r in (Resolution(side, side) for side in others) if r not in there]
        curve = [count_row(spec, Setting(size, inputs=self.inputs), fvcore) for size in squares]
        # The curve needs totals alone.
        short = [replace(row, modules=(), operators=(), stages=()) for row in (*plain, *curve)]
        self.add("flops", short, "resolutions")

    def _memory(self, spec: Spec, size: Resolution, before: ReportRequest) -> None:
        from ..memory.simulation import memory_row, traced_row
        from ..memory.timeline import timeline

        plain = Setting(size, backward=True, inputs=self.inputs)
        row, trace = traced_row(spec, plain, "backward")
        others = [each for each in before.ledgers if each != (plain, "backward", PLAIN)]
        self.add("memory", [row, *(memory_row(spec, *each) for each in others)])
        setting = f"forward and backward, {size}, batch 1, float32, eager attention"
        drawn = timeline(trace)
        self.add("figure", [Timeline(spec.name, setting, drawn)])


def given(path: Path) -> list[Source]:
    """What a result file holds; of a former report, every part.

    Raises:
        UsageError: it is broken, empty or somebody else's.
    """
    if path.is_dir():
        return [_source(each, path) for each in load_all(path)]
    content = read_json(path)
    if is_benchmark_file(content):
        file = from_document(content, path)
        part = ReportPart(
            "pytest-benchmark", path.name, file.environment(), tuple(map(plain, file.rows))
        )
        return [Source(part, file.rows)]
    found = parse(content, str(path))
    if not found.rows:
        raise UsageError(f"{path} holds no rows.")
    if found.kind == "report":
        return [_part(part, path.name) for part in found.rows]
    return [_source(found, path)]


def _source(found: ResultFile, path: Path) -> Source:
    rows = tuple(found.document()["rows"])
    return Source(ReportPart(found.kind, path.name, found.environment, rows), found.rows)


def _part(part: ReportPart, name: str) -> Source:
    """A part of a former report."""
    rows = parse(document(part.kind, part.rows, part.environment), name).rows
    source = name if part.source == COMPUTED else f"{name}: {part.source}"
    return Source(replace(part, source=source), rows)


def make(
    out: Path,
    specs: Sequence[Spec],
    sizes: Sequence[Resolution] | None,
    tables: Sequence[TableData],
    sources: Sequence[Source],
    before: Sequence[Source] | None,
    name: str,
    plots: str,
    inputs: tuple[str, ...],
) -> list[Missing]:
    """Compute and write a report.

    Args:
        sources: rows of files.
        before: of the baseline, whose file's name is `name`.
        plots: how plots are written, ``svg`` or ``png``; ``none``: neither they nor a page.
        inputs: what the models take, as `--input` has it.

    Returns:
        What could not be computed.

    Raises:
        MeasurementError: nothing could be.
    """
    from ..render.vega import script as vega_script
    from .content import compact, content
    from .deltas import between

    with ExitStack() as stack:
        workshop = None
        if tables:
            from ..paper.workshop import Workshop

            workshop = Workshop()
            stack.enter_context(workshop.ahead(tables))  # forks, so before there is a thread
        # The page's script takes seconds of another core while rows are computed.
        beside = stack.enter_context(ThreadPoolExecutor(1))
        script = beside.submit(vega_script).result if plots != "none" else None
        again = None if before is None else wanted_again(before)
        own, failed = computed(specs, sizes, tables, again, inputs, workshop)
        every = distinct([*own, *sources])
        if not every:
            raise MeasurementError(
                f"nothing could be computed: {'; '.join(m.what for m in failed)}."
            )
        deltas = None if before is None else between(before, every)
        made = content(every, "Benchmark report", failed, deltas, name, said_of_now())
        write(out, made, every, f".{plots}", script)
    append_summary(compact(made))
    return failed


def said_of_now() -> str:
    """When, where, by which versions and by which command a report is made."""
    versions = "datbench {datbench}, torch {torch}, Python {python}".format(**summary())
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    command = printable(shlex.join(["datbench", *COMMAND.get()]).replace("`", "'"))
    host = printable(platform.node()) or "a machine without a name"
    return f"Made on {now} on {host} by `{command}`, with {versions}."


# A report's directory: written beside and moved, so that no file in it is half.


def check_directory(out: Path) -> None:
    """Refuse what no directory can be made of, before any work.

    Raises:
        UsageError: it is a file, or may not be written to.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a directory.")
    above = out if out.is_dir() else Path(os.path.realpath(out)).parent
    if not above.is_dir():
        raise UsageError(f"--out {out}: there is no directory {above}.")
    if not os.access(above, os.W_OK):
        raise UsageError(f"--out {out}: no permission to write in {above}.")


OWN = ("report.*", "comment.md", "csv/*.csv", "latex/*.tex", "plots/*.*")
"""Files that a report may have."""


def write(
    out: Path,
    content: Content,
    sources: Sequence[Source],
    suffix: str,
    script: Callable[[], str] | None,
) -> None:
    """Make every file, then put them where they belong.

    Args:
        suffix: of the plots' files.
        script: gives the page's script; None: neither the page nor the plots are written.

    Raises:
        DatbenchError: the system refused, for example because the disk is full.
    """
    from ..render.vega import to_image
    from .content import compact, csv_files, latex_files, markdown
    from .page import page

    drawn = [] if script is None else content.charts()
    files = {f"plots/{chart.key}{suffix}": to_image(chart, suffix) for chart in drawn}
    images = {Path(name).stem: name for name in files}
    parts = [source.part for source in sources]
    texts = {
        "report.md": markdown(content, images),
        "comment.md": compact(content),
        "report.json": dumps(document("report", parts, summary())),
        **{f"csv/{name}": text for name, text in csv_files(content).items()},
        **{f"latex/{name}": text for name, text in latex_files(content).items()},
    }
    if script is not None:
        texts["report.html"] = page(content, script())
    # Names of models and files need not be UTF-8.
    files |= {n: text.encode("utf-8", "backslashreplace") for n, text in texts.items()}
    write_all(out, files, OWN)
