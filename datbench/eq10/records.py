"""An attention module's cost, term by term, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from ..setting import Count, Resolution
from ..timing.records import Ceilings, Timing
from ..units import Brief


@dataclass(frozen=True)
class FormulaTerm:
    """One term of a module's cost, in multiply-adds as fvcore weighs them."""

    name: str  # what the work is
    expression: str  # the term as it is written
    formula: int  # what the published formula gives; 0 where it leaves the work out
    predicted: int  # what must be counted, from the module's sizes alone
    counted: Count  # what was counted, from the operators that ran
    cause: str = ""  # why `predicted` is not `formula`; empty where it is

    @property
    def residual(self) -> int:
        """Counted minus formula."""
        return self.counted - self.formula

    @property
    def holds(self) -> bool:
        """Whether it is as predicted, and differs from the formula where a cause is named."""
        return self.counted == self.predicted and bool(self.residual) == bool(self.cause)


@dataclass(frozen=True)
class Sizes:
    """The sizes that the formulas speak of."""

    height: int  # height, width: of the map; HW is their product
    width: int
    keys: int  # Ns, keys that a query can see
    dim: int  # dim, heads: C, M
    heads: int
    # k of the offset network, side of a window, or points a query of Deformable DETR
    kernel: int | None = None
    stride: int = 1  # r, how much coarser the grid of keys is; 1 where keys are the map
    groups: int | None = None  # G of the offset network


@dataclass(frozen=True, repr=False)
class ModuleTerms(Brief):
    """A module, its sizes, and its terms."""

    model: str  # model, resolution, module, stage: which module of which model, for which input
    resolution: str
    module: str
    stage: int
    kind: str  # ``DMHA``, ``W-MSA``, ``SW-MSA``, ``SRA``, ``MSA``, ``NA`` or ``D-DETR``
    formula: str  # the published formula, and whose it is
    sizes: Sizes
    terms: tuple[FormulaTerm, ...]
    counted: Count  # everything that was counted inside the module, attributed to a term or not
    published: int  # the formula as it is written there, evaluated at these sizes
    runs: Count = 1  # maps that the module saw for one image: 1, unless it is used more than once

    @property
    def by_formula(self) -> int:
        """The formula's value."""
        return sum(term.formula for term in self.terms)

    @property
    def residual(self) -> int:
        """Counted minus formula."""
        return self.counted - self.by_formula

    @property
    def holds(self) -> bool:
        """Whether formula + causes = counted, term by term and as a whole, exactly."""
        return (
            self.counted == sum(term.counted for term in self.terms)
            and self.published == self.by_formula
            and all(term.holds for term in self.terms)
        )


@dataclass(frozen=True)
class Coefficient:
    """A monomial's coefficient, recovered from counts alone."""

    monomial: str
    fitted: str  # an integer, or a fraction where no integers fit
    own: str  # of the work that Eq. 10 has a term for.
    paper: int  # what Eq. 10 has.
    parts: dict[str, str]  # the coefficient of each term by itself, by the term's name


@dataclass(frozen=True, repr=False)
class Fit(Brief):
    """Coefficients from a grid of modules."""

    convention: str  # whose weights the counts have
    coefficients: tuple[Coefficient, ...]
    solved_on: Count  # modules whose counts the coefficients were solved from
    held_out: Count  # all others
    # the largest difference on a held-out module, in multiply-adds; 0 if the fit is exact
    worst: int

    @property
    def holds(self) -> bool:
        """Whether integers fit, every held-out count is met, and Eq. 10 is right in its terms."""
        return self.worst == 0 and all(
            "/" not in c.fitted and c.own == str(c.paper) for c in self.coefficients
        )


@dataclass(frozen=True, repr=False)
class Claim(Brief):
    """A figure of the paper's worked example."""

    what: str
    expression: str
    printed: str  # as printed; empty for a figure that the paper does not give
    amount: Count  # recomputed by counting a real module, in multiply-adds
    verdict: str  # ``agrees``, ``wrong in print`` or empty
    reason: str = ""


# Times of attention modules.


ShareGroup = Literal["formula", "left out", "rest"]
"""Whose time it is: a term's of the formula; a term's that the formula leaves out; no term's."""


