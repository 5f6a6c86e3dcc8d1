"""Values that every part of datbench shares. Frozen, typed, and free of torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

from .errors import FieldError, ResolutionError, UnknownNameError, UsageError
from .inputs import told

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Bounds:
    """What a number in a file may be; written ``Annotated[int, Bounds(1, 4)]``."""

    least: float
    most: float | None = None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema: Any = handler(source)
        schema = {**schema, "ge": self.least}
        return schema if self.most is None else {**schema, "le": self.most}


Count = Annotated[int, Bounds(0)]
"""A whole number that is never negative."""

Positive = Annotated[int, Bounds(1)]


Attention = Literal["eager", "sdpa", "chunked"]
"""How attention products are computed: with the tensors of the published code, fused, or fused in
chunks of queries.
"""

ATTENTIONS: tuple[Attention, ...] = ("eager", "sdpa", "chunked")

DTYPES: tuple[str, ...] = ("float32", "float64", "bfloat16", "float16")

MIN_SIDE = 32
"""Smallest side in pixels of a pyramid of ours: stride 32 leaves one pixel in the last stage."""

MAX_SIDE = 32768
"""Largest side in pixels; a typing error above this would only overflow."""

MAX_BATCH = 1 << 20


@dataclass(frozen=True, init=False)
class Resolution:
    """Input size in pixels. Written ``WIDTHxHEIGHT``, as COCO's 1280x800 is.

    ``Resolution(1280, 800)``, ``Resolution("1280x800")`` and ``Resolution((1280, 800))`` are one.
    """

    width: int
    height: int

    def __init__(self, width: Size, height: int | None = None) -> None:
        sides = (width, height) if height is not None else _sides(width)
        for name, side in zip(("width", "height"), sides, strict=True):
            object.__setattr__(self, name, side)
        self.__post_init__()

    def __post_init__(self) -> None:
        for side in (self.width, self.height):
            if not 1 <= side <= MAX_SIDE:
                raise ResolutionError(
                    f"resolution {self.width}x{self.height}: each side must lie between "
                    f"1 and {MAX_SIDE} pixels."
                )

    @classmethod
    def parse(cls, text: str) -> Resolution:
        """Read ``224`` or ``1280x800`` (width, then height).

        Raises:
            ResolutionError: the text has another form, or a side is out of range.
        """
        return cls(text)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


Size: TypeAlias = "Resolution | str | int | Sequence[int]"
"""What says a size: ``"1280x800"``, ``(1280, 800)``, a number for a square, or a resolution."""


def _sides(size: Size) -> tuple[int, int]:
    """Width and height."""
    if isinstance(size, Resolution):
        return size.width, size.height
    if isinstance(size, int):
        return size, size
    if isinstance(size, str):
        match = re.fullmatch(r"([0-9]{1,9})(?:[xX×]([0-9]{1,9}))?", size.strip())
        if match is not None:
            return int(match[1]), int(match[2] or match[1])
    elif len(size) == 2 and all(isinstance(side, int) for side in size):
        return size[0], size[1]
    raise ResolutionError(
        f"resolution {size!r} is not understood; write WIDTHxHEIGHT such as 1280x800, "
        "or one number for a square."
    )


def batch_of(text: str) -> int:
    """A number of images."""
    if not (text.isdecimal() and text.isascii() and 1 <= int(text[:9]) <= MAX_BATCH):
        raise UsageError(
            f"--batch {text!r}: write a number from 1 to {MAX_BATCH}, or several: 1,8."
        )
    return int(text)


@dataclass(frozen=True)
class Setting:
    """What a figure belongs to besides the model: the input and how the model is run.

    ``Setting("1280x800")`` and ``Setting((1280, 800))`` say the resolution too.
    """

    resolution: Resolution
    batch: int = 1
    dtype: str = "float32"
    device: str = "meta"
    attention: Attention = "eager"
    backward: bool = False
    features: bool = False
    inputs: tuple[str, ...] = ()  # what the model takes (`datbench.inputs`); absent: an image

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolution", Resolution(self.resolution))
        if not 1 <= self.batch <= MAX_BATCH:
            raise FieldError(f"batch {self.batch}: write a number from 1 to {MAX_BATCH}.")
        for value, known, what in (
            (self.dtype, DTYPES, "dtype"),
            (self.attention, ATTENTIONS, "attention"),
        ):
            if value not in known:
                raise FieldError(f"{what} {value!r}: choose one of {', '.join(known)}.")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """In a file the input's sides stand among the other fields."""
        from pydantic_core.core_schema import no_info_before_validator_function

        def nested(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            sides = {name: value[name] for name in ("width", "height") if name in value}
            found = {"resolution": sides, **{k: v for k, v in value.items() if k not in sides}}
            if isinstance(found.get("inputs"), list):  # from here on a list is no tuple
                found["inputs"] = tuple(found["inputs"])
            return found

        # Under the reference of the plain schema, by which every later use finds it.
        plain: Any = {**handler.resolve_ref_schema(handler(source))}
        return no_info_before_validator_function(nested, plain, ref=plain.pop("ref", None))


class Kind(str, Enum):
    """Kinds of work. Each names its unit; a convention gives each kind a weight."""

    CONV = "conv"  # multiply-adds
    CONV_BIAS = "conv_bias"  # additions
    LINEAR = "linear"  # multiply-adds
    LINEAR_BIAS = "linear_bias"  # additions
    MATMUL = "matmul"  # multiply-adds
    ATTENTION = "attention"  # multiply-adds inside a fused or declared attention
    RECURRENT = "recurrent"  # multiply-adds
    NORM = "norm"  # elements normalised over their own statistics, scale and shift
    NORM_PLAIN = "norm_plain"  # the same without scale and shift
    NORM_FIXED = "norm_fixed"  # elements normalised with stored statistics, scale and shift
    NORM_FIXED_PLAIN = "norm_fixed_plain"
    NORM_RMS = "norm_rms"  # elements
    SAMPLE = "sample"  # output elements of bilinear sampling at given points
    UPSAMPLE_BILINEAR = "upsample_bilinear"  # output elements
    UPSAMPLE_NEAREST = "upsample_nearest"  # output elements
    UPSAMPLE_OTHER = "upsample_other"  # output elements
    ADAPTIVE_POOL2D = "adaptive_avg_pool2d"  # input elements
    POOL = "pool"  # input elements
    SOFTMAX = "softmax"  # elements
    ELEMENTWISE = "elementwise"  # output elements
    REDUCTION = "reduction"  # input elements
    FFT = "fft"  # real additions and multiplications, 5 N log2 N
    COMPLEX_PRODUCT = "complex_product"  # real multiply-adds of complex ones beyond one each
    COMPLEX = "complex"  # real operations of other complex arithmetic beyond one each

    def __str__(self) -> str:
        return self.value


MULTIPLY_ADDS: frozenset[Kind] = frozenset(
    {Kind.CONV, Kind.LINEAR, Kind.MATMUL, Kind.ATTENTION, Kind.RECURRENT}
)
"""The kinds whose unit is one multiply-add (MAC)."""

MemoryMode = Literal["inference", "forward", "backward", "step"]
"""Without gradients; the forward with what autograd keeps; the backward after it; a full step,
which ends with the optimizer's.
"""

MEMORY_MODES: tuple[MemoryMode, ...] = ("inference", "forward", "backward", "step")

WITH_BACKWARD: tuple[MemoryMode, ...] = ("backward", "step")

Optimizer = Literal["sgd", "sgd-momentum", "adamw"]

OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "sgd-momentum", "adamw")

