"""An attention module's cost, term by term, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """One term of a module's cost, in multiply-adds as fvcore weighs them.

    Args:
        name: what the work is.
        expression: the term as it is written.
        formula: what the published formula gives; 0 where it leaves the work out.
        predicted: what must be counted, from the module's sizes alone.
        counted: what was counted, from the operators that ran.
        cause: why `predicted` is not `formula`; empty where it is.
    """

    name: str
    expression: str
    formula: int
    predicted: int
    counted: int
    cause: str = ""

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
    """The sizes that the formulas speak of.

    Args:
        height, width: of the map; HW is their product.
        keys: Ns, keys that a query can see.
        dim, heads: C, M.
        kernel: k of the offset network, side of a window, or points a query of Deformable DETR.
        stride: r, how much coarser the grid of keys is; 1 where keys are the map.
        groups: G of the offset network.
    """

    height: int
    width: int
    keys: int
    dim: int
    heads: int
    kernel: int | None = None
    stride: int = 1
    groups: int | None = None


@dataclass(frozen=True)
class ModuleTerms:
    """A module, its sizes, and its terms.

    Args:
        model, resolution, module, stage: which module of which model, for which input.
        kind: ``DMHA``, ``W-MSA``, ``SW-MSA``, ``SRA``, ``MSA``, ``NA`` or ``D-DETR``.
        formula: the published formula, and whose it is.
        published: the formula as it is written there, evaluated at these sizes.
        runs: maps that the module saw for one image: 1, unless it is used more than once.
        counted: everything that was counted inside the module, attributed to a term or not.
    """

    model: str
    resolution: str
    module: str
    stage: int
    kind: str
    formula: str
    sizes: Sizes
    terms: tuple[Term, ...]
    counted: int
    published: int
    runs: int = 1

    @property
    def by_formula(self) -> int:
        """The formula's value."""
        return sum(term.formula for term in self.terms)

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
    """A monomial's coefficient, recovered from counts alone.

    Args:
        fitted: an integer, or a fraction where no integers fit.
        own: of the work that Eq. 10 has a term for.
        paper: what Eq. 10 has.
        parts: the coefficient of each term by itself, by the term's name.
    """

    monomial: str
    fitted: str
    own: str
    paper: int
    parts: dict[str, str]


@dataclass(frozen=True)
class Fit:
    """Coefficients from a grid of modules.

    Args:
        convention: whose weights the counts have.
        solved_on: modules whose counts the coefficients were solved from.
        held_out: all others.
        worst: the largest difference on a held-out module, in multiply-adds; 0 if the fit is exact.
    """

    convention: str
    coefficients: tuple[Coefficient, ...]
    solved_on: int
    held_out: int
    worst: int

    @property
    def holds(self) -> bool:
        """Whether integers fit, every held-out count is met, and Eq. 10 is right in its terms."""
        return self.worst == 0 and all(
            "/" not in c.fitted and c.own == str(c.paper) for c in self.coefficients
        )


@dataclass(frozen=True)
class Claim:
    """A figure of the paper's worked example.

    Args:
        printed: as printed; empty for a figure that the paper does not give.
        amount: recomputed by counting a real module, in multiply-adds.
        verdict: ``agrees``, ``wrong in print`` or empty.
    """

    what: str
    expression: str
    printed: str
    amount: int
    verdict: str
    reason: str = ""
