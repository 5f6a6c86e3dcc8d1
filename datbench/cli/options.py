"""Options that several commands share, and what they are parsed into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ..errors import UnknownNameError, UsageError
from ..models.comparison import COMPARISONS
from ..models.dat import REGISTRY
from ..models.detectors.heads import HEADS, JOINT, join
from ..models.resolve import Spec, resolve
from ..models.spec import CONFIG
from ..setting import ATTENTIONS, DTYPES, TIME_MODES, Resolution


class Format(str, Enum):
    """Output formats."""

    TABLE = "table"
    CSV = "csv"
    MD = "md"
    JSON = "json"
    LATEX = "latex"


def complete(*names: str) -> Callable[[str], list[str]]:
    """Shell completion of an option that takes one of `names`."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def option(
    help: str, *flags: str, default: str | bool = True, names: Sequence[str] = (), **more: Any
) -> Any:
    """An option of a command.

    Args:
        flags: its spellings, where they are not its parameter's name.
        default: what the help says of it; False for nothing, True for the value itself.
        names: values that the shell completes.
    """
    completion = complete(*names) if names else None
    return typer.Option(*flags, help=help, show_default=default, autocompletion=completion, **more)


def complete_models(incomplete: str) -> list[tuple[str, str]]:
    """Names for shell completion, with a line about each; heads after a ``+``."""
    backbone, joint, begun = incomplete.rpartition(JOINT)
    if joint:
        heads = [head for head in HEADS.values() if head.name.startswith(begun)]
        return [(f"{backbone}{JOINT}{head.name}", head.summary) for head in heads]
    known = [*REGISTRY, *COMPARISONS]
    return [(s.name, s.summary) for s in known if s.name.startswith(incomplete)]


_NAMES = (
    "dat_t and the like (`datbench models` lists them), timm:NAME, transformers:NAME, config:FILE "
    "or package.module:factory; MODEL+HEAD puts a detector or segmentor on it (`--with`)."
)


def _model(help: str) -> Any:
    return typer.Argument(
        metavar="MODEL", help=help, autocompletion=complete_models, show_default=False
    )


def _file(help: str, flag: str, default: bool = True) -> Any:
    """A file, about which its reader or writer says what is wrong."""
    return option(help, flag, default=default, metavar="FILE", readable=False)


_CONFIG = "A published YAML configuration of the DAT repositories, "

Models = Annotated[list[str] | None, _model(f"Models: {_NAMES}")]

Model = Annotated[str | None, _model(f"A model: {_NAMES}")]

Configs = Annotated[
    list[Path] | None, _file(f"{_CONFIG}as one more model.", "--config", default=False)
]

Config = Annotated[Path | None, _file(f"{_CONFIG}in place of MODEL.", "--config", default=False)]

_SIZE = "Input size, WIDTHxHEIGHT or one number for a square"

_OWN_SIZE = "Default: the size of the model's published results."

OneResolution = Annotated[
    str | None, option(f"{_SIZE}. {_OWN_SIZE}", "--res", default=False, metavar="WxH")
]

Resolutions = Annotated[
    list[str] | None,
    option(
        f"{_SIZE}; repeat for several. {_OWN_SIZE}",
        "--res",
        default=False,
        metavar="WxH",
    ),
]

With = Annotated[
    list[str] | None,  # so that a second one can be refused
    option(
        "Put a detector or segmentor on every model: retinanet, mask_rcnn, "
        "cascade_mask_rcnn, semantic_fpn or upernet; the same as the name MODEL+HEAD.",
        "--with",
        default=False,
        names=list(HEADS),
        metavar="HEAD",
    ),
]

Dtype = Annotated[
    str, option("Of the model and its input: float32, float64, bfloat16 or float16.", names=DTYPES)
]

AttentionName = Annotated[
    str, option("eager (the published code's tensors) or sdpa (fused).", names=ATTENTIONS)
]

Features = Annotated[bool, option("Four feature maps with a norm each, no head.", "--features")]

Mode = Annotated[
    str,
    option(
        "infer (a forward without gradients) or train (forward, backward and a step of SGD).",
        names=TIME_MODES,
    ),
]

ChannelsLast = Annotated[
    bool, option("Weights and images in that memory format.", "--channels-last")
]

Threads = Annotated[
    int | None, option("Threads of an operator on a CPU.", default="torch's", min=1, max=4096)
]

PlotOut = Annotated[Path | None, _file("The same as .png or .svg.", "--plot-out")]

OutputFormat = Annotated[
    Format | None,
    option(
        "How to write the result. Default: a table, or what the suffix of --out says.",
        "--format",
        default=False,
    ),
]

Out = Annotated[Path | None, _file("Write to this file instead of the terminal.", "--out")]


def specs(
    names: list[str] | None, configs: list[Path] | None = None, with_: list[str] | None = None
) -> list[Spec]:
    """The named models, then the configured ones.

    Args:
        with_: the head that stands on each of them (`With`), such as ``retinanet``.

    Raises:
        UsageError: there are none, one does not exist, or there are two heads.
    """
    wanted = [*(names or ()), *(f"{CONFIG}{path}" for path in configs or ())]
    if not wanted:
        raise UsageError("name a model, such as dat_t; `datbench models` lists them all.")
    if with_ and len(with_) > 1:
        raise UsageError(
            f"--with takes one head, not {' and '.join(with_)}; name the others as MODEL+HEAD."
        )
    for head in with_ or ():
        wanted = [join(name, head) for name in wanted]
    return [resolve(name) for name in wanted]


def one_spec(name: str | None, config: Path | None, with_: list[str] | None = None) -> Spec:
    """The one model of a command that takes one.

    Raises:
        UsageError: there is none, or two.
    """
    if name and config:
        raise UsageError("this takes one model: give MODEL or --config, not both.")
    return specs([name] if name else None, [config] if config else None, with_)[0]


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


def default_device() -> str:
    """Where models are timed: on a GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def resolutions(texts: list[str] | None) -> list[Resolution] | None:
    """The given resolutions, or None where each model's own is wanted."""
    return [Resolution.parse(text) for text in texts] if texts else None


def breakdowns(by: str | None, known: Sequence[Name], wanted: Format) -> list[Name]:
    """The names that ``--by`` gives, with commas between them; none where it is not given.

    Raises:
        UnknownNameError: there is no such breakdown.
        UsageError: several, and a CSV file holds one table.
    """
    texts = [] if by is None else by.split(",")
    found = [one_of("breakdown", text.strip(), known) for text in texts]
    if len(found) > 1 and wanted is Format.CSV:
        raise UsageError(f"a CSV file holds one table; choose one of --by {', '.join(found)}.")
    return found
