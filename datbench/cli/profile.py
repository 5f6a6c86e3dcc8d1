"""`datbench profile`."""

from __future__ import annotations

from itertools import combinations
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import MeasurementError, UnknownNameError, UsageError
from ..setting import ATTENTIONS, TIME_MODES, Resolution, Setting, TimeMode
from .options import (
    AttentionName,
    ChannelsLast,
    Config,
    Dtype,
    Format,
    Mode,
    Model,
    Out,
    OutputFormat,
    With,
    complete,
    one_spec,
)

if TYPE_CHECKING:
    from ..models.resolve import Spec
    from ..profile.records import ProfileRow
    from ..profile.view import By

PARTS: tuple[By, ...] = ("stage", "module", "operator")

TRACES = (".json", ".json.gz")


def profile(
    model: Model = None,
    config: Config = None,
    with_: With = None,
    res: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Input in pixels, width x height, or one number for a square. The size that the "
            "published figures belong to, unless told.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images in a batch.")] = 1,
    device: Annotated[
        str,
        typer.Option(help="cpu, or cuda where a GPU is.", autocompletion=complete("cpu", "cuda")),
    ] = "cpu",
    dtype: Dtype = "float32",
    attention: AttentionName = "eager",
    features: Annotated[
        bool, typer.Option("--features", help="Four feature maps with a norm each, no head.")
    ] = False,
    mode: Mode = "infer",
    channels_last: ChannelsLast = False,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads of an operator on a CPU.", min=1, max=4096, show_default="torch's"
        ),
    ] = None,
    budget: Annotated[float, typer.Option(help="Seconds to take, about.")] = 10.0,
    by: Annotated[
        str | None,
        typer.Option(
            help="Break the time down by stage, module or operator, or several with commas.",
            autocompletion=complete(*PARTS),
            show_default="stage,operator",
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            help="With --by module: cut paths to this many names.", min=1, show_default=False
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Rows of a breakdown; JSON has all.", min=1)] = 15,
    plot: Annotated[
        bool,
        typer.Option(
            "--plot", help="Draw the roofline in the terminal: what the first of --by achieves."
        ),
    ] = False,
    plot_out: Annotated[
        Path | None,
        typer.Option(
            "--plot-out", metavar="FILE", readable=False, help="The same as .png or .svg."
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Write one run as .json or .json.gz, for ui.perfetto.dev or chrome://tracing.",
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Tell why a model is slower than its FLOPs say.

    Its operators' times under torch's profiler, beside their MACs and bytes and the machine's
    ceilings, all measured in this process.
    """
    from .output import choose_format

    wanted = choose_format(format, out)
    parts = _parts(by, wanted)
    if depth is not None and "module" not in parts:
        raise UsageError("--depth cuts the paths of modules; add --by module.")
    chosen = next((one for one in TIME_MODES if one == mode), None)
    if chosen is None:
        raise UnknownNameError.among("mode", mode, TIME_MODES)
    how = next((one for one in ATTENTIONS if one == attention), None)
    if how is None:
        raise UnknownNameError.among("attention", attention, ATTENTIONS)
    _check_files(plot, plot_out, trace, wanted, out)
    spec = one_spec(model, config, with_)
    size = Resolution.parse(res) if res else spec.resolution
    setting = Setting(size, batch, dtype, device, how, features=features)
    row = _measured(spec, setting, chosen, threads, channels_last, budget, trace)
    _draw(row, parts[0] if by else "operator", depth, plot, plot_out)
    if not plot:
        _write(row, parts, depth, top, wanted, out)


def _parts(by: str | None, wanted: Format) -> list[By]:
    """The breakdowns, the usual ones where none is asked for."""
    if by is None:
        return ["operator"] if wanted is Format.CSV else ["stage", "operator"]
    found: list[By] = []
    for name in by.split(","):
        match = next((part for part in PARTS if part == name.strip()), None)
        if match is None:
            raise UnknownNameError.among("breakdown", name.strip(), PARTS)
        found.append(match)
    if len(found) > 1 and wanted is Format.CSV:
        raise UsageError(f"a CSV file holds one table; choose one of --by {', '.join(found)}.")
    return found


def _check_files(
    plot: bool, plot_out: Path | None, trace: Path | None, wanted: Format, out: Path | None
) -> None:
    """Whatever can be refused is refused before anything is run."""
    from .output import check_path

    if plot and (wanted is not Format.TABLE or out is not None):
        raise UsageError("--plot draws in the terminal; a file is --plot-out FILE.")
    if plot_out is not None:
        from ..render.vega import check_suffix

        check_suffix(plot_out.suffix)
        check_path(plot_out, "--plot-out")
    if trace is not None:
        if not trace.name.lower().endswith(TRACES):
            raise UsageError(f"--trace {trace}: a trace is written as {' or '.join(TRACES)}.")
        check_path(trace, "--trace")
    _check_apart({"--out": out, "--trace": trace, "--plot-out": plot_out})


def _check_apart(files: dict[str, Path | None]) -> None:
    """Refuse two results in one file, by whatever name."""
    named = [(option, path) for option, path in files.items() if path is not None]
    for (option, path), (other, same) in combinations(named, 2):
        if realpath(path) == realpath(same) or (
            path.exists() and same.exists() and path.samefile(same)
        ):
            raise UsageError(f"{option} {path} and {other} {same} are one file; name two files.")


def _measured(
    spec: Spec,
    setting: Setting,
    mode: TimeMode,
    threads: int | None,
    channels_last: bool,
    budget: float,
    trace: Path | None,
) -> ProfileRow:
    """Profile, and write the trace of one more run where that is wanted."""
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..machine import check_device
    from ..profile.profile import check, profile_model
    from .output import status, write_whole

    check_device(setting.device)
    check(setting, threads, budget)
    with status() as step:
        row = profile_model(
            spec,
            setting,
            mode,
            threads=threads,
            channels_last=channels_last,
            budget=budget,
            step=step,
        )
        if trace is not None:
            from ..profile.profile import trace as traced

            step("one run for the trace")
            content = traced(
                spec,
                setting,
                mode,
                threads=threads,
                channels_last=channels_last,
                compressed=trace.suffix.lower() == ".gz",
            )
            write_whole(trace, content)
    return row


def _draw(row: ProfileRow, by: By, depth: int | None, terminal: bool, path: Path | None) -> None:
    if not terminal and path is None:
        return
    from ..machine import environment, place_of
    from ..profile.view import parts, roofline
    from .output import draw

    figure = roofline(row, parts(row, by, depth), f"{by}s", place_of(environment()))
    if figure is None:
        raise MeasurementError(f"{row.model}: nothing here has both MACs and bytes to draw.")
    draw([figure], terminal, path)


def _write(
    row: ProfileRow, parts: list[By], depth: int | None, top: int, wanted: Format, out: Out
) -> None:
    from ..machine import environment
    from ..profile.view import parts_table, tables
    from ..records import document
    from .output import emit

    if wanted is Format.CSV:
        shown = [parts_table(row, parts[0], depth, len(row.groups))]
    else:
        shown = tables(row, parts, depth, top)
    emit(shown, document("profile", [row], environment()), wanted, out)
