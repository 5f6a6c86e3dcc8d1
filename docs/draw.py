"""Draw the pictures of README: the terminal as it is, recorded by rich."""

from pathlib import Path

from rich.console import Console

from datbench.measure.conventions import CONVENTIONS
from datbench.measure.summary import count_row
from datbench.models.dat import REGISTRY
from datbench.report.counts import one_model
from datbench.report.render import print_tables
from datbench.types import Resolution, Setting

IMAGES = Path(__file__).parent / "images"


def draw() -> None:
    """Write `images/flops.svg`: the output of `datbench flops dat_s --res 1280x800`."""
    row = count_row(REGISTRY.get("dat_s"), Setting(Resolution(1280, 800)), CONVENTIONS["fvcore"])
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=104, file=nowhere, highlight=False)
        console.print("[bold green]$[/] datbench flops dat_s --res 1280x800")
        print_tables(one_model(row, ["stage", "operator"]), console)
        console.save_svg(str(IMAGES / "flops.svg"), title="datbench")


if __name__ == "__main__":
    draw()
