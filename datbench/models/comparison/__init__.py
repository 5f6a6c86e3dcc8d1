"""Models of others' papers that no library builds as the tables need them, from their papers.

A new one is a frozen config with a `make`, its module, and a row of `literals.COMPARISONS`. Free
of torch until one is built.
"""

from .literals import COMPARISONS
from .spec import ComparisonSpec

__all__ = ["COMPARISONS", "ComparisonSpec"]
