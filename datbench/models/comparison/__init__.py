"""Models of others' papers that no library builds as the tables need them, from their papers.

A new one is a frozen config with a `make`, its module, and a row of `literals.COMPARISONS`. Free
of torch until one is built.
"""

from __future__ import annotations

from .ceit import CEIT_SPECS
from .glit import GLIT_SPECS
from .pvt import PVT_SPECS
from .regionvit import REGIONVIT_SPECS
from .spec import Comparisons, ComparisonSpec

# Every comparison model that datbench builds, by name. Free of torch.


COMPARISONS = Comparisons((*PVT_SPECS, *CEIT_SPECS, *GLIT_SPECS, *REGIONVIT_SPECS))

__all__ = ["COMPARISONS", "ComparisonSpec"]
