"""What a check of this machine expected and measured, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..units import Brief

Subject = Literal[
    "counts",
    "memory",
    "allocator",
    "times",
    "comparison",
    "interleaving",
    "telemetry",
    "profile",
]

CheckUnit = Literal["MACs", "bytes", "segments", "calls", "turns", "s", "Hz", "W", "ratio"]

CheckVerdict = Literal["passed", "failed", "not run"]

NO_GPU = "no CUDA device"
"""Why a GPU's check was not run on a machine without one."""


@dataclass(frozen=True, repr=False)
class CheckRow(Brief):
    """One check: a figure that is known, and what this machine gave."""

    subject: Subject
    check: str  # what was compared, in words
    device: str  # cpu or cuda
    verdict: CheckVerdict
    unit: CheckUnit | None = None  # of the two figures; None where there are none
    expected: float | None = None
    measured: float | None = None
    difference: float | None = None  # of the measured figure, as a share of the expected one
    allowed: float | None = None  # how far the difference may be from 0 either way
    reason: str | None = None  # why there is no figure, or what else decided

    @classmethod
    def of(
        cls,
        subject: Subject,
        device: str,
        check: str,
        unit: CheckUnit,
        expected: float,
        measured: float,
        allowed: float = 0.0,
        refused: str | None = None,
    ) -> CheckRow:
        """Two figures, judged.

        Args:
            refused: why the check fails whatever the figures are.
        """
        difference = measured / expected - 1 if expected else float(measured != expected)
        passed = abs(measured - expected) <= allowed * abs(expected) and refused is None
        verdict: CheckVerdict = "passed" if passed else "failed"
        figures = (float(expected), float(measured), difference, allowed)
        return cls(subject, check, device, verdict, unit, *figures, refused)
