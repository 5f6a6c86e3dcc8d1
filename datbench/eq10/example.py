"""The worked example of Section 3.2, recomputed by counting the modules that it speaks of."""

from __future__ import annotations

import torch

from ..counting.count import count
from ..counting.operators import ShapesOnly
from ..models.config import Deformable, Window
from ..models.mixers.attention import Mixer
from ..models.mixers.deformable import DeformableAttention
from ..models.mixers.window import WindowAttention
from ..paper.tables import Printed
from . import formulas
from .formulas import formula_of
from .identity import FVCORE, attribute
from .records import Claim

SIDE, DIM, HEADS, GROUPS, KERNEL = 14, 384, 12, 3, 5
"""Stage 3 of Swin-T at 224x224 (Section 3.2), and DAT-T's heads and groups there (Table 1)."""

_VANILLA = (formulas.PROJECTIONS, formulas.KEYS, formulas.PRODUCTS)

_VANILLA_TERMS = "2 HW Ns C + 2 HW C² + 2 Ns C²"


def claims() -> list[Claim]:
    """What the example prints, and what is to be said beside it."""
    example = _terms(_deformable(stride=2))  # Ns = 49
    released = _terms(_deformable(stride=1))  # Ns = 196
    swin = sum(_terms(_window()).values())
    network = example[formulas.OFFSETS]
    slip = float(Printed.parse("5.08M").value) / network
    everything = "Eq. 10 + 5 Ns C + 4 Ns C + 4 M HW Ns"
    return [
        _claim("attention without offsets, Ns = 49", _VANILLA_TERMS, _vanilla(example), "79.63M"),
        _claim(
            "offset network, Ns = 49, k = 5",
            "(k² + 2) Ns C",
            network,
            "5.08M",
            f"the print is {slip:.2f} times this, a slipped decimal; its share of Eq. 10 is "
            f"{_share(example)}, not 6.0 %",
        ),
        _claim(
            "attention of a block of Swin-T's stage 3",
            "4 HW C² + 2 s² HW C",
            swin,
            "79.63M",
            "the example's figure is of 49 keys; Swin-T projects a key and a value a pixel",
        ),
        _claim(
            "attention without offsets in DAT-T's stage 3, Ns = 196",
            _VANILLA_TERMS,
            _vanilla(released),
            reason="the released model has r = 1 there: four times the keys of the example",
        ),
        _claim(
            "offset network in DAT-T's stage 3, Ns = 196",
            "(k² + 2) Ns C",
            released[formulas.OFFSETS],
            reason=f"{_share(released)} of Eq. 10",
        ),
        _claim("all that is counted, Ns = 49", everything, sum(example.values())),
        _claim(
            "all that is counted in DAT-T's stage 3, Ns = 196", everything, sum(released.values())
        ),
    ]


def _claim(what: str, expression: str, amount: int, printed: str = "", reason: str = "") -> Claim:
    """A figure with its verdict, if the paper prints one; a reason only where it does not agree."""
    verdict = ""
    if printed:
        verdict = "agrees" if Printed.parse(printed).agrees(amount) else "wrong in print"
    return Claim(what, expression, printed, amount, verdict, reason)


def _vanilla(terms: dict[str, int]) -> int:
    return sum(terms[name] for name in _VANILLA)


def _share(terms: dict[str, int]) -> str:
    """The offset network's share of Eq. 10."""
    network = terms[formulas.OFFSETS]
    return f"{100 * network / (_vanilla(terms) + network):.2f} %"


def _deformable(stride: int) -> Mixer:
    return DeformableAttention(DIM, HEADS, Deformable(GROUPS, KERNEL, stride), map_side=SIDE)


def _window() -> Mixer:
    return WindowAttention(DIM, HEADS, Window(7), SIDE)


def _terms(mixer: Mixer) -> dict[str, int]:
    """What is counted in a module, by term."""
    mixer = mixer.to("meta").eval()
    with ShapesOnly():
        x = torch.empty(1, SIDE, SIDE, DIM, device="meta")
    formula = formula_of(mixer, SIDE, SIDE)
    assert formula is not None
    calls = count(mixer, x).calls
    terms = attribute("", mixer, formula, calls)
    assert sum(terms.values()) == sum(FVCORE.weigh(c.cost, c.module_type) for c in calls)
    return terms
