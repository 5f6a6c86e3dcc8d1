"""Options that several commands share, and what they are parsed into."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..models.dat import REGISTRY
from ..models.spec import ModelSpec
from ..types import Resolution


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


def complete_models(incomplete: str) -> list[tuple[str, str]]:
    """Names for shell completion, with a line about each."""
    return [(s.name, s.summary) for s in REGISTRY if s.name.startswith(incomplete)]


Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="Models, such as dat_t; `datbench models` lists them.",
        autocompletion=complete_models,
        show_default=False,
    ),
]
Resolutions = Annotated[
    list[str] | None,
    typer.Option(
        "--res",
        metavar="WxH",
        help="Input in pixels, width x height, or one number for a square; may be repeated. "
        "The size that the published figures belong to, unless told.",
        show_default=False,
    ),
]
OutputFormat = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="How to write the result; a table unless told, or what the suffix of --out says.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        readable=False,  # need not be
        help="Write to this file instead of the terminal.",
    ),
]


def specs(names: list[str]) -> list[ModelSpec]:
    """The named variants; UnknownNameError for the first that does not exist."""
    return [REGISTRY.get(name) for name in names]


def resolutions(texts: list[str] | None) -> list[Resolution] | None:
    """The given resolutions, or None where each model's own is wanted."""
    return [Resolution.parse(text) for text in texts] if texts else None
