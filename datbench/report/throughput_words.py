"""What throughput's figures belong to, and what they are worth, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import units
from ..measurements import Ceilings, Scatter
from ..timings import ThroughputRow


def rate(value: float) -> str:
    """A number a second: four figures, as many as an interval of 0.1 % shows."""
    if value >= 1000:
        return units.integer(value)
    return f"{value:.{3 if value < 9.9995 else 2 if value < 99.995 else 1}f}"


def threads_of(row: ThroughputRow) -> int | None:
    """That an operator ran with."""
    return next((process.threads for process in row.processes if process.threads), None)


def setting_words(row: ThroughputRow, *left_out: str) -> str:
    """What the figures belong to, in words."""
    setting, how = row.setting, row.how
    threads = threads_of(row)
    counted = "1 thread" if threads == 1 else f"{threads} threads"
    told = setting.device.startswith("cpu") and threads and "threads" not in left_out
    on = f"cpu, {counted}" if told else setting.device
    parts = {
        "mode": "inference" if how.mode == "infer" else "training",
        "resolution": str(setting.resolution),
        "batch": f"batch {setting.batch}",
        "dtype": setting.dtype,
        "attention": f"{setting.attention} attention",
        "compile": "compiled" if how.compile else "",
        "channels_last": "channels last" if how.channels_last else "",
        "flush": "level-2 cache flushed" if how.flush else "",
        "gpus": f"on each of {row.gpus} ranks" if row.gpus > 1 else "",
        "device": on,
    }
    return ", ".join(words for name, words in parts.items() if words and name not in left_out)


def notes(rows: Sequence[ThroughputRow]) -> Iterator[str]:
    """What the reader must know to believe the figures, each once."""
    alone = len(rows) == 1
    if not alone:
        for row in rows:
            if row.reason is not None and row.seconds is None:
                yield f"{_name(row)}: {row.outcome}: {row.reason}."
    yield from _doubts(rows)
    yield from dict.fromkeys(
        f"{_name(row)}: no MACs: {row.counted}."
        for row in rows
        if row.counted and row.seconds is not None
    )
    for limits in dict.fromkeys(row.ceilings for row in rows if row.ceilings is not None):
        yield _ceilings(limits)
    yield from dict.fromkeys(_machine(row) for row in rows if _environment(row))


def _ceilings(limits: Ceilings) -> str:
    """The fastest samples, and what they usually were."""

    def beside(scatter: Scatter | None, figure: Callable[[float], str]) -> str:
        return "" if scatter is None else f" (median {figure(scatter.median)})"

    product = beside(limits.product, lambda rate: units.amount(rate, "MAC/s", 1))
    copy = beside(limits.copy, lambda rate: f"{units.size(rate)}/s")
    return (
        f"Ceilings in {limits.dtype}, the fastest sample of each: "
        f"{units.amount(limits.macs, 'MAC/s', 1)}{product} in a matrix product of side "
        f"{limits.side}, {units.size(limits.bytes)}/s{copy} in a copy that moves "
        f"{units.size(limits.copied)}."
    )


def _name(row: ThroughputRow) -> str:
    return f"{row.model}, batch {row.setting.batch}"


def _doubts(rows: Sequence[ThroughputRow]) -> Iterator[str]:
    """Each doubt once, with the rows that have it; none named where all have."""
    whose: dict[str, list[str]] = {}
    for row in rows:
        for doubt in row.doubts:
            whose.setdefault(doubt, []).append(_name(row))
    for doubt, names in whose.items():
        if len(names) == len(rows):
            yield f"Doubt: {doubt}."
        else:
            yield f"Doubt ({'; '.join(names)}): {doubt}."


def _environment(row: ThroughputRow) -> dict[str, Any]:
    return next((dict(p.environment) for p in row.processes if p.environment), {})


def _machine(row: ThroughputRow) -> str:
    found = _environment(row)
    on = found.get("processor") or "an unknown processor"
    if row.setting.device.startswith("cuda"):
        gpus = found.get("gpus") or [{}]
        index = int(row.setting.device.partition(":")[2] or 0)
        on = gpus[min(index, len(gpus) - 1)].get("name") or "an unknown GPU"
    cores = f", {found['usable_cpus']} cores" if found.get("usable_cpus") else ""
    return f"Measured on {on}{cores}: torch {found.get('torch')}, datbench {found.get('datbench')}."
