"""What measured points say: exponents, r = 1 against global attention, what is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ...measurements import Exponent, LeftOut, Point, Ratio
from ..intervals import Interval, exponent, median_interval

_BOTH = 0.975
"""Two intervals of this level hold both medians, and so their ratio, at 95 % or more."""


def exponents(points: Sequence[Point], ratio: int, side: int) -> tuple[Exponent, ...]:
    """Every line that three points or more make.

    Args:
        ratio: r of SRA where the map grows; everything else grows at r = 1.
        side: of the map on which Ns grows.
    """
    timed = [point for point in points if point.timing is not None]
    return tuple(_lines(timed, ratio, side))


def _lines(timed: Sequence[Point], ratio: int, side: int) -> Iterator[Exponent]:
    for kind in dict.fromkeys(point.kind for point in timed):
        stride = ratio if kind == "SRA" else 1
        here = [p for p in timed if p.kind == kind and p.stride == stride]
        if len(here) >= 3:
            grid = kind in ("DMHA", "MSA", "SRA")
            held = f"r = {stride}" if grid else f"{here[0].keys} keys a query"
            yield _line(kind, "HW", held, here)
    for kind in ("DMHA", "SRA"):
        here = [p for p in timed if p.kind == kind and p.height == side]
        if len({point.keys for point in here}) >= 3:
            yield _line(kind, "Ns", f"HW = {side}x{side}", here)


def _line(kind: str, over: str, held: str, points: Sequence[Point]) -> Exponent:
    grows: Callable[[Point], int] = (
        (lambda p: p.height * p.width) if over == "HW" else (lambda p: p.keys)
    )
    sizes = [grows(point) for point in points]
    time = exponent(sizes, [_median(point) for point in points])
    formula, macs, moved = (
        exponent(sizes, costs).value
        for costs in (
            [point.formula for point in points],
            [point.macs for point in points],
            [point.bytes for point in points],
        )
    )
    return Exponent(
        kind,
        "HW" if over == "HW" else "Ns",
        held,
        len(points),
        time.value,
        time.low,
        time.high,
        formula,
        macs,
        moved,
    )


def _median(point: Point) -> float:
    assert point.timing is not None
    return point.timing.median


def _interval(point: Point) -> Interval:
    assert point.timing is not None
    return median_interval(point.timing.samples, _BOTH)


def ratios(points: Sequence[Point]) -> tuple[Ratio, ...]:
    """Deformable over global attention, on every map where both were timed."""
    return tuple(
        _ratio(deformable, everywhere)
        for deformable, everywhere in _pairs(points)
        if everywhere is not None
    )


def _pairs(points: Sequence[Point]) -> Iterator[tuple[Point, Point | None]]:
    """DMHA at r = 1 and MSA on the same map, small maps first."""
    timed = [p for p in points if p.timing is not None and p.stride == 1]
    everywhere = {p.height: p for p in timed if p.kind == "MSA"}
    for point in sorted((p for p in timed if p.kind == "DMHA"), key=lambda p: p.height):
        yield point, everywhere.get(point.height)


def _ratio(ours: Point, theirs: Point) -> Ratio:
    over, under = (_interval(point) for point in (ours, theirs))
    enough = min(over.coverage, under.coverage) >= _BOTH
    memory = None
    if ours.peak_bytes and theirs.peak_bytes:
        memory = ours.peak_bytes / theirs.peak_bytes
    return Ratio(
        ours.height,
        over.value / under.value,
        over.low / under.high if enough else None,
        over.high / under.low if enough else None,
        ours.formula / theirs.formula,
        ours.macs / theirs.macs,
        ours.bytes / theirs.bytes,
        memory,
    )


def left_out(points: Sequence[Point]) -> tuple[LeftOut, ...]:
    """Time that the formula leaves out against MACs that it leaves out, on every map."""
    return tuple(_left_out(ours, theirs) for ours, theirs in _pairs(points) if ours.shares)


def _left_out(ours: Point, theirs: Point | None) -> LeftOut:
    assert ours.mac_fraction is not None
    return LeftOut(
        ours.height,
        _share(ours, "left out"),
        _share(ours, "rest"),
        sum(share.mac_share for share in ours.shares if share.group == "left out"),
        ours.mac_fraction,
        _share(theirs, "rest") if theirs is not None and theirs.shares else None,
        theirs.mac_fraction if theirs is not None else None,
    )


def _share(point: Point, group: str) -> float:
    return sum(share.share for share in point.shares if share.group == group)
