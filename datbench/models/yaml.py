"""The published configurations as specs. Free of torch.

Those of LeapLabTHU/DAT (`configs/*.yaml`) are sections, of which ``MODEL.DAT`` holds the arguments
of the constructor. Those of LeapLabTHU/DAT-Detection and DAT-Segmentation (`configs/dat/*.py`) hold
them as the keys of ``model.backbone``; those keys may also stand in a YAML file.

The constructors of all codes share most arguments, and their defaults. The code of 2023 is meant
where a file has a key that only its constructor takes (`use_lpus`, `ksizes`, `nat_ksizes`,
`layer_scale_values` and so on), or a neighbourhood block; else that of June 2022, which has no key
or letter of its own. Only who asks for it gets that of January 2022.

The published code ignores what it does not know; here that is refused, as is every setting that
would change a figure and is not built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeAlias, TypeVar, get_args

from typing_extensions import Required, TypedDict

from ..errors import LibraryError, UnknownNameError, UsageError
from ..files import read_text
from ..records import check_name, read_as, said, unknown_keys
from ..setting import MAX_SIDE, MIN_SIDE, Bounds
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
from .mmcv import read_mmcv
from .spec import CONFIG, ModelSpec

Code: TypeAlias = Literal["2022-01", "2022-06", "2023"]
"""A published code: LeapLabTHU/DAT's commits 81c67ea and 42b489e (to which the weights of 2022
belong), which differ in the offset network's kernels alone, and DAT++'s."""

LARGEST_FILE = 1 << 20
"""Bytes; the published configurations have about a thousand."""

MOST_VALUES = 10_000
"""In a file, each alias as what it stands for: they nest a small file into a huge one."""

# Far above what is published; what is larger would overflow before it meant anything.
WIDEST = 1 << 16

T = TypeVar("T")

Four: TypeAlias = tuple[T, T, T, T]
"""A value for each stage."""

Width: TypeAlias = Annotated[int, Bounds(1, WIDEST)]

Unread: TypeAlias = Annotated[int, Bounds(-WIDEST, WIDEST)]
"""A value that a stage without such a block does not read: -1 in the published files."""

_NO = (False,) * 4


@dataclass(frozen=True)
class Arguments:
    """The arguments of the published constructors, with their defaults (dat.py of each repository).

    A stage's values are checked where one of its blocks reads them.
    """

    img_size: Annotated[int, Bounds(MIN_SIDE, MAX_SIDE)] = 224
    patch_size: int = 4
    num_classes: Annotated[int, Bounds(1, 1 << 24)] = 1000
    expansion: Annotated[int, Bounds(1, 64)] = 4
    dim_stem: Annotated[int, Bounds(2, WIDEST)] = 96
    dims: Four[Width] = (96, 192, 384, 768)
    depths: Four[Annotated[int, Bounds(1, 1000)]] = (2, 2, 6, 2)
    heads: Four[Width] = (3, 6, 12, 24)
    window_sizes: Four[Unread] = (7, 7, 7, 7)
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    strides: Four[Unread] = (-1, -1, -1, -1)
    offset_range_factor: Four[float] = (1, 2, 3, 4)
    stage_spec: Four[tuple[str, ...]] = (("L", "D"), ("L", "D"), ("L", "D") * 3, ("L", "D"))
    groups: Four[Unread] = (-1, -1, 3, 6)
    use_pes: Four[bool] = _NO
    dwc_pes: Four[bool] = _NO
    sr_ratios: Four[Unread] = (8, 4, 2, 1)
    fixed_pes: Four[bool] = _NO
    no_offs: Four[bool] = _NO
    use_dwc_mlps: Four[bool] = _NO
    use_conv_patches: bool = False
    # Of the code of 2023 alone.
    ksizes: Four[Unread] = (9, 7, 5, 3)
    nat_ksizes: Four[Unread] = (3, 3, 3, 3)
    layer_scale_values: Four[float] = (-1, -1, -1, -1)
    use_lpus: Four[bool] = _NO
    log_cpb: Four[bool] = _NO
    use_cmt_mlps: Four[bool] = _NO
    out_indices: tuple[int, ...] = (0, 1, 2, 3)  # of detection and segmentation


ONLY_2023 = (
    "ksizes nat_ksizes layer_scale_values use_lpus log_cpb use_cmt_mlps heads_q ksize_qnas nqs "
    "qna_activation lower_lr_kvs local_orf local_kv_sizes offset_pes deform_groups".split()
)

# Those that are no field are of blocks that are not built here, of training, or never read by
# the published code either: any value will do.
KEYS = {
    *Arguments.__dataclass_fields__,
    *ONLY_2023,
    *("ns_per_pts", "type", "use_checkpoint", "init_cfg", "pretrained"),
}


class _Model(TypedDict, total=False):
    NAME: str
    DAT: Required[Arguments]


class _Data(TypedDict, total=False):
    IMG_SIZE: Annotated[int, Bounds(MIN_SIDE, MAX_SIDE)]


class _Dense(TypedDict):
    backbone: Arguments


class Sections(TypedDict, total=False):
    """What is read of a file: one of the three sections that hold arguments."""

    MODEL: _Model
    DATA: _Data | None
    model: _Dense
    backbone: Arguments


PLACES = {"MODEL": "MODEL.DAT", "model": "model.backbone", "backbone": "backbone"}
"""Where the arguments stand in a file that has this section."""

SECTIONS = {
    "": "MODEL DATA BASE TRAIN AUG TEST AMP OUTPUT TAG SAVE_FREQ PRINT_FREQ SEED EVAL_MODE "
    "THROUGHPUT_MODE LOCAL_RANK".split(),
    "MODEL": "TYPE NAME DAT RESUME NUM_CLASSES DROP_RATE DROP_PATH_RATE LABEL_SMOOTHING "
    "PRETRAINED".split(),
    "DATA": "IMG_SIZE BATCH_SIZE DATA_PATH DATASET INTERPOLATION PIN_MEMORY NUM_WORKERS".split(),
}
"""The other keys of a file with ``MODEL`` (config.py of the repository)."""


def read_config(path: Path, code: Code | None = None) -> ModelSpec:
    """The model of a published configuration; its name, ``config:PATH``, resolves back to it.

    `evaluated_at` is ``DATA.IMG_SIZE`` where the file gives one that differs from the size that
    its bias tables are for.

    Args:
        code: the published code to follow. Default: 2023 where the file has a key or a block of
            that code alone, else 2022-06.

    Raises:
        UsageError: the file cannot be read, or asks for what is not built here; the message names
            the key.
        LibraryError: PyYAML is not installed.
    """
    content = _content(path)
    place = next((PLACES[name] for name in PLACES if name in content), "backbone")
    sections = _sections(path, content, place)
    given, values = _at(content, place), _at(sections, place)
    section, data = sections.get("MODEL"), sections.get("DATA") or {}
    where = f"{path}: {place}."
    config = Configuration(where, given, values, _code(where, given, values, code)).pyramid()
    side = data.get("IMG_SIZE", config.image_size)
    return ModelSpec(
        name=f"{CONFIG}{path}" + (f",code={code}" if code else ""),
        config=config,
        family="config",
        source=str(path),
        summary=section.get("NAME", path.stem) if section else path.stem,
        evaluated_at=None if side == config.image_size else side,
    )


def _sections(path: Path, content: dict[str, Any], place: str) -> Sections:
    """A file, checked, whose arguments stand in `place`."""
    for key in ("BASE", "_base_"):
        if content.get(key) not in (None, "", [], [""]):
            told = "it names other files; write one file that holds everything"
            raise UsageError(f"{path}: {key}: {told}.")
    kind = "MODEL.TYPE" if place == "MODEL.DAT" else f"{place}.type"
    # A name in mmcv's registry may have dots: mmdet.DAT.
    if not str(_at(content, kind) or "dat").rpartition(".")[2].lower().startswith("dat"):
        raise UsageError(f"{path}: {kind}: datbench reads models of type dat.")
    known = {**(SECTIONS if place == "MODEL.DAT" else {}), place: KEYS}
    unknown = [
        f"{section or 'top level'}: {problem}"
        for section, keys in known.items()
        if isinstance(found := _at(content, section), dict)
        for problem in unknown_keys(found, keys)
    ]
    if unknown:
        raise UnknownNameError(f"{path}: {' '.join(unknown)}")
    sections: Sections = read_as(Sections, content, str(path), extra="ignore")
    return sections


def _at(content: Any, place: str) -> Any:
    """What stands in a place such as ``MODEL.DAT``; None if that is not there."""
    for name in filter(None, place.split(".")):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _code(where: str, given: Mapping[str, Any], values: Arguments, asked: Code | None) -> Code:
    """The code that a file is for.

    Raises:
        UsageError: there is no such code, or the file has what only that of 2023 takes.
    """
    new = [key for key in given if key in ONLY_2023]
    new += ["stage_spec"] * any("N" in stage for stage in values.stage_spec)
    if asked is None:
        return "2023" if new else "2022-06"
    check_name("code", asked, get_args(Code), where.rstrip(":. "))
    if new and asked != "2023":
        raise UsageError(
            f"{where}{new[0]}: only the code of 2023 takes it; leave out code={asked}."
        )
    return asked


def _content(path: Path) -> dict[str, Any]:
    """What a YAML file holds, or mmcv's Python assigns, with one of the sections in `PLACES`."""
    content = read_mmcv(path, LARGEST_FILE) if path.suffix == ".py" else _yaml(path)
    if len(list(islice(_values(content), MOST_VALUES + 1))) > MOST_VALUES:
        raise UsageError(f"{path} holds more than {MOST_VALUES} values, aliases included.")
    if not PLACES.keys() & content.keys():
        if not KEYS & content.keys():
            hint = "its keys stand in MODEL.DAT, model.backbone or backbone, or alone"
            raise UsageError(f"{path} holds no DAT: {hint}.")
        content = {"backbone": content}
    return content


