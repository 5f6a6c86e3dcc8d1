"""`datbench env`."""

from __future__ import annotations

from .. import units
from .options import Out, OutputFormat


def env(format: OutputFormat = None, out: Out = None) -> None:
    """Describe this machine: versions, processor, memory, GPUs."""
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
            flat += [(f"{key}.{name}", _text(name, inner)) for name, inner in value.items()]
        elif isinstance(value, list):  # of GPUs
            described = ["; ".join(f"{k} {_text(k, v)}" for k, v in gpu.items()) for gpu in value]
            flat += [(f"{key}.{i}", text) for i, text in enumerate(described)] or [(key, "none")]
        else:
            flat.append((key, _text(key, value)))
    table = Table((Column("what", "what"), Column("value", "value")), tuple(flat))
    emit([table], document("env", [found], found), wanted, out)


def _text(name: str, value: object) -> str | None:
    """A value for people; bytes as mebibytes and such."""
    if name.endswith("_bytes") and isinstance(value, int):
        return units.size(value)
    return None if value is None else str(value)
