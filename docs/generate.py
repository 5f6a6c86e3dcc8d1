"""Write the pages of docs/reference that follow from the program: `python docs/generate.py`.

A test compares them with the files, so that they cannot drift.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.models import ArgumentInfo

REFERENCE = Path(__file__).parent / "reference"

_MADE = "<!-- Made by docs/generate.py; a test compares it with the program. -->\n\n"


def cli() -> str:
    """Every command with its arguments and options, from the functions that are the commands."""
    from datbench.cli import results
    from datbench.cli.main import COMMANDS, root

    parts = ["# Command line", _paragraphs(root), _options(root)]
    named = [(f"datbench {command.__name__}", command) for command in COMMANDS]
    for below in results.app.registered_commands:
        assert below.callback is not None
        named.append((f"datbench results {below.name or below.callback.__name__}", below.callback))
    for name, command in named:
        parts += [f"## {name}", _paragraphs(command), _usage(name, command)]
        parts.append(_options(command))
    return "\n\n".join([*parts, "## Exit codes", _exit_codes()]) + "\n"


def _paragraphs(command: Callable[..., None]) -> str:
    text = inspect.getdoc(command) or ""
    return "\n\n".join(" ".join(p.split()) for p in text.split("\n\n"))


def _parameters(command: Callable[..., None]) -> list[tuple[inspect.Parameter, Any, Any]]:
    """Parameter, its type, and typer's description of it."""
    hints = get_type_hints(command, include_extras=True)
    found = []
    for parameter in inspect.signature(command).parameters.values():
        kind, info = get_args(hints[parameter.name])[:2]
        found.append((parameter, kind, info))
    return found


def _usage(name: str, command: Callable[..., None]) -> str:
    words = [name]
    for parameter, kind, info in _parameters(command):
        if isinstance(info, ArgumentInfo):
            word = info.metavar or parameter.name.upper()
            word = word if parameter.default is parameter.empty else f"[{word}]"
            words.append(f"{word}..." if "list" in str(kind) else word)
    return f"```\n{' '.join(words)} [OPTIONS]\n```"


def _options(command: Callable[..., None]) -> str:
    rows = ["| argument or option | default | |", "|---|---|---|"]
    for parameter, kind, info in _parameters(command):
        name = _named(parameter, kind, info)
        rows.append(f"| {name} | {_default(parameter, info)} | {_cell(info.help)} |")
    return "\n".join(rows) if len(rows) > 2 else ""


def _named(parameter: inspect.Parameter, kind: Any, info: Any) -> str:
    if isinstance(info, ArgumentInfo):
        return f"`{info.metavar or parameter.name.upper()}`"
    flags = info.param_decls or [f"--{parameter.name.replace('_', '-')}"]
    shown = ", ".join(f"`{flag}`" for flag in flags)
    types = [t for t in (kind, *get_args(kind)) if isinstance(t, type)]
    if bool in types:
        return shown
    choices = [choice.value for t in types if issubclass(t, Enum) for choice in t]
    number = any(t in (int, float) for t in types)
    return f"{shown} {', '.join(choices) or info.metavar or ('N' if number else 'TEXT')}"


def _default(parameter: inspect.Parameter, info: Any) -> str:
    if isinstance(info.show_default, str):
        return info.show_default
    value = parameter.default
    return "" if value in (None, False) or value is parameter.empty else f"`{value}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", r"\|")


def _exit_codes() -> str:
    from datbench import errors

    tree = re.search(r"::\n\n(.*?)\n\n", errors.__doc__ or "", re.DOTALL)
    assert tree is not None
    return f"```\n{tree[1]}\n```"


def rules() -> str:
    """Every operator's rule, and every convention's weights."""
    from datbench.counting.rules import ABOUT

    sections = {  # the operator that each begins with
        "aten::conv1d": "Products",
        "aten::layer_norm": "Norms, sampling, pooling, elementwise work",
        "aten::convolution_backward": "Backward",
    }
    title = ""
    groups: dict[str, dict[str, list[str]]] = {}
    for operator, about in ABOUT.items():
        if not operator.startswith(("aten::", "torchvision::")):
            continue  # a user's own
        title = sections.get(operator, title)
        short = operator.removeprefix("aten::")
        groups.setdefault(title, {}).setdefault(about, []).append(f"`{short}`")
    parts = [
        "# Rules by operator",
        "What each operator of the forward and backward is counted by, and whose rule that is. "
        "The amounts are weighted by a [convention](../conventions.md). Operators that are not "
        "here are pointwise by torch's own tag and count one for each output element, or they "
        "move and create data and are free; all others are reported as unknown. Sources: fvcore "
        "0.1.5 `jit_handles.py`, torch `utils/flop_counter.py`, mmcv 1.x `flops_counter.py`; "
        "*Ours* where none of them has a rule.",
    ]
    for title, abouts in groups.items():
        parts += [f"## {title}", "| operators | amount and source |\n|---|---|"]
        rows = [f"| {', '.join(names)} | {_cell(about)} |" for about, names in abouts.items()]
        parts[-1] += "\n" + "\n".join(rows)
    return "\n\n".join(parts) + "\n"


def tables() -> str:
    """Every table of the papers with its verdicts."""
    from datbench.paper.tables import paper_tables
    from datbench.paper.verdicts import compare_tables
    from datbench.paper.view import comparison_table, further_tables, overview
    from datbench.render.text import to_markdown

    comparisons = compare_tables(paper_tables())
    parts = [part for c in comparisons for part in (comparison_table(c), *further_tables(c))]
    text = to_markdown([overview(comparisons), *parts])
    intro = (
        "# The papers' tables, checked\n\n"
        "What `datbench table all` prints: every figure of the papers beside what is computed "
        "here, with a verdict. [Tables and verdicts](../tables.md) says how a verdict comes "
        "about.\n\n"
    )
    return intro + re.sub(r"^### ", "## ", text, flags=re.MULTILINE)


PAGES: dict[str, Callable[[], str]] = {"cli.md": cli, "rules.md": rules, "tables.md": tables}


def page(name: str) -> str:
    """A page as it should be."""
    title, _, rest = PAGES[name]().partition("\n")
    return f"{title}\n\n{_MADE}{rest.lstrip()}"


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for name in PAGES:
        (REFERENCE / name).write_text(page(name), encoding="utf-8")
