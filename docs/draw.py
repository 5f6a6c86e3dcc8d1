"""Draw the pictures of README and docs: the terminal as rich records it, plots by matplotlib."""

from pathlib import Path

from rich.console import Console

from datbench.measure.complexity.curves import cost_against_side, share_against_stride
from datbench.measure.complexity.identity import identities
from datbench.measure.conventions import CONVENTIONS
from datbench.measure.summary import count_row
from datbench.models.dat import REGISTRY
from datbench.report.counts import one_model
from datbench.report.plots import to_bytes
from datbench.report.render import print_tables
from datbench.report.stacks import stacks
from datbench.types import Resolution, Setting

IMAGES = Path(__file__).parent / "images"


def draw_plots() -> None:
    """Write the plots of docs/complexity.md."""
    _, per_pixel, left_out = cost_against_side()
    (IMAGES / "eq10-cost.svg").write_bytes(to_bytes([per_pixel, left_out], ".svg"))
    at_1280x800 = share_against_stride(height=50, width=80)
    (IMAGES / "eq10-share.svg").write_bytes(to_bytes([share_against_stride(), at_1280x800], ".svg"))
    spec = REGISTRY.get("dat_t")
    modules = [
        terms
        for size in (Resolution(224, 224), Resolution(1280, 800))
        for terms in identities(spec, size)
        if terms.kind == "DMHA"
    ]
    (IMAGES / "eq10-terms.svg").write_bytes(to_bytes([stacks(modules)], ".svg"))


def draw_terminal() -> None:
    """Write `images/flops.svg`: the output of `datbench flops dat_s --res 1280x800`."""
    row = count_row(REGISTRY.get("dat_s"), Setting(Resolution(1280, 800)), CONVENTIONS["fvcore"])
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=104, file=nowhere, highlight=False)
        console.print("[bold green]$[/] datbench flops dat_s --res 1280x800")
        print_tables(one_model(row, ["stage", "operator"]), console)
        console.save_svg(str(IMAGES / "flops.svg"), title="datbench")


if __name__ == "__main__":
    draw_terminal()
    draw_plots()
