"""A report as plain values: rows of any kind, each with where it came from; and what changed.

`report.json` is a document of kind ``report`` whose rows are `ReportPart`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

COMPUTED = "computed here"
"""The source of what `datbench report` counts and simulates itself."""

PartRole = Literal["", "resolutions"]


@dataclass(frozen=True)
class ReportPart:
    """Rows of one kind.

    Args:
        kind: of the rows, as a document of their own would say it.
        source: the file they are from, or `COMPUTED`.
        environment: that they were measured in.
        role: ``resolutions`` for counts of one model over several sizes.
    """

    kind: str
    source: str
    environment: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    role: PartRole = ""


@dataclass(frozen=True)
class Source:
    """A part of a report, and its rows as the values that they were written from."""

    part: ReportPart
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Delta:
    """One figure beside the baseline's; None where it is on one side only.

    Args:
        what: the figure; `detail` says of what.
        unit: ``MAC``, ``element``, ``byte`` or ``image/s``.
        exact: whether any difference is a change: of time it is not.
    """

    model: str
    resolution: str
    what: str
    detail: str
    unit: str
    before: float | None
    now: float | None
    exact: bool = True

    @property
    def relative(self) -> float | None:
        """The change as a part of the baseline."""
        if self.before is None or self.now is None or not self.before:
            return None
        return self.now / self.before - 1


def place_of(environment: Mapping[str, Any]) -> str:
    """Where something was measured, in words: the processor or GPU, and the versions."""
    gpus = environment.get("gpus") or []
    names = list(dict.fromkeys(str(gpu.get("name")) for gpu in gpus if isinstance(gpu, Mapping)))
    parts = [*names]
    if environment.get("processor"):
        cores = environment.get("usable_cpus")
        parts.append(f"{environment['processor']}{f', {cores} cores' if cores else ''}")
    for package in ("torch", "cuda", "datbench"):
        if environment.get(package):
            parts.append(f"{package} {environment[package]}")
    return ", ".join(parts) or "unknown"


def same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether times from both may be put beside each other."""
    names = ("processor", "usable_cpus", "torch", "cuda", "gpus")
    return all(one.get(name) == other.get(name) for name in names)
