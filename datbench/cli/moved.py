"""Old spellings of the command line, and the new ones that the error names."""

from __future__ import annotations

from typing import Any

ARGUMENT = "RESULTS"

MOVED = {
    "any --config": "config:FILE as the name of a model",
    "any --with": "MODEL+HEAD as the name of a model",
    "any --run-peers": "--third-party",
    "flops --backward": "--mode backward",
    "memory --largest": "datbench memory largest MODEL --memory AMOUNT",
    "memory --context": "--memory MEMORY,context=AMOUNT",
    "memory --device": "datbench memory measure MODEL --device DEVICE",
    "memory --timeline --timeline-out": "datbench plot timeline MODEL, with --out FILE for a file",
    "eq10 --kinds": "datbench eq10 kinds",
    "eq10 --fit": "datbench eq10 fit",
    "eq10 --grid --convention": "datbench eq10 fit NAME=N,N... --convention NAME",
    "eq10 --paper": "datbench eq10 example",
    "eq10 --measure": "datbench eq10 time",
    "eq10 --sides": "datbench eq10 time --res SIZE,SIZE",
    "eq10 --plot --plot-out": "datbench plot eq10, with --out FILE for a file",
    "eq10 --all": "--notes",
    "profile --plot --plot-out": "datbench plot roofline --from FILE, a file of `datbench profile`",
    "gate --update": "datbench gate update",
    "gate --models": "datbench gate update MODEL...",
    "gate --remove": "datbench gate update --remove MODEL",
    "gate --backward --forward": "datbench gate update --mode backward or inference",
    "gate --memory-batch --memory-mode": "datbench gate update --from FILE of `datbench memory`",
    "gate --summary --no-summary": "automatic where GITHUB_STEP_SUMMARY is set",
    f"gate {ARGUMENT}": "--from FILE",
    "memory --autocast": "--dtype amp-bfloat16 or amp-float16",
    "report --models": "datbench report MODEL...",
    "report --pr-comment": "comment.md, which stands in the directory of --out",
    "report --html --no-html": "--plots svg or none",
    "table --file": "the file as TABLE: datbench table FILE.toml",
    "table --search": "datbench table search TABLE",
    "table --rules": "--notes",
    "compare --max-processes": "--processes N, which is doubled while the verdict is open",
    "compare --floor": "--threshold PERCENT",
    "compare --level": "--confidence PERCENT",
    "compare --across-machines": "datbench compare files A.json B.json --across-machines",
    "points --image": "the second argument: datbench points MODEL IMAGE",
    "points --style --figure": "datbench points propagated (5), groups (6) or query (7)",
    "points --query": "datbench points query MODEL IMAGE X,Y",
    "models --family": "datbench models TEXT, which finds families too",
    "results --each": "--by",
    "results --mixed": "--across-machines",
}
"""The new spelling, by the command and its old options."""


def moved(error: Any, context: Any) -> str | None:
    """What to write in place of an old spelling, if that is what was wrong."""
    said, option = error.format_message(), getattr(error, "option_name", None)
    if "pytest-benchmark" in said and "--format" in said:
        new = "`datbench results convert FILE.json --to pytest-benchmark`"
        return f"--format pytest-benchmark is now {new}."
    if said.startswith("Got unexpected extra argument"):
        option = ARGUMENT
    commands = {*(context.command_path.split()[1:2] if context else ()), "any"}
    for old, new in MOVED.items():
        command, *options = old.split()
        if command in commands and option in options:
            return f"{option} is now {new}."
    return None
