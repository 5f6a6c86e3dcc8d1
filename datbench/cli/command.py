"""What commands are made of: options in groups, examples under the help, one value an option.

An option group is a frozen dataclass whose fields are options (`option`). A command that takes a
parameter of such a type takes all of its options, and gets them as one value.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS = {
    "models": "List the models and heads, with where each is published",
    "show": "Show how a model is built, and whether a checkpoint fits",
    "params": "Count parameters (trainable, frozen) and buffers",
    "flops": "Count MACs or FLOPs, and parameters",
    "explain": "Explain why counters disagree about one model, as a sum of operators",
    "memory": "Tell where the memory goes: simulated, measured, or the largest batch that fits",
    "throughput": "Time models: images per second and latency, with intervals",
    "profile": "Tell why a model is slower than its FLOPs say",
    "compare": "Tell whether B is as fast as A",
    "eq10": "Take the papers' complexity formula (Eq. 10) apart",
    "table": "Compare a paper's tables with what is computed",
    "gate": "Fail in CI if something changed against a baseline",
    "sweep": "Measure a grid of models, sizes and settings: killed and resumed at will",
    "summary": "One row a model, as a table for a paper",
    "report": "Write a report into a directory: HTML, markdown, CSV, LaTeX and JSON",
    "plot": "Draw a plot, in the terminal or into a .png or .svg file",
    "points": "Draw the deformed sampling points over an image",
    "results": "Show, merge, convert and check result files",
    "env": "Describe this machine: versions, processor, memory, GPUs",
    "selftest": "Check that datbench counts, simulates and measures rightly on this machine",
}
"""What each command does."""

ELSEWHERE = {"show": "models", "params": "models", "explain": "flops", "env": "models"}
"""The modules of commands that do not have one of their own name."""

SECTIONS = WHAT, HOW, RESULT, OUTPUT, OTHER = (
    "What is run",
    "How it is measured",
    "Result",
    "Output",
    "Options",
)
"""Sections of the help, in their order."""

Complete = Callable[[str], Iterable[Any]]


def complete(*names: str) -> Complete:
    """Shell completion of an option that takes one of `names`."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def option(
    section: str,
    spelling: str,
    help: str,
    *,
    default: bool = False,
    names: Sequence[str] = (),
    complete_with: Complete | None = None,
    **more: Any,
) -> Any:
    """An option of a command.

    Args:
        section: the heading in the help under which it stands.
        spelling: such as ``--batch N``; a flag has no second word.
        default: whether the help shows the default; otherwise its own words say it.
        names: values that the shell completes.
    """
    flag, _, metavar = spelling.partition(" ")
    return typer.Option(
        flag,
        help=help,
        metavar=metavar or None,
        show_default=default,
        autocompletion=complete_with or (complete(*names) if names else None),
        rich_help_panel=section,
        **more,
    )


def argument(help: str, metavar: str, complete_with: Complete | None = None) -> Any:
    """An argument of a command; `metavar` such as ``MODEL...``."""
    return typer.Argument(
        help=help, metavar=metavar, autocompletion=complete_with, show_default=False
    )


def _declared(hint: Any) -> Any:
    """A parameter's hint as it is written: Python 3.10 adds None to it if that is its default."""
    inner = get_args(hint) if get_origin(hint) is Union else ()
    return next((each for each in inner if get_origin(each) is Annotated), hint)


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """A command as Typer reads it: with the options of its groups in their places."""
    hints = {n: _declared(h) for n, h in get_type_hints(command, include_extras=True).items()}
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if not is_dataclass(hint):
            parameters.append(parameter.replace(annotation=hint))
            continue
        assert isinstance(hint, type)
        groups[parameter.name] = hint
        types = get_type_hints(hint, include_extras=True)
        for field in fields(hint):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            parameters.append(
                inspect.Parameter(
                    field.name, parameter.kind, default=default, annotation=types[field.name]
                )
            )

    @wraps(command)
    def run(**given: Any) -> None:
        built = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**built, **given)

    # An argument without a default may follow a group's options.
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    del run.__wrapped__  # whose own signature would be read
    return run


def _argument_name(parameter: Any) -> str:
    return f"{parameter.metavar}{'...' if parameter.nargs == -1 else ''}"


