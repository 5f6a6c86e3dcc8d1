"""Models of others' papers that no library builds as the tables need them, from their papers.

A new one is a file with its frozen architecture in `MODELS` and its module, which is called
`MODULE` too, and a row of `COMPARISONS`. The rows are free of torch; an architecture loads when it
is used.
"""

from __future__ import annotations

from ..spec import by_name
from .spec import ComparisonSpec

_PVT, _DPT, _NAT = "PVT (ICCV 2021)", "DPT (ACM MM 2021)", "NAT (CVPR 2023)"
_CEIT, _GLIT, _RVIT = "CeiT (ICCV 2021)", "GLiT (ICCV 2021)", "RegionViT (ICLR 2022)"

COMPARISONS = by_name(
    (
        ComparisonSpec("pvt_t", "pvt", _PVT, "PVT-Tiny"),
        ComparisonSpec("pvt_s", "pvt", _PVT, "PVT-Small"),
        ComparisonSpec("pvt_m", "pvt", _PVT, "PVT-Medium"),
        ComparisonSpec("pvt_l", "pvt", _PVT, "PVT-Large"),
        ComparisonSpec("dpt_t", "pvt", _DPT, "DPT-Tiny, PVT with deformable patches"),
        ComparisonSpec("dpt_s", "pvt", _DPT, "DPT-Small, PVT with deformable patches"),
        ComparisonSpec("dpt_m", "pvt", _DPT, "DPT-Medium, PVT with deformable patches"),
        ComparisonSpec("ceit_s", "ceit", _CEIT, "CeiT-S, convolutions in FFNs", has_maps=False),
        ComparisonSpec(
            "glit_t", "glit", _GLIT, "GLiT-Tiny, searched, global and local", has_maps=False
        ),
        ComparisonSpec("nat_mini", "nat", _NAT, "NAT-Mini, neighbourhood attention"),
        ComparisonSpec("nat_t", "nat", _NAT, "NAT-Tiny, neighbourhood attention"),
        ComparisonSpec("nat_s", "nat", _NAT, "NAT-Small, neighbourhood attention"),
        ComparisonSpec("nat_b", "nat", _NAT, "NAT-Base, neighbourhood attention"),
        ComparisonSpec("regionvit_s", "regionvit", _RVIT, "RegionViT-S, regional and local tokens"),
    )
)
"""Every comparison model that datbench builds, by name."""

__all__ = ["COMPARISONS", "ComparisonSpec"]
