"""What was timed, by the place where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...timings import ThroughputRow
from ..memory import runs
from ..table import Column, Table
from ..throughput import CERTAIN
from ..throughput_words import setting_words, threads_of
from ..vega import Chart, Datum, field, folded, names_of, spec, words


def throughput(rows: Sequence[ThroughputRow], number: int, where: str) -> Chart | None:
    """Images a second with their intervals; all rows of one place."""
    rows = [row for row in rows if row.images_per_second]
    if not rows:
        return None
    names = _names(rows)
    values = [
        {
            "model": name,
            "rate": row.images_per_second,
            "from": "median",
            **_interval(row),
            "setting": setting_words(row),
            "doubts": "; ".join(row.doubts) or "none",
        }
        for name, row in zip(names, rows, strict=True)
    ]
    body = spec(
        values,
        folded(names),
        encoding={"y": names_of("model", names)},
        layer=[
            {
                "transform": [{"filter": "isValid(datum.low)"}],
                "mark": {"type": "rule", "strokeWidth": 3},
                "encoding": {
                    "x": field("low", "images/s", scale={"zero": True}),
                    "x2": {"field": "high"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 90},
                "encoding": {
                    "x": field("rate", "images/s"),
                    "color": words("from", legend=None),
                    "tooltip": [
                        words("model"),
                        field("rate", "images/s", format=",.1f"),
                        words("interval", "95 % interval"),
                        words("setting"),
                        words("doubts"),
                    ],
                },
            },
        ],
    )
    columns = (
        Column("model", "model"),
        Column("rate", "images/s", lambda value: f"{value:,.1f}"),
        Column("low", "95 % from", lambda value: f"{value:,.1f}"),
        Column("high", "to", lambda value: f"{value:,.1f}"),
        Column("setting", "setting"),
    )
    shown = tuple(tuple(d[column.name] for column in columns) for d in values)
    fastest = max(values, key=lambda d: d["rate"])
    sure = sum(d["low"] is not None for d in values)
    bars = "Bars: its 95 % interval."
    if sure < len(values):
        bars += " Without a bar: too few samples, or processes, for such an interval."
    return Chart(
        f"throughput-{number}",
        "Throughput",
        body,
        f"Images a second of {len(values)} runs; the fastest is "
        f"{fastest['model']} with {fastest['rate']:,.1f}.",
        f"{_shared(rows)}Points: from the median time of a call. {bars}",
        where,
        Table(columns, shown),
        by="median time of a call",
    )


def _interval(row: ThroughputRow) -> Datum:
    """As the table has it: none that is less sure than 95 %."""
    sure = row.coverage is not None and row.coverage >= CERTAIN
    if not sure or row.images_low is None or row.images_high is None:
        return {"low": None, "high": None, "interval": "too few samples for one"}
    low, high = row.images_low, row.images_high
    return {"low": low, "high": high, "interval": f"{low:,.1f} to {high:,.1f}"}


def _shared(rows: Sequence[ThroughputRow]) -> str:
    """What all rows' settings have in common."""
    said = [setting_words(row).split(", ") for row in rows]
    shared = ", ".join(part for part in said[0] if all(part in other for other in said))
    return f"{shared[:1].upper()}{shared[1:]}. " if shared else ""


def _names(rows: Sequence[ThroughputRow]) -> list[str]:
    """The model, its batch, of the rest what the others do not share; at last a number."""
    tells = [tell for tell in _TOLD if len({tell(row) for row in rows}) > 1]
    names = [
        ", ".join([row.model, f"batch {row.setting.batch}", *(tell(row) for tell in tells)])
        for row in rows
    ]
    return [
        f"{name}, run {number}" if number else name
        for name, number in zip(names, runs(names), strict=True)
    ]


_TOLD: tuple[Callable[[ThroughputRow], str], ...] = (
    lambda row: row.how.mode,
    lambda row: str(row.setting.resolution),
    lambda row: row.setting.dtype,
    lambda row: row.setting.device,
    lambda row: f"{row.setting.attention} attention",
    lambda row: "compiled" if row.how.compile else "not compiled",
    lambda row: "channels last" if row.how.channels_last else "channels first",
    lambda row: "cache flushed" if row.how.flush else "cache not flushed",
    lambda row: f"{threads_of(row) or '?'} threads",
    lambda row: f"{row.gpus} ranks",
)
