"""Models of others' papers that no library builds as the tables need them, from their papers.

A new one is a file with a frozen architecture and its module, which is called `MODEL` too, and a
row of `COMPARISONS`. The rows are free of torch; an architecture loads when it is used.
"""

from __future__ import annotations

from ..spec import Registry
from .spec import ComparisonSpec

_PVT, _DPT, _NAT = "PVT (ICCV 2021)", "DPT (ACM MM 2021)", "NAT (CVPR 2023)"
_CEIT, _GLIT, _REGIONVIT = "CeiT (ICCV 2021)", "GLiT (ICCV 2021)", "RegionViT (ICLR 2022)"

COMPARISONS = Registry(
    (
        ComparisonSpec("pvt_t", "pvt.PVT_T", _PVT, "PVT-Tiny"),
        ComparisonSpec("pvt_s", "pvt.PVT_S", _PVT, "PVT-Small"),
        ComparisonSpec("pvt_m", "pvt.PVT_M", _PVT, "PVT-Medium"),
        ComparisonSpec("pvt_l", "pvt.PVT_L", _PVT, "PVT-Large"),
        ComparisonSpec("dpt_t", "pvt.DPT_T", _DPT, "DPT-Tiny, PVT with deformable patches"),
        ComparisonSpec("dpt_s", "pvt.DPT_S", _DPT, "DPT-Small, PVT with deformable patches"),
        ComparisonSpec("dpt_m", "pvt.DPT_M", _DPT, "DPT-Medium, PVT with deformable patches"),
        ComparisonSpec("ceit_s", "ceit.CEIT_S", _CEIT, "CeiT-S, convolutions in FFNs", False),
        ComparisonSpec(
            "glit_t", "glit.GLIT_T", _GLIT, "GLiT-Tiny, searched, global and local", False
        ),
        ComparisonSpec("nat_mini", "nat.NAT_MINI", _NAT, "NAT-Mini, neighbourhood attention"),
        ComparisonSpec("nat_t", "nat.NAT_T", _NAT, "NAT-Tiny, neighbourhood attention"),
        ComparisonSpec("nat_s", "nat.NAT_S", _NAT, "NAT-Small, neighbourhood attention"),
        ComparisonSpec("nat_b", "nat.NAT_B", _NAT, "NAT-Base, neighbourhood attention"),
        ComparisonSpec(
            "regionvit_s",
            "regionvit.REGIONVIT_S",
            _REGIONVIT,
            "RegionViT-S, regional and local tokens",
        ),
    )
)
"""Every comparison model that datbench builds, by name."""

__all__ = ["COMPARISONS", "ComparisonSpec"]
