"""The blocks of a published YAML configuration: a letter for each, and lists with a value a stage.

A stage's values are checked where one of its blocks reads them; elsewhere the files say -1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from .config import (
    CodeYear,
    Deformable,
    Mixer,
    Neighborhood,
    PositionBias,
    SpatialReduction,
    Stage,
    Window,
)
from .yaml_sections import Section

_KERNEL_2022 = {96: 9, 56: 9, 48: 7, 28: 7, 24: 5, 14: 5, 12: 3, 7: 3}
"""The 2022 code chooses the offset network's kernel by the map's side, and knows no others."""

_NAT_KERNELS = (3, 5, 7, 9, 11, 13)
"""The sizes that the published neighbourhood attention takes."""

# Far above what is published; what is larger would overflow before it meant anything.
WIDEST, _DEEPEST, _WINDOW, _KERNEL = 1 << 16, 1000, 64, 127
ANY = (-WIDEST, WIDEST)
"""Range of a value that a stage without such a block does not read: -1 in the published files."""

_INTEGERS = ("window_sizes", "strides", "groups", "sr_ratios", "ksizes", "nat_ksizes")
_NUMBERS = ("offset_range_factor", "layer_scale_values")
_FLAGS = ("use_pes", "dwc_pes", "fixed_pes", "no_offs", "use_dwc_mlps", "use_lpus", "log_cpb")


def check_lists(dat: Section) -> None:
    """Every list has a value of the right type for each stage, read or not."""
    for key in _INTEGERS:
        dat.integers(key, *ANY)
    for key in _NUMBERS:
        dat.numbers(key)
    for key in _FLAGS:
        dat.flags(key)


def letters(dat: Section) -> list[list[str]]:
    """The mixers' letters, a list for each stage."""
    depths = dat.integers("depths", 1, _DEEPEST)
    given = dat.four("stage_spec")
    for i, stage in enumerate(given):
        if not isinstance(stage, list) or not all(isinstance(letter, str) for letter in stage):
            dat.refuse("stage_spec", f"stage {i + 1}: write a list of letters, one a block")
        if len(stage) != depths[i]:
            dat.refuse(
                "stage_spec", f"stage {i + 1}: it has {len(stage)} letters for depth {depths[i]}"
            )
        for letter in stage:
            if letter not in _MIXERS:
                built = ", ".join(_MIXERS)
                dat.refuse("stage_spec", f"block {letter[:9]!r} is not built; choose {built}")
    return given


def stage(dat: Section, i: int, spec: list[str], year: CodeYear, side: int) -> Stage:
    """Stage `i` (from 0), whose map at the training size has this side."""
    dim, heads = dat.integers("dims", 1, WIDEST)[i], dat.integers("heads", 1, WIDEST)[i]
    if dim % heads:
        dat.refuse("heads", f"stage {i + 1}: width {dim} is no multiple of {heads} heads")
    made = {letter: _MIXERS[letter](dat, i, year, side) for letter in sorted(set(spec))}
    return Stage(dim, heads, tuple(made[letter] for letter in spec))


def _value(dat: Section, key: str, i: int, low: int, high: int) -> int:
    """A stage's value of a key that the other stages may leave at -1."""
    value = dat.integers(key, *ANY)[i]
    if not low <= value <= high:
        _refuse(dat, key, i, f"{value} lies outside {low} to {high}")
    return value


def _refuse(dat: Section, key: str, i: int, problem: str) -> NoReturn:
    dat.refuse(key, f"stage {i + 1}: {problem}")


def _window(dat: Section, i: int, year: CodeYear, side: int) -> Mixer:
    return Window(_value(dat, "window_sizes", i, 1, _WINDOW))


def _shifted_window(dat: Section, i: int, year: CodeYear, side: int) -> Mixer:
    size = _value(dat, "window_sizes", i, 2, _WINDOW)
    return Window(size, shift=-(-size // 2))


def _neighborhood(dat: Section, i: int, year: CodeYear, side: int) -> Mixer:
    size = _value(dat, "nat_ksizes", i, min(_NAT_KERNELS), max(_NAT_KERNELS))
    if size not in _NAT_KERNELS:
        _refuse(dat, "nat_ksizes", i, f"{size} is even; write an odd number")
    return Neighborhood(size)


def _spatial_reduction(dat: Section, i: int, year: CodeYear, side: int) -> Mixer:
    return SpatialReduction(_value(dat, "sr_ratios", i, 1, side))


def _deformable(dat: Section, i: int, year: CodeYear, side: int) -> Mixer:
    heads = dat.integers("heads", 1, WIDEST)[i]
    groups = _value(dat, "groups", i, 1, heads)
    if heads % groups:
        _refuse(dat, "groups", i, f"{heads} heads are no multiple of {groups} groups")
    stride = _value(dat, "strides", i, 1, side)
    kernel = _kernel(dat, i, year, side)
    bias = _bias(dat, i)
    exact = year == 2023 and kernel == stride  # not padded
    points = (side + (0 if exact else 2 * (kernel // 2)) - kernel) // stride + 1
    table = side if year == 2022 else side // stride
    if bias == "fixed" and points != table:
        _refuse(
            dat, "fixed_pes", i, f"its table is for {table}x{table} keys, not {points}x{points}"
        )
    offsets = not dat.flags("no_offs")[i]
    if not offsets and year == 2023:
        # That code runs the offset network, frozen, and drops the bias: other figures than Table 6.
        _refuse(dat, "no_offs", i, "it is built for the code of 2022 only")
    if not offsets and stride != 1:
        _refuse(dat, "no_offs", i, "without offsets only a stride of 1 is built")
    return Deformable(groups, kernel, stride, _offset_range(dat, i, year), bias, offsets, year)


def _kernel(dat: Section, i: int, year: CodeYear, side: int) -> int:
    if year == 2023:
        return _value(dat, "ksizes", i, 1, _KERNEL)
    if side not in _KERNEL_2022:
        sides = ", ".join(str(known) for known in sorted(_KERNEL_2022))
        dat.refuse(
            "img_size",
            f"stage {i + 1}: the 2022 code has no offset kernel for a map of side {side}, only "
            f"for {sides}; write 224 or 384",
        )
    return _KERNEL_2022[side]


def _bias(dat: Section, i: int) -> PositionBias:
    if not dat.flags("use_pes")[i]:
        return "none"
    if dat.flags("dwc_pes")[i]:
        return "dwconv"
    return "fixed" if dat.flags("fixed_pes")[i] else "relative"


def _offset_range(dat: Section, i: int, year: CodeYear) -> float | None:
    """Below 0 the position is bounded instead of the offset; at 0, in 2022, neither is."""
    factor = dat.numbers("offset_range_factor")[i]
    if factor == 0 and year == 2022:
        _refuse(dat, "offset_range_factor", i, "0 leaves the 2022 offsets unbounded: not built")
    return None if factor < 0 else float(factor)


_MIXERS: Mapping[str, Callable[[Section, int, CodeYear, int], Mixer]] = {
    "L": _window,
    "S": _shifted_window,
    "N": _neighborhood,
    "P": _spatial_reduction,
    "D": _deformable,
}
