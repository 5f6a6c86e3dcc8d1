"""Printed memory beside what is simulated, at the stated batch and at twice that."""

from __future__ import annotations

from collections.abc import Iterator

from ..cells import Evidence, Verdict
from .printed import Printed
from .tables import Build, RowData
from .workshop import Held, Workshop

GIB = 1 << 30

_RULES = ("after the forward", "kept for backward")


def memory_evidence(build: Build, batch: int, workshop: Workshop) -> list[Evidence]:
    """What a forward in training holds, both readings at both batches; then on a device."""
    return list(_evidence(build, batch, workshop))


def _evidence(build: Build, batch: int, workshop: Workshop) -> Iterator[Evidence]:
    res = build.res or workshop.spec(build).resolution
    for images in (batch, 2 * batch):
        held = workshop.hold(build, images)
        for rule, amount in zip(_RULES, (held.after_forward, held.kept), strict=True):
            yield Evidence(build.model, str(res), amount, "byte", f"{rule}, batch {images}")
    if workshop.device is None:
        return
    for images in (batch, 2 * batch):
        row = workshop.measure(build, images)
        for rule in ("allocated", "reserved"):
            found: int | None = None if row.peaks is None else getattr(row.peaks, rule)
            on = f"{rule} on {workshop.device}, batch {images}"
            said = on if found is not None else f"{on}: {row.outcome}"
            yield Evidence(build.model, str(res), found, "byte", said)


def judge_memory(printed: Printed, batch: int, evidence: list[Evidence]) -> tuple[Verdict, str]:
    """A print that no reading at the stated batch rounds to is not reproduced; and by how much."""
    here, there = evidence[:2], evidence[2:4]
    if any(e.amount is not None and printed.agrees(e.amount) for e in here):
        return "agrees", ""
    after, kept = (_gib(e) for e in here)
    twice = _gib(there[0])
    value = float(printed.value) / GIB
    return "not reproducible", (
        f"at batch {batch} {after:.2f} GiB are alive after the forward ({kept:.2f} kept for the "
        f"backward) and the print is {value / after:.2f} times that; at batch {2 * batch} it would "
        f"be {twice:.2f}, {100 * (twice / value - 1):+.1f} % from the print"
    )


def _gib(evidence: Evidence) -> float:
    assert evidence.amount is not None
    return evidence.amount / GIB


def kept(row: RowData, batch: int, workshop: Workshop) -> int:
    """What a ratio of memories is taken of: kept for the backward, at the stated batch."""
    assert row.build is not None
    held: Held = workshop.hold(row.build, batch)
    return held.kept
