"""Draw the pictures of README and docs: what the program prints, and its plots."""

import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.text import Text

from datbench.cli.eq10 import PAPERS
from datbench.cli.main import main
from datbench.eq10.curves import plots as drawn
from datbench.eq10.curves import share_against_stride
from datbench.eq10.identity import identities_of
from datbench.models.resolve import resolve
from datbench.render.vega import to_bytes

IMAGES = Path(__file__).parent / "images"

TERMINALS = {"flops dat_s --res 1280x800": 104, "table 2": 112}
"""Commands, and how many columns their pictures have."""


def terminal(command: str, width: int) -> str:
    """What a command prints, as the SVG of a terminal of this width."""
    os.environ |= {"COLUMNS": str(width), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    with redirect_stdout(io.StringIO()) as printed:
        main(command.split())
    console = Console(record=True, width=width, file=io.StringIO(), highlight=False)
    console.print(f"[bold green]$[/] datbench {command}")
    console.print(Text.from_ansi(printed.getvalue().rstrip()))
    return console.export_svg(title="datbench", unique_id=command.split()[0])


def plots() -> dict[str, bytes]:
    """The plots of docs/complexity.md by name, out of those of `datbench plot eq10`."""
    modules = identities_of([(resolve("dat_t"), size) for size in PAPERS])
    _, per_pixel, left_out, share, bars = drawn(modules)
    chosen = {
        "eq10-cost.svg": [per_pixel, left_out],
        "eq10-share.svg": [share, share_against_stride(height=50, width=80)],
        "eq10-terms.svg": [bars],
    }
    return {name: to_bytes(each, ".svg") for name, each in chosen.items()}


if __name__ == "__main__":
    for command, width in TERMINALS.items():
        path = IMAGES / f"{command.split()[0]}.svg"
        path.write_text(terminal(command, width), encoding="utf-8")
    for name, plot in plots().items():
        (IMAGES / name).write_bytes(plot)
    sys.stdout.write("docs/screenshot.py takes report.png, with a browser.\n")
