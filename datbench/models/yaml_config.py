"""The published YAML configurations (LeapLabTHU/DAT, `configs/`) as specs. Free of torch.

Both years share one layout, and most of the constructor's arguments. The code of 2023 is meant
where a file has a key that only its constructor takes (`use_lpus`, `ksizes`, `nat_ksizes`,
`layer_scale_values` and so on), or a neighbourhood block; else that of 2022, which has no key or
letter of its own, so that no file can ask for both. Absent keys stand for the constructor's
defaults, which are the same in both years.

The published code ignores what it does not know; here that is refused, as is every setting that
would change a figure and is not built.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..types import MAX_SIDE, MIN_SIDE
from .config import CodeYear, FeedForward, Pyramid, Stem
from .spec import ModelSpec
from .yaml_blocks import WIDEST, check_lists, letters, stage
from .yaml_sections import Section, read_sections

# config.py of the repository.
_SECTIONS = (
    "BASE DATA MODEL TRAIN AUG TEST AMP OUTPUT TAG SAVE_FREQ PRINT_FREQ SEED EVAL_MODE "
    "THROUGHPUT_MODE LOCAL_RANK"
).split()
_DATA = "BATCH_SIZE DATA_PATH DATASET IMG_SIZE INTERPOLATION PIN_MEMORY NUM_WORKERS".split()
_MODEL = (
    "TYPE NAME RESUME NUM_CLASSES DROP_RATE DROP_PATH_RATE LABEL_SMOOTHING PRETRAINED DAT"
).split()

_NO = [False] * 4

# models/dat.py of the repository: the arguments of the constructor, and their defaults.
_BOTH_YEARS: Mapping[str, Any] = {
    "img_size": 224,
    "patch_size": 4,
    "num_classes": 1000,
    "expansion": 4,
    "dim_stem": 96,
    "dims": [96, 192, 384, 768],
    "depths": [2, 2, 6, 2],
    "heads": [3, 6, 12, 24],
    "window_sizes": [7] * 4,
    "drop_rate": 0.0,
    "attn_drop_rate": 0.0,
    "drop_path_rate": 0.0,
    "strides": [-1] * 4,
    "offset_range_factor": [1, 2, 3, 4],
    "stage_spec": [["L", "D"], ["L", "D"], ["L", "D"] * 3, ["L", "D"]],
    "groups": [-1, -1, 3, 6],
    "use_pes": _NO,
    "dwc_pes": _NO,
    "sr_ratios": [8, 4, 2, 1],
    "fixed_pes": _NO,
    "no_offs": _NO,
    "use_dwc_mlps": _NO,
    "use_conv_patches": False,
}
_ONLY_2023: Mapping[str, Any] = {
    "ksizes": [9, 7, 5, 3],
    "nat_ksizes": [3] * 4,
    "layer_scale_values": [-1] * 4,
    "use_lpus": _NO,
    "log_cpb": _NO,
}
# Of blocks that are not built here, of the optimiser, or never read: any value will do.
_UNUSED_2023 = ("heads_q", "ksize_qnas", "nqs", "qna_activation", "lower_lr_kvs")
_UNUSED = ("ns_per_pts",)


def read_config(path: Path) -> ModelSpec:
    """The model of a published configuration; its name, ``config:PATH``, resolves back to it.

    `evaluated_at` is ``DATA.IMG_SIZE`` where the file gives one that differs from the size that
    its bias tables are for.

    Raises:
        UsageError: the file cannot be read, or asks for what is not built here; the message names
            the key.
        LibraryError: PyYAML is not installed.
    """
    file = read_sections(path)
    file.check_keys(_SECTIONS)
    if file.values.get("BASE") not in (None, "", [], [""]):
        file.refuse("BASE", "it names other files; write one file that holds everything")
    if file.values.get("MODEL") is None:
        file.refuse("MODEL", "it is missing; a configuration describes its model there")
    model = file.section("MODEL", {"TYPE": "dat", "NAME": path.stem})
    model.check_keys(_MODEL)
    name = _text(model, "NAME")
    if _text(model, "TYPE") != "dat":
        model.refuse("TYPE", "datbench reads models of type dat")
    if model.values.get("DAT") is None:
        model.refuse("DAT", "it is missing; the architecture is described there")
    config = _pyramid(model.section("DAT", {**_BOTH_YEARS, **_ONLY_2023}))
    return ModelSpec(
        name=f"config:{path}",
        config=config,
        family="config",
        source=str(path),
        summary=name,
        evaluated_at=_evaluated_at(file, config.image_size),
    )


def _text(section: Section, key: str) -> str:
    value = section.values.get(key, section.defaults[key])
    if not isinstance(value, str):
        section.refuse(key, "write text")
    return value


def _evaluated_at(file: Section, image_size: int) -> int | None:
    data = file.section("DATA", {"IMG_SIZE": image_size})
    data.check_keys(_DATA)
    side = data.integer("IMG_SIZE", MIN_SIDE, MAX_SIDE)
    return None if side == image_size else side


def _pyramid(dat: Section) -> Pyramid:
    dat.check_keys((*_BOTH_YEARS, *_ONLY_2023, *_UNUSED_2023, *_UNUSED))
    check_lists(dat)
    _check_not_built(dat)
    spec = letters(dat)
    new = any(key in dat for key in (*_ONLY_2023, *_UNUSED_2023))
    year: CodeYear = 2023 if new or any("N" in stage for stage in spec) else 2022
    image = dat.integer("img_size", MIN_SIDE, MAX_SIDE)
    dims = dat.integers("dims", 1, WIDEST)
    for i in range(3):
        if dims[i + 1] != 2 * dims[i]:  # the published projection would not fit
            dat.refuse("dims", f"stage {i + 2}: {dims[i + 1]} is not twice {dims[i]}")
    stem = dat.integer("dim_stem", 2, WIDEST)
    overlap = dat.flag("use_conv_patches")
    first, second, third, fourth = (
        stage(dat, i, spec[i], year, (image // 4) >> i) for i in range(4)
    )
    return Pyramid(
        stages=(first, second, third, fourth),
        stem=_stem(overlap, year),
        stem_dim=None if stem == dims[0] else stem,
        downsample="overlap" if overlap else "patch",
        ffn=_feed_forward(dat, year),
        lpu=bool(_uniform(dat, "use_lpus", dat.flags("use_lpus"))),
        image_size=image,
        expansion=dat.integer("expansion", 1, 64),
        classes=dat.integer("num_classes", 1, 1 << 24),
        drop_path=_drop_path(dat),
        layer_scale=_layer_scale(dat),
    )


def _check_not_built(dat: Section) -> None:
    """Refuse settings of the published constructor that have no counterpart here."""
    if dat.integer("patch_size", 1, WIDEST) != 4:
        dat.refuse("patch_size", "only patches of 4 are built")
    for key in ("drop_rate", "attn_drop_rate"):
        if dat.number(key) != 0:
            dat.refuse(key, "no dropout is built; write 0.0")
    if any(dat.flags("log_cpb")):
        dat.refuse("log_cpb", "the continuous position bias is not built; write False")


def _uniform(dat: Section, key: str, values: tuple[float, ...]) -> float:
    """The one value of all four stages."""
    if len(set(values)) > 1:
        dat.refuse(key, "one value for all stages is built; write the same four times")
    return values[0]


def _stem(overlap: bool, year: CodeYear) -> Stem:
    if not overlap:
        return "patch"
    return "overlap" if year == 2022 else "double"


def _feed_forward(dat: Section, year: CodeYear) -> FeedForward:
    if not _uniform(dat, "use_dwc_mlps", dat.flags("use_dwc_mlps")):
        return "linear"
    return "conv" if year == 2022 else "conv_residual"


def _drop_path(dat: Section) -> float:
    rate = dat.number("drop_path_rate")
    if not 0 <= rate < 1:
        dat.refuse("drop_path_rate", "write a rate from 0 to below 1")
    return float(rate)


def _layer_scale(dat: Section) -> float | None:
    # Any value up to 0 means none.
    value = _uniform(
        dat, "layer_scale_values", tuple(max(x, 0) for x in dat.numbers("layer_scale_values"))
    )
    return float(value) if value > 0 else None
