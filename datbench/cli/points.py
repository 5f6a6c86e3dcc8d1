"""`datbench points`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import UnknownNameError, UsageError
from ..points.records import FIGURES, STYLES, PointsRow, Style
from ..setting import Resolution
from .options import Config, Format, OutputFormat, complete, complete_models, one_spec

PICTURES = (".png", ".svg")


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
        typer.Option(
            metavar="FILE",
            readable=False,
            help="The image, in any format that Pillow reads.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Published weights, .pth or .safetensors.",
            show_default="random weights",
        ),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(
            help="propagated (the most important keys over all blocks), groups (where each group "
            "samples) or query (the keys of one query).",
            autocompletion=complete(*STYLES),
            show_default="propagated; query with --query",
        ),
    ] = None,
    figure: Annotated[
        int | None,
        typer.Option(help="The same by the paper's figure: 5, 6 or 7.", show_default=False),
    ] = None,
    stage: Annotated[
        int | None, typer.Option(help="Only this stage, from 1.", min=1, show_default=False)
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(help="Only this block of its stage, from 1.", min=1, show_default=False),
    ] = None,
    group: Annotated[
        str, typer.Option(metavar="N", help="Only this offset group, from 1; or all.")
    ] = "all",
    query: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y",
            help="The pixel that asks, of the image as given.",
            show_default="with --style query the centre",
        ),
    ] = None,
    head: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Attention of this head, from 1; of each head; or the mean over a group's heads.",
        ),
    ] = "mean",
    top: Annotated[
        int | None,
        typer.Option(
            help="Points of each block that are kept, the heaviest first.",
            min=1,
            show_default="20; of --style groups all",
        ),
    ] = None,
    res: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Resize the image to this for the model, whatever its proportions.",
            show_default="the size that the published figures belong to",
        ),
    ] = None,
    format: OutputFormat = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            readable=False,
            help="Draw into this .png or .svg, or write the points into a .json or .csv.",
        ),
    ] = None,
) -> None:
    """Draw the deformed sampling points over an image.

    As DAT's Figures 5, 6 and 7 show them. Without a checkpoint the weights are random, and the
    picture says so. Attention is computed eagerly: fused attention has no weights to show.
    """
    from .output import check_path, choose_format

    picture = out is not None and out.suffix.lower() in PICTURES
    if out is not None and not picture and format is None:
        _check_suffix(out)
    if out is not None and picture:
        check_path(out)
    wanted = choose_format(format, None if picture else out)
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
    from ..points.rows import Wanted, points_row

    row, pixels = points_row(
        spec,
        image,
        Wanted(chosen, stage, block, _number("group", group, "all"), _head(head), pixel, top),
        size,
        checkpoint,
    )
    if picture and out is not None:
        from ..points.view import picture as drawn
        from .output import write_whole

        write_whole(out, drawn(row, pixels, out.suffix))
    if not picture or format is not None:
        _write(row, wanted, None if picture else out)
    if row.random:
        sys.stderr.write(
            f"datbench: {row.model} has random weights; give --checkpoint for what it learned.\n"
        )


def _check_suffix(out: Path) -> None:
    known = (*PICTURES, ".json", ".csv", ".md", ".tex", ".txt")
    if out.suffix.lower() not in known:
        raise UsageError(
            f"--out {out}: the suffix {out.suffix or '(none)'} names no format; "
            f"use one of {', '.join(known)}."
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
    for style in STYLES:
        if style == name:
            return style
    raise UnknownNameError.among("style", name, STYLES)


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


def _head(text: str) -> int | Literal["each"] | None:
    return "each" if text == "each" else _number("head", text, "mean")


def _write(row: PointsRow, wanted: Format, out: Path | None) -> None:
    from ..machine import summary
    from ..points.view import points_table, summary_table
    from ..records import document
    from .output import emit

    table = points_table(row) if wanted is Format.CSV else summary_table(row)
    emit([table], document("points", [row], summary()), wanted, out)
