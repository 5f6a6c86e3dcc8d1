"""`datbench env`."""

from __future__ import annotations

from .options import Out, OutputFormat


def env(format: OutputFormat = None, out: Out = None) -> None:
    """Describe what figures are measured on here: versions, processor, memory, GPUs."""
    from .output import choose_format

    wanted = choose_format(format, out)
    from ..measure.environment import environment
    from ..report.table import Column, Table
    from ..results import document
    from .output import emit

    found = environment()
    flat: list[tuple[str, str | None]] = []
    for key, value in found.items():
        if isinstance(value, dict):
            flat += [(f"{key}.{name}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            flat.append((key, "; ".join(map(str, value)) or "none"))
        else:
            flat.append((key, None if value is None else str(value)))
    table = Table((Column("what", "what"), Column("value", "value")), tuple(flat))
    emit([table], document("env", [found], found), wanted, out)
