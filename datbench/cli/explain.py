"""`datbench explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import UnknownNameError, UsageError
from ..types import ATTENTIONS, Resolution, Setting
from .options import Config, Format, Model, Out, OutputFormat, complete, one_spec


def explain(
    model: Model = None,
    config: Config = None,
    res: Annotated[
        str | None,
        typer.Option(
            "--res",
            metavar="WxH",
            help="Input in pixels, width x height, or one number for a square. The size that the "
            "published figures belong to, unless told.",
            show_default=False,
        ),
    ] = None,
    run_peers: Annotated[
        bool,
        typer.Option(
            "--run-peers",
            help="Run the other counters that are installed (fvcore, torch, ptflops, thop, "
            "calflops, torchinfo) on the CPU, and say what they count differently.",
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that each of them may take.", show_default="300"),
    ] = None,
    attention: Annotated[
        str,
        typer.Option(
            help="eager or sdpa; other counters may depend on it.",
            autocompletion=complete(*ATTENTIONS),
        ),
    ] = "eager",
    features: Annotated[
        bool, typer.Option("--features", help="Four feature maps with a norm each, no head.")
    ] = False,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Say why counters disagree, as a sum of operators."""
    from .output import choose_format

    wanted = choose_format(format, out)
    spec = one_spec(model, config)
    resolution = spec.resolution if res is None else Resolution.parse(res)
    if attention not in ATTENTIONS:
        raise UnknownNameError.among("attention", attention, ATTENTIONS)
    if timeout is not None and not run_peers:
        raise UsageError("--timeout limits the other counters; add --run-peers.")
    if timeout is not None and not timeout > 0:  # nor may it be nan
        raise UsageError(f"--timeout {timeout:g}: write a number of seconds above 0.")
    setting = Setting(resolution, attention=attention, features=features)
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..measure.environment import summary
    from ..measure.explain import explain_row
    from ..measure.peers.run import TIMEOUT
    from ..report.explain import explain_tables
    from ..report.explain_flat import flat_table
    from ..results import document
    from .output import emit
    from .progress import progress

    limit = (TIMEOUT if timeout is None else timeout) if run_peers else None
    row = explain_row(spec, setting, limit, lambda peers: progress(peers, lambda peer: peer.name))
    tables = [flat_table(row)] if wanted is Format.CSV else explain_tables(row)
    emit(tables, document("explain", [row], summary()), wanted, out)
