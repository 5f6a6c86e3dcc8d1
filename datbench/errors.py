"""Errors that a user can meet, and the exit code of each.

::

    DatbenchError            5  (a measurement or a file operation failed)
    ├── UsageError           2  (the command line or an argument is wrong)
    │   ├── FieldError          a value that no record takes
    │   │   └── ResolutionError     `--res 12y0`
    │   ├── UnknownNameError    a model, convention or format that does not exist
    │   └── CheckpointError     a file that is not a checkpoint of this model
    ├── CheckFailed          1  (a limit or a comparison that was asked for does not hold)
    ├── MissingError         3  (a baseline or a row is not there)
    ├── AmbiguousError       4  (the evidence does not settle the question)
    ├── LibraryError         5  (a library that this needs is absent or broken)
    └── MeasurementError     5  (the model could not be built or run)

They are caught in one place, `datbench.cli.main`, which prints the message on standard error.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class DatbenchError(Exception):
    """Base of every error that datbench raises on purpose."""

    exit_code = 5


class UsageError(DatbenchError):
    """An argument is wrong; the message says what to write instead."""

    exit_code = 2


class FieldError(UsageError, ValueError):
    """A record refuses a value; as a ValueError too, so that a reader adds where it stands."""


class ResolutionError(FieldError):
    """A resolution that cannot be read, or that no model can take."""


class UnknownNameError(UsageError):
    """A name that is not in a known list."""

    @classmethod
    def among(cls, what: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
        """Build the message, with the closest known names as a suggestion.

        Args:
            what: the kind of thing, for example ``model``.
            name: what was asked for.
            known: every valid name.
            hint: a closing sentence, for example where to see the whole list.
        """
        names = list(known)
        lower = {each.lower(): each for each in names}
        found = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
        close = [lower[each] for each in found]
        if close:
            suggestion = f"did you mean {' or '.join(close)}?"
        elif not names:
            suggestion = "there are none."
        elif len(names) <= 12:
            suggestion = f"choose one of {', '.join(names)}."
        else:
            suggestion = ""
        said = [part for part in (suggestion, hint) if part]
        return cls(
            f"unknown {what} {name!r}; {' '.join(said)}" if said else f"unknown {what} {name!r}."
        )


class CheckpointError(UsageError):
    """A file that cannot be read as a checkpoint, or that belongs to another model."""


class CheckFailed(DatbenchError):
    """A limit that the user set does not hold."""

    exit_code = 1


class MissingError(DatbenchError):
    """A baseline or a row that should be there is missing."""

    exit_code = 3


class AmbiguousError(DatbenchError):
    """The evidence is not enough for a verdict."""

    exit_code = 4


class LibraryError(DatbenchError):
    """An optional library is not installed, or does not load; the message names the remedy."""


class MeasurementError(DatbenchError):
    """The model could not be built or run with this setting."""


class DatbenchWarning(UserWarning):
    """What the reader of a figure should know."""


_listener: ContextVar[Callable[[str], None] | None] = ContextVar("_listener", default=None)


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Give what `warn` says inside to `listener`, whatever filters a model's code has set."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


class Misfit:
    """Beside an exception's class: no device runs this operator on these operands."""


def warn(text: str) -> None:
    """Say one line: as a `DatbenchWarning`, or to whoever is `listening` (the program)."""
    listener = _listener.get()
    if listener is None:
        warnings.warn(text, DatbenchWarning, stacklevel=4)
    else:
        listener(text)


def one_line(error: BaseException) -> str:
    """Any error as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def in_a_line(error: BaseException) -> tuple[str, int]:
    """An error in a line, and its exit code: what nobody expected is not a failed check."""
    if isinstance(error, DatbenchError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}.", 5
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"unexpected {what:.300}; --debug shows where.", 5
