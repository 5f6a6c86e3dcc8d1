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

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import LibraryError, UnknownNameError, UsageError
from ..setting import MAX_SIDE, MIN_SIDE
from .config import (
    CodeYear,
    Deformable,
    FeedForward,
    Mixer,
    Neighborhood,
    PositionBias,
    Pyramid,
    SpatialReduction,
    Stage,
    Stem,
    Window,
)
from .spec import ModelSpec

# A YAML file as sections whose values are checked when they are asked for.
#
# What is wrong is one line: the file, the key's whole name, and what to write instead.


_LARGEST_FILE = 1 << 20
"""Bytes; the published configurations have about a thousand."""

_LARGEST = 10**9
"""What no setting reaches. Integers of a file may be too long to be printed."""

_KINDS = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    bool: "true or false",
    type(None): "empty",
}


def _kind(value: object) -> str:
    """What a value is, in words. Never its text: aliases nest a small file into a huge one."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "a number"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


@dataclass(frozen=True)
class Section:
    """The keys below one name of a file.

    Args:
        file: as the user named it.
        name: ``MODEL.DAT``; empty for the whole file.
        values: what the file says.
        defaults: what an absent key stands for.
    """

    file: str
    name: str
    values: Mapping[Any, Any]
    defaults: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raise UsageError about `key`."""
        absent = f" ({key} is absent: this is its published default)"
        note = absent if key in self.defaults and key not in self.values else ""
        raise UsageError(f"{self.file}: {self._full(key)}: {problem}{note}.")

    def check_keys(self, known: Iterable[str]) -> None:
        """Refuse a key that is not known, with the one that was probably meant."""
        names = {name.lower(): name for name in known}
        for key in self.values:
            if isinstance(key, str) and key in names.values():
                continue
            where = f"{self.file}: {self.name or 'top level'}"
            if not isinstance(key, str):
                raise UsageError(f"{where}: a key is {_kind(key)}; keys are names.")
            close = difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.6)
            hint = f"did you mean {names[close[0]]}?" if close else "remove it."
            raise UnknownNameError(f"{where}: unknown key {key[:60]!r}; {hint}")

    def section(self, key: str, defaults: Mapping[str, Any] | None = None) -> Section:
        """The mapping below `key`; an empty one where it is absent or holds nothing."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            self.refuse(key, f"it is {_kind(value)}; write keys below it")
        return Section(self.file, self._full(key), value or {}, defaults or {})

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return self._integer(key, "", self._get(key), low, high)

    def number(self, key: str) -> float:
        """A finite number."""
        return self._number(key, "", self._get(key))

    def flag(self, key: str) -> bool:
        """True or false."""
        return self._flag(key, "", self._get(key))

    def integers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        """A whole number for each stage."""
        return tuple(
            self._integer(key, f"stage {i}: ", value, low, high)
            for i, value in enumerate(self.four(key), 1)
        )

    def numbers(self, key: str) -> tuple[float, ...]:
        """A finite number for each stage."""
        return tuple(
            self._number(key, f"stage {i}: ", value) for i, value in enumerate(self.four(key), 1)
        )

    def flags(self, key: str) -> tuple[bool, ...]:
        """True or false for each stage."""
        return tuple(
            self._flag(key, f"stage {i}: ", value) for i, value in enumerate(self.four(key), 1)
        )

    def four(self, key: str) -> list[Any]:
        """One value, of whatever kind, for each of the four stages."""
        value = self._get(key)
        if not isinstance(value, list):
            self.refuse(key, f"it is {_kind(value)}; write a list of 4, one value a stage")
        if len(value) != 4:
            self.refuse(key, f"it has {len(value)} entries; write 4, one a stage")
        return value

    def _full(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def _get(self, key: str) -> Any:
        return self.values.get(key, self.defaults.get(key))

    def _integer(self, key: str, where: str, value: object, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(key, f"{where}it is {_kind(value)}; write a whole number")
        if not low <= value <= high:
            shown = value if abs(value) < _LARGEST else "the number"
            self.refuse(key, f"{where}{shown} lies outside {low} to {high}")
        return value

    def _number(self, key: str, where: str, value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self.refuse(key, f"{where}it is {_kind(value)}; write a number such as 0.2")
        if not abs(value) < _LARGEST:  # nor is it nan
            self.refuse(key, f"{where}write a finite number such as 0.2")
        return value

    def _flag(self, key: str, where: str, value: object) -> bool:
        if not isinstance(value, bool):
            self.refuse(key, f"{where}it is {_kind(value)}; write True or False")
        return value


def read_sections(path: Path) -> Section:
    """The whole of a YAML file.

    Raises:
        UsageError: it cannot be read, or holds no mapping; the message says where it is malformed.
        LibraryError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise LibraryError(f"reading {path} needs PyYAML: pip install pyyaml.") from error
    text = _section_text(path)
    try:
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UsageError(f"{path}: {where}{error.problem or 'no YAML'}.") from error
    except yaml.reader.ReaderError as error:  # a character that YAML forbids
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise UsageError(f"{path}: line {line}, column {column}: {error.reason}.") from error
    except Exception as error:  # a scalar that its tag cannot hold raises whatever it leads to
        raise UsageError(
            f"{path}: a value cannot be read as YAML ({type(error).__name__})."
        ) from error
    if content is None:
        raise UsageError(f"{path} is empty; a configuration has a MODEL section.")
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds {_kind(content)}, not the sections of a configuration.")
    return Section(str(path), "", content, {})


def _section_text(path: Path) -> str:
    try:
        if not path.is_file():
            exists = "is a directory" if path.is_dir() else "is no file"
            raise UsageError(f"{path} {exists if path.exists() else 'does not exist'}.")
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"{path} is larger than a mebibyte: it is no configuration.")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error


# The blocks of a published YAML configuration: a letter for each, and lists with a value a stage.
#
# A stage's values are checked where one of its blocks reads them; elsewhere the files say -1.


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
