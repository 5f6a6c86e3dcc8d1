"""Old spellings of the command line, and the new ones that the error names."""

from __future__ import annotations

from typing import Any

_LARGEST = "datbench memory largest MODEL --memory AMOUNT"
_TIMELINE = "datbench plot timeline MODEL, with --out FILE for a file"
_ROOFLINE = "datbench plot roofline --from FILE, a file of `datbench profile --out FILE`"
_EQ10_PLOT = "datbench plot eq10, with --out FILE for a file"
_MEMORY_ROWS = "datbench gate update --from FILE, a file of `datbench memory --out FILE`"
_COMMENT = "comment.md, which stands in the directory of --out"
_SUMMARY = "automatic: the summary is written where GITHUB_STEP_SUMMARY is set"

MOVED: dict[tuple[str, str], str] = {
    ("", "--config"): "config:FILE as the name of a model",
    ("", "--with"): "MODEL+HEAD as the name of a model",
    ("", "--run-peers"): "--third-party",
    ("flops", "--backward"): "--mode backward",
    ("memory", "--largest"): _LARGEST,
    ("memory", "--context"): _LARGEST,
    ("memory", "--device"): "datbench memory measure MODEL --device DEVICE",
    ("memory", "--timeline"): _TIMELINE,
    ("memory", "--timeline-out"): _TIMELINE,
    ("eq10", "--kinds"): "datbench eq10 kinds",
    ("eq10", "--fit"): "datbench eq10 fit",
    ("eq10", "--grid"): "datbench eq10 fit NAME=N,N...",
    ("eq10", "--convention"): "datbench eq10 fit --convention NAME",
    ("eq10", "--paper"): "datbench eq10 example",
    ("eq10", "--measure"): "datbench eq10 time",
    ("eq10", "--sides"): "datbench eq10 time --res SIZE,SIZE",
    ("eq10", "--plot"): _EQ10_PLOT,
    ("eq10", "--plot-out"): _EQ10_PLOT,
    ("profile", "--plot"): _ROOFLINE,
    ("profile", "--plot-out"): _ROOFLINE,
    ("gate", "--update"): "datbench gate update",
    ("gate", "--models"): "datbench gate update MODEL...",
    ("gate", "--remove"): "datbench gate update --remove MODEL",
    ("gate", "--backward"): "datbench gate update --mode backward",
    ("gate", "--forward"): "datbench gate update --mode inference",
    ("gate", "--memory-batch"): _MEMORY_ROWS,
    ("gate", "--memory-mode"): _MEMORY_ROWS,
    ("gate", "--summary"): _SUMMARY,
    ("gate", "--no-summary"): _SUMMARY,
    ("gate", ""): "--from FILE",
    ("report", "--models"): "datbench report MODEL...",
    ("report", "--pr-comment"): _COMMENT,
    ("report", "--html"): "--plots svg",
    ("report", "--no-html"): "--plots none",
    ("table", "--file"): "the file as TABLE: datbench table FILE.toml",
    ("table", "--search"): "datbench table search TABLE",
    ("eq10", "--all"): "--notes",
    ("table", "--rules"): "--notes",
    ("compare", "--max-processes"): "--processes N, which is doubled while the verdict is open",
    ("compare", "--floor"): "--threshold PERCENT",
    ("compare", "--level"): "--confidence PERCENT",
    ("compare", "--across-machines"): "datbench compare files A.json B.json --across-machines",
    ("points", "--image"): "the second argument: datbench points MODEL IMAGE",
    ("points", "--style"): "datbench points propagated, groups or query",
    ("points", "--figure"): "datbench points propagated (5), groups (6) or query (7)",
    ("points", "--query"): "datbench points query MODEL IMAGE X,Y",
    ("models", "--family"): "datbench models TEXT, which finds families too",
    ("results", "--mixed"): "--across-machines",
}
"""The new spelling by command and option; of every command: ``""``; of an argument: no option."""


def moved(error: Any, context: Any) -> str | None:
    """What to write in place of an old spelling, if that is what was wrong."""
    words = context.command_path.split()[1:2] if context else []
    option = getattr(error, "option_name", None)
    if option is None and error.format_message().startswith("Got unexpected extra argument"):
        option = ""
    for command in (*words, ""):
        if option is not None and (command, option) in MOVED:
            old = option or "a result file as an argument"
            return f"{old} is now {MOVED[command, option]}."
    if "pytest-benchmark" in error.format_message() and "--format" in error.format_message():
        return (
            "--format pytest-benchmark is now `datbench results convert FILE.json --to "
            "pytest-benchmark`."
        )
    return None
