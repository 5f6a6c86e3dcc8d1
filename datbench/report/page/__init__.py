"""A report as one page: nothing is fetched, everything that is shown is in the file."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

from ...paper.records import plural
from ...render import vega
from ...render.table import Column, Table, Value
from ..records import Content, naming

MARKS = {
    "agrees": ("agrees", "✓"),
    "same": ("agrees", "✓"),
    "faster": ("agrees", "↑"),
    "measured": ("agrees", "✓"),
    "differs": ("differs", "≠"),
    "changed": ("differs", "≠"),
    "slower": ("differs", "↓"),
    "failed": ("differs", "✕"),
    "wrong in print": ("wrong", "✎"),
    "not reproducible": ("unknown", "?"),
    "ambiguous": ("unknown", "?"),
    "missing": ("unknown", "∅"),
    "published only": ("only", "·"),
}
"""By the first words of a verdict: the class of its colour, and the sign that stands beside it."""


def page(content: Content, script: str) -> str:
    """The page.

    Args:
        script: what sets ``window.vegaEmbed`` (`vega.script`).
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"mark": mark, "inline": lambda text: Markup(_inline(text))}
    template = environment.from_string(_file("page.html.j2"))
    charts = {chart.key: chart.spoken() for chart in content.charts()}
    themes = {"light": vega.theme(), "dark": vega.theme(dark=True)}
    return template.render(
        content=content,
        total=sum(number for _, number in content.verdicts),
        grid=Grid,
        # A screen reader lists regions without their headings: each has a name of its own.
        named=naming("{} ({})", ["Summary", "Sections", *(s.title for s in content.sections)]),
        plural=plural,
        style=Markup(_file("style.css")),
        # Whoever closes a script element early would write elements of their own.
        vega=Markup(_closed(script)) if charts else "",
        script=Markup(_file("page.js")),
        charts=Markup(_json(charts)),
        themes=Markup(_json(themes)),
    )


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that may stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _closed(script: str) -> str:
    """A script that does not end the element that it stands in."""
    return re.sub(r"</(?=script)", r"<\\/", script, flags=re.IGNORECASE).replace("<!--", "<\\!--")


def _inline(text: str) -> str:
    """Text as HTML: what is between backticks is code, everything else is unchanged."""
    from markupsafe import escape

    parts = text.split("`")
    if len(parts) % 2 == 0:
        return str(escape(text))
    return "".join(
        f"<code>{escape(part)}</code>" if number % 2 else str(escape(part))
        for number, part in enumerate(parts)
    )


def mark(text: str) -> tuple[str, str]:
    """Class and sign of a verdict; nothing for other words."""
    if "unexpected" in text and not text.isdecimal():
        return ("unexpected", "!")
    return next((found for words, found in MARKS.items() if text.startswith(words)), ("", ""))


class Grid:
    """A table for the template: what people read, and what its columns are sorted by."""

    def __init__(self, table: Table) -> None:
        self.title = table.title
        self.notes = table.notes
        self.columns = table.visible()
        places = [n for n, column in enumerate(table.columns) if not column.hidden]
        self.rows = [
            [
                _cell(table.columns[place], row[place], text)
                for place, text in zip(places, shown, strict=True)
            ]
            for row, shown in zip(table.rows, table.shown(), strict=True)
        ]
        self.filtered = len(self.rows) > 7


def _cell(column: Column, value: Value, text: str) -> dict[str, Any]:
    kind, sign = mark(text) if _judges(column) else ("", "")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    sort = value if number else None
    return {"text": text, "kind": kind, "sign": sign, "sort": sort, "number": column.is_number}


def _judges(column: Column) -> bool:
    return column.name in ("verdict", "outcome") or column.name.endswith("_verdict")
