"""Draw the pictures of README and docs: the terminal as rich records it, plots by Vega."""

from pathlib import Path

from rich.console import Console

from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import count_row
from datbench.counting.view import tables
from datbench.eq10.curves import cost_against_side, share_against_stride
from datbench.eq10.identity import identities
from datbench.eq10.view import stacks
from datbench.models.dat import REGISTRY
from datbench.paper.tables import paper_table, paper_tables
from datbench.paper.verdicts import compare
from datbench.paper.view import comparison_table
from datbench.paper.workshop import Workshop
from datbench.render.table import Table
from datbench.render.text import print_tables
from datbench.render.vega import to_bytes
from datbench.setting import Resolution, Setting

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


def draw_terminal(command: str, tables: list[Table], width: int) -> None:
    """Write `images/NAME.svg`, NAME the command's first word: what the command prints."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(
            record=True, width=width, file=nowhere, highlight=False, force_terminal=True
        )
        console.print(f"[bold green]$[/] datbench {command}")
        print_tables(tables, console)
        name = command.split()[0]
        console.save_svg(str(IMAGES / f"{name}.svg"), title="datbench", unique_id=name)


def draw_flops() -> None:
    """The output of `datbench flops dat_s --res 1280x800`."""
    row = count_row(REGISTRY.get("dat_s"), Setting(Resolution(1280, 800)), CONVENTIONS["fvcore"])
    draw_terminal("flops dat_s --res 1280x800", tables([row]), 104)


def draw_table() -> None:
    """The output of `datbench table 2`."""
    table = compare(paper_table("2"), paper_tables(), Workshop())
    draw_terminal("table 2", [comparison_table(table)], 112)


if __name__ == "__main__":
    draw_flops()
    draw_table()
    draw_plots()
