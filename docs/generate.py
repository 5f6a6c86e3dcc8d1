"""Write the pages that follow from the program: `python docs/generate.py`.

A test compares them with the files, so that they cannot drift.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from datbench.cli.command import SECTIONS
from datbench.setting import Setting

DOCS = Path(__file__).parent

_MADE = "<!-- Made by docs/generate.py; a test compares it with the program. -->\n\n"


def cli() -> str:
    """Every command with its arguments, options and examples, from the tree of commands."""
    import typer

    from datbench.cli.main import app

    root: Any = typer.main.get_command(app)
    # With its settings, such as -h: a command keeps the help option that it was first asked for.
    context = root.context_class(root, info_name="datbench", **root.context_settings)
    parts = ["# Command line", *_command(root, context)]
    return "\n\n".join([*parts, "## Exit codes", _exit_codes()]) + "\n"


def _command(command: Any, context: Any) -> Iterator[str]:
    """One command, then those below it."""
    below = [command.get_command(context, name) for name in getattr(command, "commands", {})]
    if context.parent:
        yield f"{'##' if context.parent.parent is None else '###'} {context.command_path}"
    yield re.sub(r"(?<!\n)\n(?!\n)", " ", command.help)
    if not below:
        yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
    sections: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            title = "Arguments"
            shown = f"{parameter.metavar}{'...' if parameter.nargs == -1 else ''}", parameter.help
        elif parameter.name == "help":
            continue
        else:
            title = getattr(parameter, "rich_help_panel", None) or "Options"
            shown = parameter.get_help_record(context)
        sections.setdefault(title, []).append(f"| `{shown[0]}` | {_cell(shown[1])} |")
    rows = [
        row
        for title in sorted(sections, key=("Arguments", *SECTIONS).index)
        for row in (f"| **{title}** | |", *sections[title])
    ]
    rows += ["| **Commands** | |"] if below else []
    rows += [f"| `{each.name}` | {_cell(each.short_help)} |" for each in below]
    yield "\n".join(["| | |", "|---|---|", *rows])
    if command.epilog and context.parent:
        examples = re.findall(r"^  (.*)", command.epilog, re.MULTILINE)
        yield "\n".join(["```text", *examples, "```"])
    for each in below:
        inner = each.context_class(each, info_name=each.name, parent=context)
        yield from _command(each, inner)


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


RESULTS = """
`--format json` writes one document:

```json
{{
  "format": "datbench",
  "version": {version},
  "kind": "flops",
  "environment": {{"datbench": "0.1.0", "python": "3.11.7", "torch": "2.15.0"}},
  "rows": [{{"model": "dat_s", "...": "..."}}]
}}
```

`version` grows when a reader of the older one would be misled. A file of an older version is read,
and written again as version {version}; a newer one is refused. Reading is strict: every field below
is checked by its type, a field that is not below is refused, and so are a key that stands twice in
one object, numbers that are not finite or have more than 30 digits. `datbench results validate
FILE` lists what is wrong, with the row and the path of the field.

A row of a file that was merged from several environments (`results merge --across-machines`) has
`measured_in` besides its own fields: the environment of that row. In CSV and Parquet
(`results convert`) nested fields stand under dotted names such as `setting.width`, and lists are
JSON text.
"""


def results() -> str:
    """Every kind of result file, field by field, from the record classes."""
    from datbench.records import RECORDS, VERSION, record_class

    kinds = {kind: [record_class(name) for name in names] for kind, names in RECORDS.items()}
    parts = ["# The JSON format", RESULTS.format(version=VERSION).strip()]
    rows = [
        f"| [`{kind}`](#{_anchor(kind)}) | {_about(classes)} |" for kind, classes in kinds.items()
    ]
    parts += ["## Kinds", "| kind | a row |\n|---|---|\n" + "\n".join(rows)]
    used: list[type] = []
    for kind, classes in kinds.items():
        parts.append(f"## {kind}")
        if len(classes) > 1:
            parts.append("A row is one of these.")
        for cls in classes:
            parts += _record(cls, used, len(classes) > 1)
    parts.append("## Objects in rows")
    for cls in used:  # grows meanwhile
        parts += _record(cls, used, True)
    return "\n\n".join(parts) + "\n"


def _about(classes: list[Any]) -> str:
    return _cell(" Or: ".join(_sentence(cls) for cls in classes))


def _sentence(cls: Any) -> str:
    if not is_dataclass(cls):
        return "What identifies the machine and its software: any fields."
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")


def _record(cls: Any, used: list[type], titled: bool) -> list[str]:
    """A class's title, what it is, and its fields with the comments that stand beside them."""
    parts = [f"### {_words(cls)}"] if titled else []
    parts.append(_sentence(cls))
    if not is_dataclass(cls):
        return parts
    hints, comments = get_type_hints(cls, include_extras=True), _comments(cls)
    rows = []
    for field in fields(cls):
        if cls is Setting and field.name == "resolution":
            rows.append("| `width`, `height` | whole number | of the input, in pixels |")
        else:
            kind = _type(hints[field.name], used)
            rows.append(f"| `{field.name}` | {kind} | {_cell(comments.get(field.name))} |")
    return [*parts, "| field | value | |\n|---|---|---|\n" + "\n".join(rows)]


def _comments(cls: Any) -> dict[str, str]:
    """The comment of each field, beside it or above it."""
    found, above = {}, []
    for line in inspect.getsource(cls).splitlines():
        field = re.match(r"    (\w+): [^#]*(?:# (.*))?$", line)
        if comment := re.match(r"    # (.*)", line):
            above.append(comment[1])
        elif field:
            text = " ".join([*above, *filter(None, [field[2]])])
            found[field[1]] = re.sub(r"\bNone\b", "null", text).replace("``", "`")
            above = []
        else:
            above = []
    return found


def _type(hint: Any, used: list[type]) -> str:
    """A type in words; of an object, with a link to it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        least = inner[1].least
        most = "" if inner[1].most is None else f" to {inner[1].most:g}"
        return f"{_type(inner[0], used)} from {least:g}{most}"
    if origin in (Union, UnionType):
        return " or ".join(_type(each, used) for each in inner)
    if origin is Literal:
        return ", ".join(f"`{each}`" if each else "empty" for each in inner)
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return f"list of: {_type(inner[0], used)}"
        return "list: " + ", ".join(_type(each, used) for each in inner)
    if origin is not None:  # a mapping
        return f"object of: {_type(inner[1], used)}"
    if is_dataclass(hint):
        if hint not in used:
            used.append(hint)
        return f"[{_words(hint)}](#{_anchor(_words(hint))})"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return words.get(hint, "null" if hint is type(None) else "anything")


def _words(cls: Any) -> str:
    """``group row (counting)``; the room tells two classes of one name apart."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", cls.__name__).lower()
    name = name.replace("peer", "third-party").replace("ceilings", "machine peaks")
    room = cls.__module__.split(".")[1]
    return name if room in ("records", "setting") else f"{name} ({room})"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w-]", "", title.lower().replace(" ", "-"))


PAGES: dict[str, Callable[[], str]] = {
    "results.md": results,
    "reference/cli.md": cli,
    "reference/rules.md": rules,
    "reference/tables.md": tables,
}
"""By their path in this folder."""


def page(name: str) -> str:
    """A page as it should be."""
    title, _, rest = PAGES[name]().partition("\n")
    return f"{title}\n\n{_MADE}{rest.lstrip()}"


if __name__ == "__main__":
    (DOCS / "reference").mkdir(exist_ok=True)
    for name in PAGES:
        (DOCS / name).write_text(page(name), encoding="utf-8")