Autocast = Literal["bfloat16", "float16"]

AUTOCASTS: tuple[Autocast, ...] = ("bfloat16", "float16")

Checkpointing = Literal["block"]

CHECKPOINTINGS: tuple[Checkpointing, ...] = ("block",)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained besides its mode and setting; None is without."""

    optimizer: Optimizer | None = None  # of a full step; there None is AdamW
    # operators that CUDA's autocast runs in this type are run in it
    autocast: Autocast | None = None
    # what is run again in the backward instead of being kept
    checkpointing: Checkpointing | None = None

    def of(self, mode: MemoryMode) -> Recipe:
        """The recipe with the optimizer that this mode has.

        Raises:
            UsageError: the mode has no use for a part of it.
        """
        for what, known in (
            ("optimizer", OPTIMIZERS),
            ("autocast", AUTOCASTS),
            ("checkpointing", CHECKPOINTINGS),
        ):
            if (name := getattr(self, what)) is not None:
                one_of(what, name, known)
        if mode == "step":
            return replace(self, optimizer=self.optimizer or "adamw")
        if self.optimizer is not None:
            raise UsageError(f"the mode {mode} makes no optimizer's step; use the mode step.")
        if self.checkpointing is not None and mode == "inference":
            raise UsageError("checkpointing saves what training keeps; inference keeps nothing.")
        return self


PLAIN = Recipe()
"""Without any of it."""

TimeMode = Literal["inference", "step"]
"""A forward without gradients; or forward, backward and a step of SGD."""

TIME_MODES: tuple[TimeMode, ...] = ("inference", "step")


@dataclass(frozen=True)
class How:
    """How a model is run and timed, beside its `Setting`."""

    mode: TimeMode = "inference"
    # that an operator runs with on a CPU; None for as many as torch takes by itself
    threads: int | None = None
    compile: bool = False  # through `torch.compile`; compiling is not part of any sample
    channels_last: bool = False  # weights and images in the memory format of that name
    flush: bool = False  # evict the GPU's level-2 cache before every sample
    budget: float = 5.0  # seconds of one process's timing, its warm-up included
    # of the median's 95 % interval, relative to the median, that ends the sampling
    width: float = 0.02
    autocast: Autocast | None = None  # of the forward, to this type; absent: without


Name = TypeVar("Name", bound=str)


def one_of(what: str, name: str, known: Sequence[Name]) -> Name:
    """The value of an option that takes one of these.

    Raises:
        UnknownNameError: it is another.
    """
    for one in known:
        if one == name:
            return one
    raise UnknownNameError.among(what, name, known)


AMP = "amp-"
"""Before the type to which a float32 model is cast, operator by operator."""

PRECISIONS = (*DTYPES, *(AMP + name for name in AUTOCASTS))

_SHORT = {"fp32": "float32", "fp64": "float64", "bf16": "bfloat16"}
_SHORT |= dict.fromkeys(("fp16", "half"), "float16")


def precision_of(text: str) -> tuple[str, Autocast | None]:
    """The dtype of model and input, and what is cast to, of ``bf16`` or ``amp-float16``.

    Raises:
        UnknownNameError: it is neither.
    """
    name = text.removeprefix(AMP)
    name = text[: len(text) - len(name)] + _SHORT.get(name, name)
    one_of("dtype", name, PRECISIONS)
    cast = next((each for each in AUTOCASTS if name == AMP + each), None)
    return ("float32" if cast else name), cast


OLD_MODES = {"infer": "inference", "train": "backward or step", "train-forward": "forward"}


def mode_of(name: str | None, known: Sequence[Name], default: Name) -> Name:
    """The mode, in the one vocabulary of all commands.

    Raises:
        UnknownNameError: it is none of those that this command has.
    """
    if name in OLD_MODES:
        raise UsageError(f"the mode {name} is now called {OLD_MODES[name]}.")
    return default if name is None else one_of("mode", name, known)


FACTS = (
    "model inputs resolution batch dtype device attention backward features mode optimizer "
    "autocast checkpointing compile channels_last flush gpus threads python source"
).split()
"""What a record's figures belong to, in the order of its columns."""

