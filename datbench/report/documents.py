"""A report as files: markdown, compact markdown, CSV, LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..units import printable
from .deltas import changed, delta_table, sentence
from .document import Content, Section, plural
from .render import markdown_words, to_csv, to_latex, to_markdown
from .table import Table

ROWS = 30
"""Rows of a table in compact markdown."""


def markdown(content: Content, images: Mapping[str, str]) -> str:
    """The whole report.

    Args:
        images: of charts, by their key: paths from where the file will be.
    """
    parts = [
        f"# {_text(content.title)}",
        _text(content.made),
        _summary(content),
        *map(_text, content.notes),
    ]
    for section in content.sections:
        parts.append(_section(section, images))
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _section(section: Section, images: Mapping[str, str]) -> str:
    parts = [f"## {section.title}", _text(section.lead)]
    for chart in section.charts:
        if chart.key in images:
            parts.append(f"![{_alt(chart.title)}]({images[chart.key]})")
            where = f"{chart.caption} {chart.where[:1].upper()}{chart.where[1:]}."
            if len(chart.choices) > 1:
                where += f" Drawn for {chart.choices[0]}; the page has a menu of all."
            parts.append(f"*{_text(chart.title)}.* {_text(where)}")
    for entry in section.entries:
        parts.append(_tables([entry.people, *entry.further]))
    for missing in section.missing:
        command = f": {_code(missing.command)}" if missing.command else ""
        parts.append(f"- Not here: {_text(missing.what)}{command}")
    return "\n\n".join(part.strip("\n") for part in parts if part)


def _summary(content: Content, alone: bool = False) -> str:
    """The counts as a list; `alone` where no section below says which command gives one."""
    lines = []
    for fact in content.facts:
        label = _text(fact.label)
        if alone and fact.command:
            label = f"{_text(fact.label.partition(':')[0])}: {_code(fact.command)} gives some"
        lines.append(f"- **{_text(fact.figure)}** {label}")
    if content.verdicts:
        cells = ", ".join(plural(verdict, number) for verdict, number in content.verdicts)
        lines.append(f"- Cells by verdict: {cells}; {content.unexpected} unexpected")
    return "\n".join(lines)


def compact(content: Content) -> str:
    """For a job's summary or a comment: the counts, what failed or changed, and the models."""
    parts = [f"### {_text(content.title)}", _summary(content, alone=True)]
    if content.failed:
        failed = [f"- Could not be computed: {_text(missing.what)}" for missing in content.failed]
        parts.append("\n".join(failed))
    if content.deltas is not None:
        parts.append(_text(sentence(content.deltas, content.baseline)))
        listed = [delta for delta in changed(content.deltas) if delta.now is not None]
        if listed:
            parts.append(_tables([_short(delta_table(listed, ""))]))
    parts += [f"- {_text(note)}" for note in content.notes]
    wanted = [
        e.people for e in content.entries() if e.key in ("models", "overview", "throughput-1")
    ]
    for table in wanted:
        title = table.title or "Models"
        body = _tables([_short(replace(table, title="", notes=()))])
        parts.append(f"<details><summary>{_text(title)}</summary>\n\n{body.strip()}\n\n</details>")
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _short(table: Table) -> Table:
    left = len(table.rows) - ROWS
    if left <= 0:
        return table
    return replace(table, rows=table.rows[:ROWS], notes=(*table.notes, f"{left} more rows."))


def _tables(tables: Sequence[Table]) -> str:
    return to_markdown(tables).replace("<", "&lt;")


def _text(text: str) -> str:
    """Words that no markdown renderer takes for HTML, or for anything but words and code."""
    return markdown_words(text.replace("&", "&amp;").replace("<", "&lt;"))


def _code(command: str) -> str:
    return f"`{printable(command).replace('`', '')}`"


def _alt(text: str) -> str:
    return _text(text).replace("[", "(").replace("]", ")")


def csv_files(content: Content) -> dict[str, str]:
    """One file a table, by its name."""
    return {f"{entry.key}.csv": to_csv([entry.machines]) for entry in content.entries()}


def latex_files(content: Content) -> dict[str, str]:
    """One file a table, with those that belong to it; they need the booktabs package."""
    return {
        f"{entry.key}.tex": to_latex([entry.people, *entry.further]) for entry in content.entries()
    }
