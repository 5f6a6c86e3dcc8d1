"""Names that papers use, and the models that they mean here, most of them timm's.

Names are read without regard to case, hyphens and a ``++``: ``DAT-T++``, ``Swin-T``, ``vit_b``. The
architecture and input of each are those of the paper's model of that name.
"""

from __future__ import annotations

from .spec import TIMM

_SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large"}

_FAMILIES = {  # size by size, of those that timm has
    "swin": ("tsbl", "swin_{}_patch4_window7_224"),
    "swinv2": ("tsb", "swinv2_{}_window8_256"),
    "convnext": ("tsbl", "convnext_{}"),
    "convnextv2": ("tbl", "convnextv2_{}"),
    "deit": ("tsb", "deit_{}_patch16_224"),
    "vit": ("tsbl", "vit_{}_patch16_224"),
    "beit": ("bl", "beit_{}_patch16_224"),
    "davit": ("tsbl", "davit_{}"),
    "maxvit": ("tsbl", "maxvit_{}_tf_224"),
    "mvitv2": ("tsbl", "mvitv2_{}"),
    "focalnet": ("tsb", "focalnet_{}_srf"),
    "twins_svt": ("sbl", "twins_svt_{}"),
    "twins_pcpvt": ("sbl", "twins_pcpvt_{}"),
}

_OTHERS = {
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "regnety_4g": "regnety_040",
    "regnety_8g": "regnety_080",
    "regnety_16g": "regnety_160",
    **{f"pvtv2_b{n}": f"pvt_v2_b{n}" for n in range(6)},
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    **{f"efficientnet_b{n}": f"efficientnet_b{n}" for n in range(5)},
}

ALIASES: dict[str, str] = {
    **{f"dat_{size}pp": f"datpp_{size}" for size in "tsb"},
    **{
        f"{family}_{size}": TIMM + name.format(_SIZES[size])
        for family, (sizes, name) in _FAMILIES.items()
        for size in sizes
    },
    **{alias: TIMM + name for alias, name in _OTHERS.items()},
}
"""What each alias stands for."""


def plain(name: str) -> str:
    """A name as names are written here: ``DAT-T++`` is ``dat_tpp``, which may be an alias."""
    return name.strip().lower().replace("-", "_").replace("++", "pp")
