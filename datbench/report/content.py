"""One set of rows as a report: what markdown, CSV, LaTeX and the page all take."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..cells import VERDICTS, Comparison
from ..reports import COMPUTED, Delta, Source
from ..terms import ModuleTerms
from . import sections, sections_measured
from .document import Content, Fact, Missing, Section
from .rows import Rows


def content(
    sources: Sequence[Source],
    title: str,
    failed: Sequence[Missing] = (),
    deltas: Sequence[Delta] | None = None,
    baseline: str = "",
    made: str = "",
) -> Content:
    """The report of some rows.

    Args:
        failed: what could not be computed, and why.
        made: with which versions.
    """
    rows = Rows(sources)
    chapters: list[Section] = []
    if deltas is not None:
        chapters.append(sections.against(deltas, baseline))
    for build in (
        sections.models,
        sections.accuracy,
        sections.sizes,
        sections.terms,
        sections_measured.memory,
        sections_measured.time,
        sections.others,
    ):
        section = build(rows)
        chapters += [section] if section is not None else []
    if failed:
        chapters.append(Section("failed", "What could not be computed", "", missing=tuple(failed)))
    chapters += [
        s for s in (sections.tables(rows), sections.environments(sources)) if s is not None
    ]
    _name_apart(chapters)
    compared: list[Comparison] = rows.of("table")
    cells = [cell for comparison in compared for cell in comparison.cells()]
    counted = [(str(v), sum(cell.verdict == v for cell in cells)) for v in VERDICTS]
    return Content(
        title,
        tuple(_facts(rows)),
        tuple((verdict, number) for verdict, number in counted if number),
        sum(not cell.is_expected for cell in cells),
        tuple(chapters),
        None if deltas is None else tuple(deltas),
        baseline,
        (*_left_out(rows), *_warnings(rows)),
        made,
        tuple(failed),
    )


def _name_apart(sections: list[Section]) -> None:
    """Two tables of one name, of a former report for example, are two files and two anchors."""
    taken: set[str] = set()
    for place, section in enumerate(sections):
        entries = []
        for entry in section.entries:
            key, number = entry.key, 1
            while key in taken:
                number += 1
                key = f"{entry.key}-{number}"
            taken.add(key)
            entries.append(replace(entry, key=key))
        sections[place] = replace(section, entries=tuple(entries))


def _facts(rows: Rows) -> Iterator[Fact]:
    compared: list[Comparison] = rows.of("table")
    cells = [cell for comparison in compared for cell in comparison.cells() if cell.evidence]
    if cells:
        agree = sum(cell.verdict == "agrees" for cell in cells)
        yield Fact(f"{agree} of {len(cells)}", "computed cells of the tables agree with the print")
    models = rows.of("flops")
    if models:
        names = {row.model for row in models}
        yield Fact(str(len(names)), "models counted" if len(names) > 1 else "model counted")
    modules: list[ModuleTerms] = rows.of("eq10")
    if modules:
        holding = sum(module.holds for module in modules)
        yield Fact(f"{holding} of {len(modules)}", "attention modules: formula + causes = counted")
    timed = rows.places("throughput") + rows.places("profile")
    number = sum(len(found) for _, found in timed)
    if number:
        places = len({place for place, _ in timed})
        yield Fact(
            str(number), f"timed runs, on {places} {'machines' if places > 1 else 'machine'}"
        )
    else:
        given = " ".join(shlex.quote(name) for name in dict.fromkeys(row.model for row in models))
        command = (
            f"datbench throughput {given or 'dat_t'} --batch 64 --device cuda --out times.json"
        )
        yield Fact("0", "timed runs: see Time for the command", command)


def _left_out(rows: Rows) -> Iterator[str]:
    """What is not of every size that was counted here."""
    counted = _sizes(rows, "flops")
    for kind, what in (("memory", "Memory was simulated"), ("eq10", "Terms of attention are")):
        there = _sizes(rows, kind)
        groups: dict[tuple[str, str], list[str]] = {}
        for model, sizes in counted.items():
            left = [size for size in sizes if size not in there.get(model, sizes)]
            if left:
                group = (", ".join(there[model]), ", ".join(left))
                groups.setdefault(group, []).append(model)
        for (sizes_there, left_out), models in groups.items():
            yield f"{what} at {sizes_there} and not at {left_out}: {', '.join(models)}."


def _sizes(rows: Rows, kind: str) -> dict[str, list[str]]:
    """By model, the sizes of what was computed here."""
    found: dict[str, list[str]] = {}
    for source in rows.sources:
        if source.part.kind == kind and source.part.source == COMPUTED and not source.part.role:
            for value in source.values:
                size = value.resolution if kind == "eq10" else value.setting.resolution
                sizes = found.setdefault(value.model, [])
                sizes += [str(size)] if str(size) not in sizes else []
    return found


def _warnings(rows: Rows) -> Iterator[str]:
    for kind in ("throughput", "profile", "memory-measured", "compare"):
        places = rows.places(kind)
        if len(places) > 1:
            yield (
                f"Rows of {kind} were measured in {len(places)} environments, which stand apart "
                f"and are not to be compared: {'; '.join(place for place, _ in places)}."
            )
