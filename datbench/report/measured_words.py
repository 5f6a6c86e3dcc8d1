"""What measured attention modules answer, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from ..measurements import LeftOut, Measurements, Ratio


def percent(value: float) -> str:
    """``0.153`` -> ``15.3 %``."""
    return f"{100 * value:.1f} %"


def factor(value: float) -> str:
    """``2.07``; with a third decimal where two would hide that it is not 1."""
    return f"{value:.3f}" if value < 1.1 else f"{value:.2f}"


def answers(of: Measurements) -> list[str]:
    """Whether r = 1 costs what global attention costs, and why DAT is slower than its MACs say."""
    found = []
    if of.ratios:
        found.append(_same_cost(of.ratios))
    if of.left_out:
        found.append(_why(of.left_out[-1]))
    return found


def _same_cost(ratios: Sequence[Ratio]) -> str:
    last = ratios[-1]
    sure = [r for r in ratios if r.low is not None and r.high is not None]
    more = sum(r.low is not None and r.low > 1 for r in sure)
    less = sum(r.high is not None and r.high < 1 for r in sure)
    found = [f"{word} on {n}" for word, n in (("more", more), ("less", less)) if n]
    found = found or ["no difference shown on any"]
    verdict = f"{', '.join(found)} of {len(sure)} maps with an interval"
    if not sure:
        verdict = "too few samples for an interval on any map; a larger budget gives them"
    bounds = (
        "" if last.low is None or last.high is None else f" ({last.low:.2f} to {last.high:.2f})"
    )
    return (
        "Does r = 1 cost the same as global attention? By the formula nearly: "
        f"{factor(last.formula)} times as much on {last.side}x{last.side}. In time: "
        f"{verdict}; {last.time:.2f} times{bounds} "
        f"on the largest, with {factor(last.bytes)} times the bytes."
    )


def _why(of: LeftOut) -> str:
    text = (
        f"Why is DAT slower than its MACs say? On {of.side}x{of.side} at r = 1 the formula leaves "
        f"out {percent(of.macs)} of the counted MACs, and they take {percent(of.terms)} of the "
        f"time; softmax, elementwise operators and copies, no MACs at all, take "
        f"{percent(of.rest)}. It reaches {percent(of.mac_fraction)} of the matrix product's MAC/s"
    )
    if of.global_mac_fraction is None or of.global_rest is None:
        return f"{text}."
    return (
        f"{text}; global attention {percent(of.global_mac_fraction)}, with "
        f"{percent(of.global_rest)} of its time in no MACs."
    )
