"""An attention module's cost, term by term, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from ..setting import Count


@dataclass(frozen=True)
class Term:
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


@dataclass(frozen=True)
class ModuleTerms:
    """A module, its sizes, and its terms."""

    model: str  # model, resolution, module, stage: which module of which model, for which input
    resolution: str
    module: str
    stage: int
    kind: str  # ``DMHA``, ``W-MSA``, ``SW-MSA``, ``SRA``, ``MSA``, ``NA`` or ``D-DETR``
    formula: str  # the published formula, and whose it is
    sizes: Sizes
    terms: tuple[Term, ...]
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


@dataclass(frozen=True)
class Fit:
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


@dataclass(frozen=True)
class Claim:
    """A figure of the paper's worked example."""

    what: str
    expression: str
    printed: str  # as printed; empty for a figure that the paper does not give
    amount: Count  # recomputed by counting a real module, in multiply-adds
    verdict: str  # ``agrees``, ``wrong in print`` or empty
    reason: str = ""