@dataclass(frozen=True)
class TimeShare:
    """A part of a module's time, from the profiler."""

    name: str  # a term of the module's, or what belongs to none
    group: ShareGroup
    # in this part's operators, each without those it called; a run, profiler and all
    seconds: float
    share: float  # of all operators' time, 0 to 1
    macs: Count  # counted in this part; a batch's
    mac_share: float  # of everything counted, 0 to 1
    operators: int  # that the module itself called here, a run


@dataclass(frozen=True, repr=False)
class MeasuredModule(Brief):
    """One attention module at one size."""

    kind: str  # ``DMHA``, ``MSA``, ``W-MSA``, ``SRA`` or ``D-DETR``
    height: int
    width: int
    keys: int  # Ns, keys that a query can see
    stride: int  # r, how much coarser the grid of keys is than the map
    formula: int  # the published formula's multiply-adds, for the batch
    macs: Count  # everything counted, as fvcore weighs it, for the batch
    bytes: Count  # read and written by all operators, for the batch
    timing: Timing | None = None
    mac_rate: float | None = None  # mac_rate, byte_rate: `macs` and `bytes` over the median time
    byte_rate: float | None = None
    # mac_fraction, byte_fraction: of the machine peaks; above 1 where a small map is in a cache
    mac_fraction: float | None = None
    byte_fraction: float | None = None
    # allocated on a GPU while one call ran, weights and input among them
    peak_bytes: Count | None = None
    shares: tuple[TimeShare, ...] = ()  # empty where they were not measured
    reason: str | None = None  # why there is no timing

    @property
    def name(self) -> str:
        """``DMHA 32x32 r 4``; r where the grid of keys has one."""
        coarser = f" r {self.stride}" if self.kind in ("DMHA", "SRA") else ""
        return f"{self.kind} {self.height}x{self.width}{coarser}"


@dataclass(frozen=True)
class Exponent:
    """A power law through some points: cost ~ size ** exponent, by least squares of logarithms."""

    kind: str
    over: Literal["HW", "Ns"]  # ``HW`` (at this stride) or ``Ns`` (on a map of this side)
    held: str  # what stays fixed
    points: int  # that the line goes through
    time: float  # time, low, high: the exponent of the time, and its 95 % confidence interval
    low: float
    high: float
    formula: float  # formula, macs, bytes: the exponents of these over the same points
    macs: float
    bytes: float


@dataclass(frozen=True)
class CostRatio:
    """Deformable attention at r = 1 over global attention, on the same map."""

    side: int
    time: float  # of the medians
    # low, high: an interval that holds it at 95 % or more; None where samples are too few
    low: float | None
    high: float | None
    formula: float  # formula, macs, bytes: the same ratio of these
    macs: float
    bytes: float
    memory: float | None  # of the peaks on a GPU


@dataclass(frozen=True)
class LeftOut:
    """What the formula leaves out of deformable attention at r = 1, in time and in MACs."""

    side: int
    # share of the time in work that is counted and left out (a norm, sampling, the bias)
    terms: float
    rest: float  # share of the time in elementwise operators, softmax and copies
    macs: float  # share of everything counted that the formula leaves out
    mac_fraction: float  # achieved of the matrix product's MAC/s
    # global_rest, global_mac_fraction: the same of global attention on this map, if measured
    global_rest: float | None
    global_mac_fraction: float | None


@dataclass(frozen=True, repr=False)
class Measurements(Brief):
    """Attention modules over growing maps and growing numbers of keys."""

    dim: int
    heads: int
    groups: int
    kernel: int
    window: int  # side of W-MSA's windows
    ratio: int  # of SRA where the map grows
    detr_points: int  # keys a query and head of Deformable-DETR attention
    batch: int
    dtype: str
    device: str
    attention: str
    budget: float  # seconds that were allowed
    seconds: float  # that were used
    ceilings: Ceilings | None
    points: tuple[MeasuredModule, ...]
    exponents: tuple[Exponent, ...]
    ratios: tuple[CostRatio, ...]
    left_out: tuple[LeftOut, ...]
    interrupted: bool  # whether somebody ended it; every point here is whole


def map_side(size: Resolution, stage: int) -> int:
    """The side of a stage's map: stage 1 has stride 4, each later one twice the stride.

    Raises:
        UsageError: the map is not a square of whole pixels.
    """
    stride: int = 2 ** (stage + 1)
    if size.width != size.height or size.width % stride:
        raise UsageError(
            f"--res {size}: square maps are timed; write multiples of {stride}, the stride of "
            f"stage {stage}."
        )
    return size.width // stride
