"""`datbench profile`."""

from __future__ import annotations

from itertools import combinations
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import MeasurementError, UsageError
from ..setting import ATTENTIONS, TIME_MODES, Resolution, Setting
from .options import (
    AttentionName,
    ChannelsLast,
    Config,
    Dtype,
    Features,
    Format,
    Mode,
    Model,
    OneResolution,
    Out,
    OutputFormat,
    PlotOut,
    Threads,
    With,
    breakdowns,
    one_of,
    one_spec,
    option,
)

if TYPE_CHECKING:
    from ..profile.view import By

PARTS: tuple[By, ...] = ("stage", "module", "operator")

TRACES = (".json", ".json.gz")


def profile(
    model: Model = None,
    config: Config = None,
    with_: With = None,
    res: OneResolution = None,
    batch: Annotated[int, option("Images in a batch.")] = 1,
    device: Annotated[str, option("cpu, or cuda where a GPU is.", names=("cpu", "cuda"))] = "cpu",
    dtype: Dtype = "float32",
    attention: AttentionName = "eager",
    features: Features = False,
    mode: Mode = "infer",
    channels_last: ChannelsLast = False,
    threads: Threads = None,
    budget: Annotated[float, option("Seconds to take, about.")] = 10.0,
    by: Annotated[
        str | None,
        option(
            "Break the time down by stage, module or operator, or several with commas.",
            default="stage,operator",
            names=PARTS,
        ),
    ] = None,
    depth: Annotated[
        int | None, option("With --by module: cut paths to this many names.", default=False, min=1)
    ] = None,
    top: Annotated[int, option("Rows of a breakdown; JSON has all.", min=1)] = 15,
    plot: Annotated[
        bool,
        option("Draw the roofline in the terminal: what the first of --by achieves.", "--plot"),
    ] = False,
    plot_out: PlotOut = None,
    trace: Annotated[
        Path | None,
        option(
            "Write one run as .json or .json.gz, for ui.perfetto.dev or chrome://tracing.",
            metavar="FILE",
            readable=False,
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Tell why a model is slower than its FLOPs say.

    Its operators' times under torch's profiler, beside their MACs and bytes and the machine's
    ceilings, all measured in this process.
    """
    from ..files import write_whole
    from ..render.terminal import status
    from .output import check_path, check_plots, choose_format, draw, emit

    wanted = choose_format(format, out)
    parts = breakdowns(by, PARTS, wanted)
    if depth is not None and "module" not in parts:
        raise UsageError("--depth cuts the paths of modules; add --by module.")
    chosen = one_of("mode", mode, TIME_MODES)
    how = one_of("attention", attention, ATTENTIONS)
    check_plots(plot, plot_out, wanted, out)
    if trace is not None:
        if not trace.name.lower().endswith(TRACES):
            raise UsageError(f"--trace {trace}: a trace is written as {' or '.join(TRACES)}.")
        check_path(trace, "--trace")
    _check_apart({"--out": out, "--trace": trace, "--plot-out": plot_out})
    spec = one_spec(model, config, with_)
    size = Resolution.parse(res) if res else spec.resolution
    setting = Setting(size, batch, dtype, device, how, features=features)
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..machine import environment, place_of
    from ..profile import profile as profile_profile
    from ..profile import view
    from ..records import document

    options: dict[str, Any] = {"threads": threads, "channels_last": channels_last}
    with status() as step:
        row = profile_profile.profile_model(
            spec, setting, chosen, **options, budget=budget, step=step
        )
        if trace is not None:
            step("one run for the trace")
            compressed = trace.suffix.lower() == ".gz"
            write_whole(
                trace,
                profile_profile.trace(spec, setting, chosen, **options, compressed=compressed),
            )
    if plot or plot_out is not None:
        first = parts[0] if parts else "operator"
        place = place_of(environment())
        figure = view.roofline(row, view.parts(row, first, depth), f"{first}s", place)
        if figure is None:
            raise MeasurementError(f"{row.model}: nothing here has both MACs and bytes to draw.")
        draw([figure], plot, plot_out)
    if plot:
        return
    if wanted is Format.CSV:
        tables = [view.parts_table(row, parts[0] if parts else "operator", depth)]
    else:
        tables = view.tables(row, parts or ["stage", "operator"], depth, top)
    emit(tables, document("profile", [row], environment()), wanted, out)


def _check_apart(files: dict[str, Path | None]) -> None:
    """Refuse two results in one file, by whatever name."""
    named = [(name, path) for name, path in files.items() if path is not None]
    for (name, path), (other, same) in combinations(named, 2):
        if realpath(path) == realpath(same) or (
            path.exists() and same.exists() and path.samefile(same)
        ):
            raise UsageError(f"{name} {path} and {other} {same} are one file; name two files.")
