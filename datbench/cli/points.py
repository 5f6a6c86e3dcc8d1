"""`datbench points`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import UsageError
from ..points.records import FIGURES, STYLES, Style
from ..setting import Resolution
from .options import Config, Format, OutputFormat, complete_models, one_of, one_spec, option

PICTURES = (".png", ".svg")

SUFFIXES = (*PICTURES, ".json", ".csv", ".md", ".tex", ".txt")


def points(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A model with deformable attention: dat_t, datpp_t and their variants.",
            autocompletion=complete_models,
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        Path | None,
        option(
            "The image, in any format that Pillow reads.",
            default=False,
            metavar="FILE",
            readable=False,
        ),
    ] = None,
    config: Config = None,
    checkpoint: Annotated[
        Path | None,
        option(
            "Published weights, .pth or .safetensors.",
            default="random weights",
            metavar="FILE",
            readable=False,
        ),
    ] = None,
    style: Annotated[
        str | None,
        option(
            "propagated (the most important keys over all blocks), groups (where each group "
            "samples) or query (the keys of one query).",
            default="propagated; query with --query",
            names=STYLES,
        ),
    ] = None,
    figure: Annotated[
        int | None, option("The same by the paper's figure: 5, 6 or 7.", default=False)
    ] = None,
    stage: Annotated[int | None, option("Only this stage, from 1.", default=False, min=1)] = None,
    block: Annotated[
        int | None, option("Only this block of its stage, from 1.", default=False, min=1)
    ] = None,
    group: Annotated[str, option("Only this offset group, from 1; or all.", metavar="N")] = "all",
    query: Annotated[
        str | None,
        option(
            "The pixel that asks, of the image as given.",
            default="with --style query the centre",
            metavar="X,Y",
        ),
    ] = None,
    head: Annotated[
        str,
        option(
            "Attention of this head, from 1; of each head; or the mean over a group's heads.",
            metavar="N",
        ),
    ] = "mean",
    top: Annotated[
        int | None,
        option(
            "Points of each block that are kept, the heaviest first.",
            default="20; of --style groups all",
            min=1,
        ),
    ] = None,
    res: Annotated[
        str | None,
        option(
            "Resize the image to this for the model, whatever its proportions.",
            default="the size that the published figures belong to",
            metavar="WxH",
        ),
    ] = None,
    format: OutputFormat = None,
    out: Annotated[
        Path | None,
        option(
            "Draw into this .png or .svg, or write the points into a .json or .csv.",
            "--out",
            metavar="FILE",
            readable=False,
        ),
    ] = None,
) -> None:
    """Draw the deformed sampling points over an image.

    As DAT's Figures 5, 6 and 7 show them. Without a checkpoint the weights are random, and the
    picture says so. Attention is computed eagerly: fused attention has no weights to show.
    """
    from ..files import write_whole
    from .output import check_path, choose_format, emit

    picture = out if out is not None and out.suffix.lower() in PICTURES else None
    file = None if picture is not None else out
    if file is not None and format is None and file.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--out {out}: the suffix {file.suffix or '(none)'} names no format; "
            f"use one of {', '.join(SUFFIXES)}."
        )
    if picture is not None:
        check_path(picture)
    wanted = choose_format(format, file)
    pixel = None if query is None else _pixel(query)
    chosen = _style(style, figure, pixel)
    if image is None:
        raise UsageError("give the image: --image FILE.")
    if chosen == "groups" and (top is not None or head != "mean"):
        raise UsageError(
            "--style groups shows all points without weights; leave out --top, --head."
        )
    spec = one_spec(model, config)
    size = None if res is None else Resolution.parse(res)
    heads: int | Literal["each"] | None = (
        "each" if head == "each" else _number("head", head, "mean")
    )
    from ..machine import summary
    from ..points import view
    from ..points.rows import Selection, points_row
    from ..records import document

    shown = Selection(chosen, stage, block, _number("group", group, "all"), heads, pixel, top)
    row, pixels = points_row(spec, image, shown, size, checkpoint)
    if picture is not None:
        write_whole(picture, view.picture(row, pixels, picture.suffix))
    if picture is None or format is not None:
        tables = view.tables(row, one=wanted is Format.CSV)
        emit(tables, document("points", [row], summary()), wanted, file)
    if row.random:
        sys.stderr.write(
            f"datbench: {row.model} has random weights; give --checkpoint for what it learned.\n"
        )


def _style(name: str | None, figure: int | None, query: tuple[float, float] | None) -> Style:
    if name is not None and figure is not None:
        raise UsageError("--style and --figure say the same; give one.")
    if figure is not None:
        if figure not in FIGURES:
            raise UsageError(f"--figure {figure}: write 5, 6 or 7.")
        return FIGURES[figure]
    if name is None:
        return "propagated" if query is None else "query"
    return one_of("style", name, STYLES)


def _pixel(text: str) -> tuple[float, float]:
    match = re.fullmatch(r"\s*(-?\d{1,6}(?:\.\d*)?)\s*,\s*(-?\d{1,6}(?:\.\d*)?)\s*", text)
    if match is None:
        raise UsageError(f"--query {text!r} is not understood; write X,Y such as 112,80.")
    return float(match[1]), float(match[2])


def _number(option: str, text: str, every: str) -> int | None:
    if text == every:
        return None
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) < 1:
        raise UsageError(f"--{option} {text!r}: write a number from 1, or {every}.")
    return int(text)
