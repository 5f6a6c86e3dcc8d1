"""The program: its commands, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import io
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any

import typer

from ..errors import DatbenchError, in_a_line, listening
from ..machine import COMMAND
from ..signals import as_interrupts
from ..units import printable
from ..version import __version__
from .command import COMMANDS, CONTEXT, ELSEWHERE, Group, add
from .moved import moved

NAMES = list(COMMANDS)


class Commands(dict[str, Any]):
    """The commands by name, each made, and its module loaded, when it is asked for."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(COMMANDS))

    def __getitem__(self, name: str) -> Any:
        if (found := super().__getitem__(name)) is None:
            module = import_module(f".{ELSEWHERE.get(name, name)}", __package__)
            app = getattr(module, "app", None)
            if app is None:
                app = typer.Typer(add_completion=False, rich_markup_mode=None)
                add(app, getattr(module, name))
            found = self[name] = typer.main.get_command(app)
        return found

    def items(self) -> Any:
        """Every name with its command."""
        return [(name, self[name]) for name in self]

    def get(self, name: str, default: Any = None) -> Any:
        """The command, or the default where there is none."""
        try:
            return self[name]
        except KeyError:
            return default


class Root(Group):
    """All of them."""

    def __init__(self, **told: Any) -> None:
        super().__init__(**told)
        self.commands = Commands()

    def about(self, name: str) -> str:
        """A line about a command."""
        return COMMANDS[name]


app = typer.Typer(
    name="datbench",
    help="What vision backbones with deformable attention cost, counted and measured.",
    epilog="Exit codes: 0 fine, 1 a check failed, 2 wrong usage, 3 missing, 4 ambiguous, "
    "5 a measurement failed.",
    cls=Root,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"datbench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """What vision backbones with deformable attention cost, counted and measured."""


INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell reports it."""

# Typer carries click's exceptions inside itself in some versions and imports them in others.
_CLICK_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit code. Every error ends here, as one line.

    With ``--debug`` errors are raised.
    """
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given  # anywhere, also after the command
    arguments = [argument for argument in given if argument != "--debug"]
    COMMAND.set(arguments)
    warned: set[str] = set()

    def warn(text: str) -> None:
        if text not in warned:
            warned.add(text)
            _complain(f"warning: {text}", 0)

    with as_interrupts() as pressed, listening(warn):
        try:
            result = app(args=arguments, prog_name="datbench", standalone_mode=False)
        except _CLICK_ERROR as error:
            return _complain(_usage(error), 2)
        except (typer.Abort, KeyboardInterrupt):
            return _complain("interrupted.", INTERRUPTED)
        except SystemExit:
            raise
        except BaseException as error:  # a model's code may raise anything
            if pressed and _lost_an_interrupt(error):
                return _complain("interrupted.", INTERRUPTED)
            if debug:
                raise
            return _complain(*in_a_line(error))
    if result == INTERRUPTED:  # some versions of typer catch Ctrl-C themselves
        return _complain("interrupted.", INTERRUPTED)
    return result if isinstance(result, int) else 0


def _lost_an_interrupt(error: BaseException | None) -> bool:
    """Whether an error after Ctrl-C is Ctrl-C's: no word of ours, or for what broke under it."""
    while isinstance(error, DatbenchError):
        error = error.__cause__
    return error is not None and not isinstance(error, OSError)


def _usage(error: Any) -> str:
    """What is wrong with the command line, and where to read how it is written."""
    context = getattr(error, "ctx", None)
    if now := moved(error, context):
        return now
    message = error.format_message().replace("Value error, ", "").rstrip(".")  # pydantic's words
    return f"{message}; see {context.command_path if context else 'datbench'} --help."


def _complain(message: str, code: int) -> int:
    line = printable(" ".join(message.split()))
    if sys.stderr is not None:  # closed: nobody is told, and standard output is for results
        print(f"datbench: {line}", file=sys.stderr)
    return code


def entry() -> None:
    """What the console script calls."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        code = main()
    except SystemExit:
        raise
    except BaseException as error:  # with --debug
        traceback.print_exc()
        _, code = in_a_line(error)
    sys.exit(code)
