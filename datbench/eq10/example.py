"""The worked example of Section 3.2, recomputed by counting the modules that it speaks of."""

from __future__ import annotations

from ..models.config import Deformable, Window
from ..models.mixers.attention import Mixer
from ..models.mixers.deformable import DeformableAttention
from ..models.mixers.window import WindowAttention
from ..paper.tables import Printed
from . import formulas
from .curves import point_of
from .records import Claim

SIDE, DIM, HEADS, GROUPS, KERNEL = 14, 384, 12, 3, 5
"""Stage 3 of Swin-T at 224x224 (Section 3.2), and DAT-T's heads and groups there (Table 1)."""

_VANILLA = "2 HW Ns C + 2 HW C² + 2 Ns C²"

_NETWORK = "(k² + 2) Ns C"

_EVERYTHING = "Eq. 10 + 5 Ns C + 4 Ns C + 4 M HW Ns"


def claims() -> list[Claim]:
    """What the example prints, and what is to be said beside it."""
    example = _terms(_deformable(stride=2))  # Ns = 49
    released = _terms(_deformable(stride=1))  # Ns = 196
    swin = _terms(WindowAttention(DIM, HEADS, Window(7), SIDE))
    slip = float(Printed.parse("5.08M").value) / example[formulas.OFFSETS]
    return [
        _claim("attention without offsets, Ns = 49", _VANILLA, _vanilla(example), "79.63M"),
        _claim(
            "offset network, Ns = 49, k = 5",
            _NETWORK,
            example[formulas.OFFSETS],
            "5.08M",
            f"the printed value is {slip:.2f} times this, a slipped decimal; its share of "
            f"Eq. 10 is {_share(example)}, not 6.0 %",
        ),
        _claim(
            "attention of a block of Swin-T's stage 3",
            "4 HW C² + 2 s² HW C",
            sum(swin.values()),
            "79.63M",
            "the example's figure is of 49 keys; Swin-T projects a key and a value a pixel",
        ),
        _claim(
            "attention without offsets in DAT-T's stage 3, Ns = 196",
            _VANILLA,
            _vanilla(released),
            reason="the released model has r = 1 there: four times the keys of the example",
        ),
        _claim(
            "offset network in DAT-T's stage 3, Ns = 196",
            _NETWORK,
            released[formulas.OFFSETS],
            reason=f"{_share(released)} of Eq. 10",
        ),
        _claim("all that is counted, Ns = 49", _EVERYTHING, sum(example.values())),
        _claim(
            "all that is counted in DAT-T's stage 3, Ns = 196", _EVERYTHING, sum(released.values())
        ),
    ]


def _claim(what: str, expression: str, amount: int, printed: str = "", reason: str = "") -> Claim:
    """A figure with its verdict, if the paper prints one; a reason only where it does not agree."""
    verdict = ""
    if printed:
        verdict = "agrees" if Printed.parse(printed).agrees(amount) else "wrong in print"
    return Claim(what, expression, printed, amount, verdict, reason)


def _vanilla(terms: dict[str, int]) -> int:
    return sum(terms[name] for name in (formulas.PROJECTIONS, formulas.KEYS, formulas.PRODUCTS))


def _share(terms: dict[str, int]) -> str:
    """The offset network's share of Eq. 10."""
    network = terms[formulas.OFFSETS]
    return f"{100 * network / (_vanilla(terms) + network):.2f} %"


def _deformable(stride: int) -> Mixer:
    return DeformableAttention(DIM, HEADS, Deformable(GROUPS, KERNEL, stride), map_side=SIDE)


def _terms(mixer: Mixer) -> dict[str, int]:
    """What is counted in a module, by term."""
    terms = point_of(mixer.to("meta").eval(), SIDE, SIDE).terms
    return {term.name: term.counted for term in terms if term.counted}