def _yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise LibraryError(f"reading {path} needs PyYAML: pip install pyyaml.") from error
    text = read_text(path, LARGEST_FILE)
    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    # What mmcv writes for a tuple.
    loader.add_constructor("tag:yaml.org,2002:python/tuple", loader.construct_sequence)
    try:
        content = yaml.load(text, loader)
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
        raise UsageError(f"{path} holds {said(content)}, not the sections of a configuration.")
    return content


def _values(content: Any) -> Iterator[Any]:
    """Every value, and what an alias stands for as often as it is used."""
    left = [content]
    while left:
        value = left.pop()
        yield value
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value


@dataclass(frozen=True)
class Configuration:
    """The arguments of a file, which become a `Pyramid` where all of them are built here."""

    where: str  # the file as the user named it, and what stands before a key there
    given: Mapping[str, Any]  # the keys that it has
    values: Arguments
    code: Code

    @property
    def year(self) -> CodeYear:
        """That of the code."""
        return 2023 if self.code == "2023" else 2022

    def refuse(self, key: str, problem: str, stage: int | None = None) -> NoReturn:
        """Raise UsageError about `key`, or about its value for a stage (from 0)."""
        where = "" if stage is None else f"stage {stage + 1}: "
        note = "" if key in self.given else f" ({key} is absent: this is its published default)"
        raise UsageError(f"{self.where}{key}: {where}{problem}{note}.")

    def value(self, key: str, i: int, low: int, high: int) -> int:
        """A stage's value of a key that the other stages may leave at -1."""
        value: int = getattr(self.values, key)[i]
        if not low <= value <= high:
            self.refuse(key, f"{value} lies outside {low} to {high}", i)
        return value

    def uniform(self, key: str) -> Any:
        """The one value of all four stages."""
        values = set(getattr(self.values, key))
        if len(values) > 1:
            self.refuse(key, "one value for all stages is built; write the same four times")
        return values.pop()

    def pyramid(self) -> Pyramid:
        """The whole model."""
        dat, year = self.values, self.year
        self._check_built()
        self._check_letters()
        for i in range(3):
            if dat.dims[i + 1] != 2 * dat.dims[i]:  # the published projection would not fit
                self.refuse("dims", f"{dat.dims[i + 1]} is not twice {dat.dims[i]}", i + 1)
        overlap = dat.use_conv_patches
        stem: Stem = "overlap" if year == 2022 else "double"
        ffn: FeedForward = "conv" if year == 2022 else "conv_residual"
        scale = self._layer_scale()
        first, second, third, fourth = (self._stage(i) for i in range(4))
        return Pyramid(
            stages=(first, second, third, fourth),
            stem=stem if overlap else "patch",
            stem_dim=None if dat.dim_stem == dat.dims[0] else dat.dim_stem,
            downsample="overlap" if overlap else "patch",
            ffn=ffn if self.uniform("use_dwc_mlps") else "linear",
            lpu=self.uniform("use_lpus"),
            image_size=dat.img_size,
            expansion=dat.expansion,
            classes=dat.num_classes,
            drop_path=dat.drop_path_rate,
            layer_scale=scale,
        )

    def _check_built(self) -> None:
        """Refuse settings of the published constructor that have no counterpart here."""
        dat = self.values
        if dat.patch_size != 4:
            self.refuse("patch_size", "only patches of 4 are built")
        for key in ("drop_rate", "attn_drop_rate"):
            if getattr(dat, key) != 0:
                self.refuse(key, "no dropout is built; write 0.0")
        if not 0 <= dat.drop_path_rate < 1:
            self.refuse("drop_path_rate", "write a rate from 0 to below 1")
        if any(dat.log_cpb):
            self.refuse("log_cpb", "the continuous position bias is not built; write False")
        if any(dat.use_cmt_mlps):
            self.refuse("use_cmt_mlps", "the feed-forward of CMT is not built; write False")
        if dat.out_indices not in ((0, 1, 2, 3), (1, 2, 3)):  # the second are RetinaNet's
            self.refuse("out_indices", "write [0, 1, 2, 3]; RetinaNet takes the last three")

    def _check_letters(self) -> None:
        for i, letters in enumerate(self.values.stage_spec):
            depth = self.values.depths[i]
            if len(letters) != depth:
                self.refuse("stage_spec", f"it has {len(letters)} letters for depth {depth}", i)
            for letter in letters:
                if letter not in LETTERS:
                    built = ", ".join(LETTERS)
                    self.refuse("stage_spec", f"block {letter[:9]!r} is not built; choose {built}")

    def _layer_scale(self) -> float | None:
        # Any value up to 0 means none.
        kept = {max(value, 0.0) for value in self.values.layer_scale_values}
        if len(kept) > 1:
            self.uniform("layer_scale_values")
        (value,) = kept
        return value or None

    def _stage(self, i: int) -> Stage:
        """Stage `i`, from 0."""
        dim, heads = self.values.dims[i], self.values.heads[i]
        if dim % heads:
            self.refuse("heads", f"width {dim} is not a multiple of {heads} heads", i)
        side = (self.values.img_size // 4) >> i  # of its map at the training size
        letters = self.values.stage_spec[i]
        made = {letter: _mixer(self, letter, i, side) for letter in sorted(set(letters))}
        return Stage(dim, heads, tuple(made[letter] for letter in letters))


LETTERS = "L", "S", "N", "P", "D"
"""The blocks that are built."""

_KERNELS_JUNE = (9, 7, 5, 3)
"""The offset network's in each stage, whatever the map (models/dat_blocks.py, 42b489e)."""

_KERNEL_JANUARY = {96: 9, 56: 9, 48: 7, 28: 7, 24: 5, 14: 5, 12: 3, 7: 3}
"""The same by the map's side (models/dat_blocks.py, 81c67ea), which fails at any other side."""

_NAT_KERNELS = (3, 5, 7, 9, 11, 13)
"""The sizes that the published neighbourhood attention takes."""

_WINDOW, _KERNEL = 64, 127
"""Far above what is published."""


def _mixer(dat: Configuration, letter: str, i: int, side: int) -> Mixer:
    match letter:
        case "L":
            return Window(dat.value("window_sizes", i, 1, _WINDOW))
        case "S":
            size = dat.value("window_sizes", i, 2, _WINDOW)
            return Window(size, shift=-(-size // 2))
        case "N":
            size = dat.value("nat_ksizes", i, min(_NAT_KERNELS), max(_NAT_KERNELS))
            if size not in _NAT_KERNELS:
                dat.refuse("nat_ksizes", f"{size} is even; write an odd number", i)
            return Neighborhood(size)
        case "P":
            return SpatialReduction(dat.value("sr_ratios", i, 1, side))
    return _deformable(dat, i, side)


def _deformable(dat: Configuration, i: int, side: int) -> Mixer:
    heads, year = dat.values.heads[i], dat.year
    groups = dat.value("groups", i, 1, heads)
    if heads % groups:
        dat.refuse("groups", f"{heads} heads are no multiple of {groups} groups", i)
    stride = dat.value("strides", i, 1, side)
    kernel = _kernel(dat, i, side)
    bias = _bias(dat.values, i)
    exact = year == 2023 and kernel == stride  # not padded
    points = (side + (0 if exact else 2 * (kernel // 2)) - kernel) // stride + 1
    table = side if year == 2022 else side // stride
    if bias == "fixed" and points != table:
        problem = f"its table is for {table}x{table} keys, not {points}x{points}"
        dat.refuse("fixed_pes", problem, i)
    offsets = not dat.values.no_offs[i]
    if not offsets and year == 2023:
        # That code runs the offset network, frozen, and drops the bias: other figures than Table 6.
        dat.refuse("no_offs", "it is built for the code of 2022 only", i)
    if not offsets and stride != 1:
        dat.refuse("no_offs", "without offsets only a stride of 1 is built", i)
    # Below 0 the position is bounded instead of the offset; at 0, in 2022, neither is.
    factor = dat.values.offset_range_factor[i]
    if factor == 0 and year == 2022:
        dat.refuse("offset_range_factor", "0 leaves the 2022 offsets unbounded: not built", i)
    return Deformable(
        groups, kernel, stride, None if factor < 0 else float(factor), bias, offsets, year
    )


def _kernel(dat: Configuration, i: int, side: int) -> int:
    if dat.code == "2023":
        return dat.value("ksizes", i, 1, _KERNEL)
    if dat.code == "2022-06":
        return _KERNELS_JUNE[i]
    if side not in _KERNEL_JANUARY:
        sides = ", ".join(str(known) for known in sorted(_KERNEL_JANUARY))
        problem = f"the code of January 2022 has no offset kernel for a map of side {side}"
        dat.refuse("img_size", f"{problem}, only for {sides}; leave out code=2022-01", i)
    return _KERNEL_JANUARY[side]


def _bias(dat: Arguments, i: int) -> PositionBias:
    if not dat.use_pes[i]:
        return "none"
    if dat.dwc_pes[i]:
        return "dwconv"
    return "fixed" if dat.fixed_pes[i] else "relative"
