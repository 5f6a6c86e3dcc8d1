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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeAlias, TypeVar

from typing_extensions import Required, TypedDict

from ..errors import LibraryError, UsageError
from ..files import read_text
from ..records import check_keys, read_as, said
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
from .spec import ModelSpec

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
    """``MODEL.DAT``: the arguments of the published constructor, with its defaults (models/dat.py).

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
    ns_per_pts: Any = None  # never read
    # Of the code of 2023 alone.
    ksizes: Four[Unread] = (9, 7, 5, 3)
    nat_ksizes: Four[Unread] = (3, 3, 3, 3)
    layer_scale_values: Four[float] = (-1, -1, -1, -1)
    use_lpus: Four[bool] = _NO
    log_cpb: Four[bool] = _NO
    # Of blocks that are not built here, or of the optimiser: any value will do.
    heads_q: Any = None
    ksize_qnas: Any = None
    nqs: Any = None
    qna_activation: Any = None
    lower_lr_kvs: Any = None


ONLY_2023 = frozenset(
    "ksizes nat_ksizes layer_scale_values use_lpus log_cpb heads_q ksize_qnas nqs qna_activation "
    "lower_lr_kvs".split()
)

# config.py of the repository; what is of no interest here may hold anything.


class ModelSection(TypedDict, total=False):
    """``MODEL``."""

    TYPE: str
    NAME: str
    DAT: Required[Arguments]
    RESUME: Any
    NUM_CLASSES: Any
    DROP_RATE: Any
    DROP_PATH_RATE: Any
    LABEL_SMOOTHING: Any
    PRETRAINED: Any


class DataSection(TypedDict, total=False):
    """``DATA``."""

    IMG_SIZE: Annotated[int, Bounds(MIN_SIDE, MAX_SIDE)]
    BATCH_SIZE: Any
    DATA_PATH: Any
    DATASET: Any
    INTERPOLATION: Any
    PIN_MEMORY: Any
    NUM_WORKERS: Any


class Sections(TypedDict, total=False):
    """A whole file."""

    MODEL: Required[ModelSection]
    DATA: DataSection | None
    BASE: Any
    TRAIN: Any
    AUG: Any
    TEST: Any
    AMP: Any
    OUTPUT: Any
    TAG: Any
    SAVE_FREQ: Any
    PRINT_FREQ: Any
    SEED: Any
    EVAL_MODE: Any
    THROUGHPUT_MODE: Any
    LOCAL_RANK: Any


def read_config(path: Path) -> ModelSpec:
    """The model of a published configuration; its name, ``config:PATH``, resolves back to it.

    `evaluated_at` is ``DATA.IMG_SIZE`` where the file gives one that differs from the size that
    its bias tables are for.

    Raises:
        UsageError: the file cannot be read, or asks for what is not built here; the message names
            the key.
        LibraryError: PyYAML is not installed.
    """
    content = _content(path)
    model, data = content.get("MODEL"), content.get("DATA")
    for keys, known, name in (
        (content, Sections, "top level"),
        (model, ModelSection, "MODEL"),
        (data, DataSection, "DATA"),
        (model.get("DAT") if isinstance(model, dict) else None, Arguments, "MODEL.DAT"),
    ):
        check_keys(keys if isinstance(keys, dict) else (), known.__annotations__, f"{path}: {name}")
    if content.get("BASE") not in (None, "", [], [""]):
        raise UsageError(
            f"{path}: BASE: it names other files; write one file that holds everything."
        )
    sections: Sections = read_as(Sections, content, str(path))
    section = sections["MODEL"]
    if section.get("TYPE", "dat") != "dat":
        raise UsageError(f"{path}: MODEL.TYPE: datbench reads models of type dat.")
    config = Configuration(str(path), content["MODEL"]["DAT"], section["DAT"]).pyramid()
    side = (sections.get("DATA") or {}).get("IMG_SIZE", config.image_size)
    return ModelSpec(
        name=f"config:{path}",
        config=config,
        family="config",
        source=str(path),
        summary=section.get("NAME", path.stem),
        evaluated_at=None if side == config.image_size else side,
    )


def _content(path: Path) -> dict[str, Any]:
    """The sections of a YAML file."""
    try:
        import yaml
    except ImportError as error:
        raise LibraryError(f"reading {path} needs PyYAML: pip install pyyaml.") from error
    text = read_text(path, LARGEST_FILE)
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
        raise UsageError(f"{path} holds {said(content)}, not the sections of a configuration.")
    if len(list(islice(_values(content), MOST_VALUES + 1))) > MOST_VALUES:
        raise UsageError(f"{path} holds more than {MOST_VALUES} values, aliases included.")
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

    file: str  # as the user named it
    given: Mapping[str, Any]  # the keys that it has
    values: Arguments

    @property
    def year(self) -> CodeYear:
        """Whose code the file is for."""
        new = any(key in ONLY_2023 for key in self.given)
        return 2023 if new or any("N" in stage for stage in self.values.stage_spec) else 2022

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raise UsageError about `key`."""
        note = "" if key in self.given else f" ({key} is absent: this is its published default)"
        raise UsageError(f"{self.file}: MODEL.DAT.{key}: {problem}{note}.")

    def refuse_stage(self, key: str, i: int, problem: str) -> NoReturn:
        """The same about stage `i`, from 0."""
        self.refuse(key, f"stage {i + 1}: {problem}")

    def value(self, key: str, i: int, low: int, high: int) -> int:
        """A stage's value of a key that the other stages may leave at -1."""
        value: int = getattr(self.values, key)[i]
        if not low <= value <= high:
            self.refuse_stage(key, i, f"{value} lies outside {low} to {high}")
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
                self.refuse("dims", f"stage {i + 2}: {dat.dims[i + 1]} is not twice {dat.dims[i]}")
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

    def _check_letters(self) -> None:
        for i, letters in enumerate(self.values.stage_spec):
            depth = self.values.depths[i]
            if len(letters) != depth:
                self.refuse_stage(
                    "stage_spec", i, f"it has {len(letters)} letters for depth {depth}"
                )
            for letter in letters:
                if letter not in _MIXERS:
                    built = ", ".join(_MIXERS)
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
            self.refuse_stage("heads", i, f"width {dim} is not a multiple of {heads} heads")
        side = (self.values.img_size // 4) >> i  # of its map at the training size
        letters = self.values.stage_spec[i]
        made = {letter: _MIXERS[letter](self, i, side) for letter in sorted(set(letters))}
        return Stage(dim, heads, tuple(made[letter] for letter in letters))


# The blocks, a letter for each.


_KERNEL_2022 = {96: 9, 56: 9, 48: 7, 28: 7, 24: 5, 14: 5, 12: 3, 7: 3}
"""The 2022 code chooses the offset network's kernel by the map's side, and knows no others."""

_NAT_KERNELS = (3, 5, 7, 9, 11, 13)
"""The sizes that the published neighbourhood attention takes."""

_WINDOW, _KERNEL = 64, 127
"""Far above what is published."""


def _window(dat: Configuration, i: int, side: int) -> Mixer:
    return Window(dat.value("window_sizes", i, 1, _WINDOW))


def _shifted_window(dat: Configuration, i: int, side: int) -> Mixer:
    size = dat.value("window_sizes", i, 2, _WINDOW)
    return Window(size, shift=-(-size // 2))


def _neighborhood(dat: Configuration, i: int, side: int) -> Mixer:
    size = dat.value("nat_ksizes", i, min(_NAT_KERNELS), max(_NAT_KERNELS))
    if size not in _NAT_KERNELS:
        dat.refuse_stage("nat_ksizes", i, f"{size} is even; write an odd number")
    return Neighborhood(size)


def _spatial_reduction(dat: Configuration, i: int, side: int) -> Mixer:
    return SpatialReduction(dat.value("sr_ratios", i, 1, side))


def _deformable(dat: Configuration, i: int, side: int) -> Mixer:
    heads, year = dat.values.heads[i], dat.year
    groups = dat.value("groups", i, 1, heads)
    if heads % groups:
        dat.refuse_stage("groups", i, f"{heads} heads are no multiple of {groups} groups")
    stride = dat.value("strides", i, 1, side)
    kernel = _kernel(dat, i, side)
    bias = _bias(dat.values, i)
    exact = year == 2023 and kernel == stride  # not padded
    points = (side + (0 if exact else 2 * (kernel // 2)) - kernel) // stride + 1
    table = side if year == 2022 else side // stride
    if bias == "fixed" and points != table:
        problem = f"its table is for {table}x{table} keys, not {points}x{points}"
        dat.refuse_stage("fixed_pes", i, problem)
    offsets = not dat.values.no_offs[i]
    if not offsets and year == 2023:
        # That code runs the offset network, frozen, and drops the bias: other figures than Table 6.
        dat.refuse_stage("no_offs", i, "it is built for the code of 2022 only")
    if not offsets and stride != 1:
        dat.refuse_stage("no_offs", i, "without offsets only a stride of 1 is built")
    # Below 0 the position is bounded instead of the offset; at 0, in 2022, neither is.
    factor = dat.values.offset_range_factor[i]
    if factor == 0 and year == 2022:
        dat.refuse_stage("offset_range_factor", i, "0 leaves the 2022 offsets unbounded: not built")
    return Deformable(
        groups, kernel, stride, None if factor < 0 else float(factor), bias, offsets, year
    )


def _kernel(dat: Configuration, i: int, side: int) -> int:
    if dat.year == 2023:
        return dat.value("ksizes", i, 1, _KERNEL)
    if side not in _KERNEL_2022:
        sides = ", ".join(str(known) for known in sorted(_KERNEL_2022))
        problem = f"the 2022 code has no offset kernel for a map of side {side}, only for {sides}"
        dat.refuse_stage("img_size", i, f"{problem}; write 224 or 384")
    return _KERNEL_2022[side]


def _bias(dat: Arguments, i: int) -> PositionBias:
    if not dat.use_pes[i]:
        return "none"
    if dat.dwc_pes[i]:
        return "dwconv"
    return "fixed" if dat.fixed_pes[i] else "relative"


_MIXERS: Mapping[str, Callable[[Configuration, int, int], Mixer]] = {
    "L": _window,
    "S": _shifted_window,
    "N": _neighborhood,
    "P": _spatial_reduction,
    "D": _deformable,
}
