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
        slower = [r for r in of.ratios if r.side == of.left_out[-1].side]
        shown = any(r.low is not None and r.low > 1 for r in slower)
        found.append(_why(of.left_out[-1], shown))
    return found


def _same_cost(ratios: Sequence[Ratio]) -> str:
    last = ratios[-1]
    sure = [r for r in ratios if r.low is not None and r.high is not None]
    more = sum(r.low is not None and r.low > 1 for r in sure)
    less = sum(r.high is not None and r.high < 1 for r in sure)
    open_ = len(sure) - more - less
    counts = (("more", more), ("less", less), ("no difference shown", open_))
    verdict = f"{', '.join(f'{word} on {n}' for word, n in counts if n)} of {len(sure)} maps"
    if not sure:
        verdict = "too few samples for an interval on any map; a larger budget gives them"
    if last.low is not None and last.high is not None:
        verdict += f"; {last.time:.2f} times ({last.low:.2f} to {last.high:.2f}) on the largest"
    return (
        "Does r = 1 cost the same as global attention? By the formula nearly: "
        f"{factor(last.formula)} times as much on {last.side}x{last.side}, with "
        f"{factor(last.bytes)} times the bytes. In time: {verdict}."
    )


def _why(of: LeftOut, slower: bool) -> str:
    asked = "Why is DAT slower than its MACs say?" if slower else "Where does DAT's time go?"
    text = (
        f"{asked} On {of.side}x{of.side} at r = 1 the formula leaves "
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