_WORDS: dict[str, tuple[Callable[[Any], str], str]] = {
    "inputs": (", ".join, "an image"),
    "resolution": (str, ""),
    "batch": (lambda n: f"batch {n}", ""),
    "dtype": (str, ""),
    "autocast": (lambda dtype: f"autocast to {dtype}", "no autocast"),
    "attention": (lambda name: f"{name} attention", ""),
    "compile": (lambda _: "compiled", "not compiled"),
    "channels_last": (lambda _: "channels last", "channels first"),
    "flush": (lambda _: "level-2 cache flushed", "cache not flushed"),
    "features": (lambda _: "four feature maps, no head", "head"),
    "mode": (str, ""),
    "backward": (lambda backward: "forward and backward" if backward else "forward", "forward"),
    "optimizer": (str, "no optimizer"),
    "checkpointing": (lambda what: f"{what} checkpointing", "no checkpointing"),
    "gpus": (lambda n: f"on each of {n} ranks", ""),
    "device": (lambda name: f"on {name}", ""),
    "threads": (lambda n: "1 thread" if n == 1 else f"{n} threads", "torch's threads"),
    "python": (lambda path: f"python {path}", "this python"),
    "source": (lambda path: f"source {path}", "as installed"),
}
"""Each fact in words, in the order in which they are said; and in words where it does not hold."""


