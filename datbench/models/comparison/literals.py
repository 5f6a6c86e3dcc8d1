"""Every comparison model that datbench builds, by name. Free of torch."""

from __future__ import annotations

from .ceit import CEIT_SPECS
from .glit import GLIT_SPECS
from .pvt import PVT_SPECS
from .regionvit import REGIONVIT_SPECS
from .spec import Comparisons

COMPARISONS = Comparisons((*PVT_SPECS, *CEIT_SPECS, *GLIT_SPECS, *REGIONVIT_SPECS))