class Help:
    """Help in plain sections, and in panels on a terminal; its examples are lines of their own."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Choose the form by where it goes."""
        if sys.stdout is not None and sys.stdout.isatty():
            from ..render.terminal import print_help

            command: Any = self
            usage = " ".join(["Usage:", ctx.command_path, *self.collect_usage_pieces(ctx)])
            print_help(usage, command.help, self._sections(ctx), command.epilog)
        else:
            super().format_help(ctx, formatter)  # type: ignore[misc]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Every section with what is in it."""
        for title, records in self._sections(ctx).items():
            with formatter.section(title):
                formatter.write_dl(records)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments as people write them: ``FILE...``, in brackets where they may be left out."""
        command: Any = self
        if isinstance(self, Group):
            return list(super().collect_usage_pieces(ctx))  # type: ignore[misc]
        pieces = ["[OPTIONS]"]
        for parameter in command.get_params(ctx):
            if parameter.param_type_name == "argument":
                name = _argument_name(parameter)
                pieces.append(name if parameter.required else f"[{name}]")
        return pieces

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The lines as they are."""
        command: Any = self
        if command.epilog:
            formatter.write(f"\n{command.epilog}\n")

    def _sections(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:
        """Arguments, options by their sections, and commands; each with its help."""
        command: Any = self
        found: dict[str, list[tuple[str, str]]] = {t: [] for t in ("Arguments", *SECTIONS)}
        for parameter in command.get_params(ctx):
            if parameter.param_type_name == "argument":
                found["Arguments"].append((_argument_name(parameter), parameter.help))
            elif record := parameter.get_help_record(ctx):
                title = getattr(parameter, "rich_help_panel", None) or OTHER
                found[title].append((record[0], record[1].replace("\\[", "[")))  # old Typers' mark
        for name in command.list_commands(ctx) if isinstance(self, Group) else ():
            found.setdefault("Commands", []).append((name, command.about(name)))
        return {title: records for title, records in found.items() if records}


class Command(Help, TyperCommand):
    """A command that refuses an option given twice, where the last one would count alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line.

        Raises:
            BadParameter: an option that takes one value stands there twice.
        """
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for parameter in order:
                if parameter.param_type_name == "option" and not (
                    parameter.multiple or parameter.name == "help" or order.count(parameter) == 1
                ):
                    ctx.fail(f"{parameter.opts[0]} is given twice; it takes one value")
        return list(super().parse_args(ctx, args))


class Group(Help, TyperGroup):
    """Commands under one name; what names none of them goes to the default one, if there is one."""

    usual: str | None = None  # the command that is meant where none is named

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in their order."""
        return list(self.commands)

    def about(self, name: str) -> str:
        """A line about a command."""
        return self.commands[name].get_short_help_str(200)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command where none is named."""
        named = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        if self.usual and not named and not (ctx.resilient_parsing and not args):
            args = [self.usual, *args]
        return list(super().parse_args(ctx, args))

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Names of commands, and what the default one takes."""
        found = list(super().shell_complete(ctx, incomplete))
        if self.usual:
            below = self.commands[self.usual]
            inner = below.make_context(self.usual, [], parent=ctx, resilient_parsing=True)
            arguments: list[Any] = [
                p for p in below.get_params(inner) if p.param_type_name == "argument"
            ]
            for taker in [below, *arguments[:1]]:
                found += taker.shell_complete(inner, incomplete)
        return found


CONTEXT = {"help_option_names": ["-h", "--help"]}


def group(
    name: str, commands: Sequence[Callable[..., None]], usual: str | None = None
) -> typer.Typer:
    """Commands under one name of `COMMANDS`.

    Args:
        usual: the command that is meant where none is named.
    """
    below = f" Without a command: {usual}, which `datbench {name} {usual} --help` describes."
    app = typer.Typer(
        name=name,
        help=f"{COMMANDS[name]}.{below if usual else ''}",
        short_help=COMMANDS[name],
        cls=type("Group", (Group,), {"usual": usual}),
        no_args_is_help=usual is None,
        rich_markup_mode=None,
        add_completion=False,
        context_settings=CONTEXT,
    )
    for command in commands:
        add(app, command)
    return app


def add(app: typer.Typer, command: Callable[..., None]) -> None:
    """Add a command: its docstring is its help, and what stands under ``Examples:`` ends it."""
    about, _, examples = (inspect.getdoc(command) or "").partition("\n\nExamples:\n")
    lines = [f"  {line.strip()}" for line in examples.splitlines()]
    app.command(
        command.__name__.rstrip("_").replace("_", "-"),
        cls=Command,
        help=about,
        short_help=about.partition("\n")[0].rstrip("."),
        epilog="\n".join(["Examples:", *lines]) if lines else None,
        context_settings=CONTEXT,
    )(expanded(command))
