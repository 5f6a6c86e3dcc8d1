"""`datbench sweep`: many models, sizes and machines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import MeasurementError, MissingError, UsageError
from ..files import complete_files
from ..setting import one_of
from . import options
from .command import HOW, OUTPUT, WHAT, argument, group, option
from .memory import Iteration, MemoryName
from .output import Output

if TYPE_CHECKING:
    from ..sweep.store import Sweep

Folder = Annotated[Path, argument("The sweep's directory.", "DIR", complete_files)]


def run(
    folder: Folder,
    run: options.Run,
    timing: options.ProcessTiming,
    iteration: Iteration,
    output: Output,
    device: options.DeviceName = None,
    memory: MemoryName = None,
    kind: Annotated[
        str | None,
        option(
            WHAT,
            "--kind KIND",
            "What is measured of the models that are named: flops, memory, memory-largest, peaks, "
            "throughput or memory-measured; use commas for several. Default: throughput.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        option(HOW, "--shard I/N", "Do the units of this part alone: the first of eight is 1/8."),
    ] = None,
    engine: Annotated[
        str,
        option(
            HOW,
            "--engine NAME",
            "Who does the units: local (this machine) or slurm (an array of jobs).",
            default=True,
            names=("local", "slurm"),
        ),
    ] = "local",
    slurm: Annotated[
        list[str] | None,
        option(
            HOW,
            "--slurm KEY=VALUE",
            "With --engine slurm: an option of sbatch, such as partition=gpu or time=2:00:00; may "
            "be repeated. setup=LINE is run in the job first.",
        ),
    ] = None,
    jobs: options.Jobs = None,
    no_prune: Annotated[
        bool,
        option(HOW, "--no-prune", "Run larger batches of a setting that ran out of memory too."),
    ] = False,
    changed: Annotated[
        str | None,
        option(
            HOW,
            "--changed NAME",
            "If records were made by other code: keep them, redo them or refuse to go on. "
            "Default: ask on a terminal, otherwise refuse.",
            names=("keep", "redo", "refuse"),
        ),
    ] = None,
    dry_run: Annotated[
        bool, option(OUTPUT, "--dry-run", "Show the units and their longest time; run nothing.")
    ] = False,
    estimate: Annotated[
        bool,
        option(
            OUTPUT,
            "--estimate",
            "Simulate the units' memory and mark what cannot fit, into --memory or the device's; "
            "run nothing.",
        ),
    ] = False,
) -> None:
    """Measure a grid, each unit in a process of its own, into a directory; or go on with it.

    DIR/sweep.toml says what (see docs/sweeps.md); without it, the options do, and it is written.
    What is finished is never lost or repeated, whenever this is ended. `report`, `gate`, `compare
    files` and `results` take the directory. Exit code 5: units have failed or are pending.

    Examples:
    datbench sweep run grid dat_t swin_t --res 224,448 --batch 1,8 --processes 3
    datbench sweep run grid --shard 2/8
    datbench sweep run grid --engine slurm --jobs 8 --slurm partition=gpu --slurm gres=gpu:1
    """
    one_of("engine", engine, ("local", "slurm"))
    if slurm and engine != "slurm":
        raise UsageError("--slurm is for --engine slurm.")
    part, parts = _part(shard)
    if engine == "slurm" and shard:
        raise UsageError("--engine slurm makes the shards itself; --jobs N says how many.")
    for flag, value in (("--budget", timing.budget), ("--timeout", timing.timeout)):
        options.seconds(flag, value, 0.0)
    from ..sweep import view
    from ..sweep.plan import PLAN, listed, read_plan
    from ..sweep.records import RunPlan
    from ..sweep.run import check_code, state
    from ..sweep.run import run as run_here
    from ..sweep.slurm import Cluster, end_of_job, options_of
    from ..sweep.store import Sweep, planned

    text = _plan(run, timing, iteration, device, memory, kind, estimate)
    more = options_of(slurm or ())
    if dry_run or estimate:
        units = planned(folder, text)
        if estimate:
            from ..sweep.estimate import fits

            found = fits(units, memory)
            output.write(view.fit_tables(found), "sweep-fit", found)
            return
        rows = [
            listed(each.specified, timing.timeout or each.timeout, each.key)
            for each in units[part - 1 :: parts]
        ]
        output.write(view.plan_tables(rows, output.one, parts), "sweep-plan", rows)
        return
    sweep = Sweep.create(folder, text)
    prune, helps = not no_prune, shard is not None
    plan = RunPlan(part, parts, jobs or 1, prune, timing.timeout, end_of_job(), helps)
    now = check_code(sweep, lambda said: _choice(said, changed))
    if engine == "slurm":
        known = read_plan(folder / PLAN).slurm
        Cluster(sweep, known | more).run(plan)
    else:
        run_here(sweep, plan, now)
    found_state = state(sweep)
    output.write(view.tables([found_state], output.one), "sweep", [found_state])
    bad = {n: sum(getattr(c, n) for c in found_state.counts) for n in view.REMEDY}
    if any(bad.values()):
        said = ", ".join(f"{number} {name}" for name, number in bad.items() if number)
        raise MeasurementError(f"not every unit was measured: {said}.")
    if found_state.pending and parts == 1:
        raise MeasurementError(f"{found_state.pending} units are pending.")


def _part(shard: str | None) -> tuple[int, int]:
    one, slash, of = (shard or "1/1").partition("/")
    if not (slash and one.isdecimal() and of.isdecimal() and 1 <= int(one) <= int(of) <= 100_000):
        raise UsageError(f"--shard {shard!r}: write the part and the number of parts, such as 2/8.")
    return int(one), int(of)


def _plan(
    run: options.Run,
    timing: options.ProcessTiming,
    iteration: Iteration,
    device: str | None,
    memory: str | None,
    kind: str | None,
    estimate: bool,
) -> str | None:
    """The text of the plan that the options say; None where they say none."""
    kinds = options.pieces([kind]) if kind else ["throughput"]
    usual = options.ProcessTiming(processes=timing.processes, timeout=timing.timeout)
    if not run.model and "peaks" not in kinds:
        given = (run, iteration, device, timing) != (options.Run(), Iteration(), None, usual)
        if given or kind or timing.processes or (memory and not estimate):
            raise UsageError("the options say what is measured of models: name some.")
        return None
    from ..sweep.plan import text_of
    from ..sweep.records import Grid, Plan

    def many(value: list[Any]) -> Any:
        return tuple(value) if len(value) > 1 else value[0] if value else None

    wanted = {
        "model": many(list(run.model or [])),
        "res": many([str(size) for size in run.sizes()]),
        "batch": many(run.batches()),
        "dtype": many(options.pieces([run.dtype])),
        "attention": many(options.pieces([run.attention])),
        "features": run.features,
        "input": many(list(run.inputs())),
        "mode": many(options.pieces([iteration.mode])) if iteration.mode else None,
        "optimizer": iteration.optimizer,
        "checkpointing": iteration.checkpointing,
        "memory": memory if not estimate or "memory-largest" in kinds else None,
        "device": device if device != "auto" else None,
        "threads": timing.threads,
        "compile": timing.compile,
        "channels_last": timing.channels_last,
        "budget": timing.budget,
    }
    grid = Grid(many(kinds), **{k: v for k, v in wanted.items() if v is not None})
    return text_of(Plan((grid,), timing.processes or 1))


def _choice(said: str, changed: str | None) -> str:
    """What becomes of records of other code."""
    if changed is not None:
        return one_of("choice of --changed", changed, ("keep", "redo", "refuse"))
    if not sys.stdin.isatty():
        return "refuse"
    answer = typer.prompt(f"{said}. keep, redo or refuse?", default="keep", err=True)
    return one_of("answer", str(answer), ("keep", "redo", "refuse"))


def status(folder: Folder, output: Output) -> None:
    """Say how far a sweep is. Only names of files are read.

    Examples:
    datbench sweep status grid
    """
    from ..sweep.store import Sweep

    _write_state(Sweep.open(folder), output)


def _write_state(sweep: Sweep, output: Output, *said: str) -> None:
    from ..sweep import view
    from ..sweep.run import state
    from ..sweep.slurm import Cluster, has_jobs

    found = state(sweep, Cluster(sweep, {}).states() if has_jobs(sweep.folder) else {})
    output.write(view.tables([found], output.one, said), "sweep", [found])


def retry(
    folder: Folder,
    output: Output,
    which: Annotated[
        list[str] | None,
        argument("Outcomes, or keys of units. Default: failed, timeout and crashed.", "OUTCOME"),
    ] = None,
) -> None:
    """Make units pending again; their records are kept in DIR/retried.

    Examples:
    datbench sweep retry grid
    datbench sweep retry grid oom
    """
    from ..sweep.run import retry as again
    from ..sweep.store import Sweep

    sweep = Sweep.open(folder)
    chosen = again(sweep, which or ())
    _write_state(sweep, output, f"{len(chosen)} units are pending again.")


def cancel(folder: Folder, output: Output) -> None:
    """Cancel the jobs of a sweep on Slurm; what they have finished is kept.

    Examples:
    datbench sweep cancel grid
    """
    from ..sweep.slurm import Cluster, has_jobs
    from ..sweep.store import Sweep

    sweep = Sweep.open(folder)
    if not has_jobs(folder):
        raise MissingError(f"{folder} has no jobs; a local run is ended with Ctrl-C.")
    _write_state(sweep, output, f"{Cluster(sweep, {}).cancel()} jobs cancelled.")


def merge(
    folder: Folder,
    output: Output,
    others: Annotated[
        list[Path] | None,
        argument("Directories of the same sweep, of other machines.", "OTHER", complete_files),
    ] = None,
) -> None:
    """Bring records of other directories of the same sweep together; check every record.

    A record that cannot be read is set aside, and its unit is pending. To have all rows in one
    file: `datbench results merge DIR --out FILE`.

    Examples:
    datbench sweep merge grid grid-of-job-1 grid-of-job-2
    """
    from ..sweep.run import merge as together
    from ..sweep.store import Sweep

    sweep = Sweep.open(folder)
    added = together(sweep, [Sweep.open(other) for other in others or ()])
    _write_state(sweep, output, f"{added} records added.")


app = group(
    "sweep",
    (run, status, retry, cancel, merge),
)