def facts(row: Any) -> dict[str, Any]:
    """What a record's figures belong to: of `FACTS` those that the record, its setting, recipe or
    `How` has. A record without a mode is a count: of a forward, or of a backward too. Attention is
    None where datbench does not choose it.
    """
    parts = [getattr(row, name, None) for name in ("setting", "recipe", "how")]
    parts = [SimpleNamespace(**part) if isinstance(part, Mapping) else part for part in parts]
    # A row may have amounts of its own by such a name (`backward`); its setting goes before.
    holders = [part for part in (parts[0], row, *parts[1:]) if part is not None]
    found = {}
    for name in FACTS:
        holder = next((each for each in holders if hasattr(each, name)), None)
        if holder is not None:
            found[name] = getattr(holder, name)
    if not (inputs := found.get("inputs", ())):
        found.pop("inputs", None)
    elif not told(inputs, "HW"):
        found.pop("resolution", None)
    if inputs and not told(inputs, "B"):
        found.pop("batch", None)
    if "mode" in found:
        found.pop("backward", None)
    # datbench chooses it for its own models and timm's; what others return has its own.
    origin, colon, _ = found.get("model", "").partition(":")
    if "attention" in found and colon and origin not in ("timm", "config"):
        found["attention"] = None
    return found


_USUAL: dict[str, tuple[object, ...]] = {"gpus": (1,), "device": ("meta",), "backward": ()}
"""Values of a fact that are not worth a word by themselves; of others None and False."""


def _holds(name: str, value: object) -> bool:
    return value not in _USUAL.get(name, (None, False))


def describe(row: Any, *left_out: str) -> str:
    """What a record's figures belong to, in words: ``224x224, batch 1, float32, ...``.

    Args:
        left_out: facts that are not said; the model never is.
    """
    found = facts(row)
    if not str(found.get("device", "")).startswith("cpu"):
        found.pop("threads", None)
    return ", ".join(
        say(found[name])
        for name, (say, _) in _WORDS.items()
        if name in found and name not in left_out and _holds(name, found[name])
    )


def varying(rows: Sequence[Any]) -> list[str]:
    """The facts in which records differ, the model first even if it is one."""
    found = [facts(row) for row in rows]
    names = dict.fromkeys(name for each in found for name in each)
    return [n for n in names if n == "model" or len({each.get(n) for each in found}) > 1]


def labels(rows: Sequence[Any]) -> list[str]:
    """A name for each record: the model, the facts in which they differ, at last a number."""
    several = varying(rows)
    return numbered([label(row, several) for row in rows])


def label(row: Any, names: Sequence[str]) -> str:
    """A record's model and the named facts, each in words also where it does not hold."""
    found = facts(row)
    said = [
        say(found[name]) if _holds(name, found[name]) else otherwise
        for name, (say, otherwise) in _WORDS.items()
        if name in names and name in found
    ]
    return ", ".join([row.model, *filter(None, said)])


def numbered(names: Sequence[str]) -> list[str]:
    """The names, with a running number where several are alike."""
    numbers = zip(names, runs(names), strict=True)
    return [name if number is None else f"{name}, run {number}" for name, number in numbers]


def runs(names: Sequence[str]) -> list[int | None]:
    """A running number for each of the names that are alike; None where a name stands alone."""
    return [
        names[: place + 1].count(name) if names.count(name) > 1 else None
        for place, name in enumerate(names)
    ]
