"""`datbench summary`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from ..setting import MEMORY_MODES, WITH_BACKWARD, mode_of
from .command import RESULT, option
from .options import From, ModeName, Run, pieces
from .output import Output

Columns = Annotated[
    list[str] | None,
    option(
        RESULT,
        "--columns NAME",
        "Columns in their order, with decimals behind a colon (macs:2): params, macs, memory, "
        "measured-memory, images/s, latency, top1. Default: what is known of them but latency.",
    ),
]


def summary(
    run: Run, output: Output, columns: Columns = None, from_: From = None, mode: ModeName = None
) -> None:
    """One row a model, as a table for a paper.

    Parameters, MACs and memory are computed; images/s, latency and measured memory come from
    --from files of `datbench throughput` and `datbench memory measure`. Accuracy is what the papers
    print, or a table's file (TOML or CSV) that stands among the models: its rows are models too.
    LaTeX has the file's name as its label.

    Examples:
    datbench summary dat_t datpp_t pvt_s --columns params,macs:1,top1
    datbench summary dat_t --from times.json --out tab-models.tex
    datbench summary my_paper.toml --batch 64 --format latex
    """
    from ..paper.summary import own_rows, read_measured, summarise
    from ..paper.tables import files_among
    from ..paper.view import summary_columns, summary_table
    from ..render.terminal import progress

    asked = summary_columns(pieces(columns)) if columns else None
    told = mode_of(mode, MEMORY_MODES, "forward")
    names, files = files_among(run.model or ())
    own, measured = own_rows(files), read_measured(from_ or ())
    if not run.model:
        names = list(dict.fromkeys(row.model for row, _ in measured))
    runs = [replace(run, model=names)] if names or not own else []
    for each in own:
        one = replace(run, model=[each.spec.name], input=list(each.inputs) or run.input)
        size = None if one.input else [str(each.resolution)]
        runs.append(replace(one, res=run.res or size))
    jobs = [job for one in runs for job in one.jobs(backward=told in WITH_BACKWARD)]
    jobs = [job for place, job in enumerate(jobs) if job not in jobs[:place]]
    wanted = asked or ("params", "macs", "memory")
    watched = progress(jobs)
    rows = summarise(watched, told, wanted, own, measured, not run.batch)
    output.write([summary_table(rows, asked)], "summary", rows)
