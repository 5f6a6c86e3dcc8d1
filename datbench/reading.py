"""From plain values, as JSON has them, back to dataclasses: what a type's fields say is checked."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import UsageError
from .types import Setting

LARGEST = 10**30
"""No figure reaches it; beyond 1e308 a whole number could not even be drawn."""

_COUNTS = frozenset(
    "params frozen buffers macs flops calls forward bytes_read bytes_written peak after_forward "
    "at_end asked gpus samples warmup kept at_peak".split()
)
"""Fields of numbers that are never negative, whatever has them."""

_WORDS = {int: "a whole number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field; the field is empty for the whole."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def problems_of(hint: Any, value: object, path: str = "", strict: bool = False) -> list[Problem]:
    """Everything that keeps `value` from being a `hint`.

    Args:
        strict: fields that no class has are problems too.
    """
    reader = Reader(strict)
    reader.read(hint, value, path)
    return reader.problems


class Reader:
    """Reads values of a type and keeps what was wrong, with the path of the field."""

    def __init__(self, strict: bool = False) -> None:
        self.problems: list[Problem] = []
        self._strict = strict

    def read(self, hint: Any, value: Any, path: str) -> Any:
        """The value of this type; of no use where a problem was found."""
        if hint is Any:
            return self._anything(value, path)
        if is_dataclass(hint):
            return self._dataclass(hint, value, path)
        origin, inner = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return self._union(inner, value, path)
        if origin is Literal:
            return self._one_of(inner, value, path)
        if origin is tuple:
            return self._tuple(inner, value, path)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(inner[1], value, path)
        return self._scalar(hint, value, path)

    def _wrong(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))

    def _scalar(self, hint: Any, value: Any, path: str) -> Any:
        if hint is float:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                self._wrong(path, f"must be a number, not {_said(value)}")
            else:
                self._bounded(value, path)
        elif hint in _WORDS:
            if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
                self._wrong(path, f"must be {_WORDS[hint]}, not {_said(value)}")
            elif hint is int:
                self._bounded(value, path)
        elif hint is type(None):
            if value is not None:
                self._wrong(path, f"must be null, not {_said(value)}")
        else:
            raise TypeError(f"{path}: no reader for {hint}")
        return value

    def _bounded(self, value: float, path: str) -> None:
        # A whole number may be too large to be asked whether it is finite.
        if isinstance(value, float) and not math.isfinite(value):
            self._wrong(path, f"must be a finite number, not {value}")
        elif isinstance(value, int) and abs(value) > LARGEST:
            self._wrong(path, f"must be a number below {LARGEST:.0e}, not one of so many digits")
        elif value < 0 and path.rpartition(".")[2] in _COUNTS:
            self._wrong(path, f"must not be negative, as {value} is")

    def _anything(self, value: Any, path: str) -> Any:
        if isinstance(value, (int, float)):
            self._bounded(value, path)
        elif isinstance(value, Mapping):
            for name, below in value.items():
                self._anything(below, _below(path, str(name)))
        elif isinstance(value, (list, tuple)):
            for number, below in enumerate(value, 1):
                self._anything(below, f"{path}[{number}]")
        return value

    def _one_of(self, known: tuple[Any, ...], value: Any, path: str) -> Any:
        if not isinstance(value, (str, int)) or value not in known:
            self._wrong(path, f"must be one of {', '.join(map(str, known))}, not {_said(value)}")
        return value

    def _union(self, hints: tuple[Any, ...], value: Any, path: str) -> Any:
        if value is None and type(None) in hints:
            return None
        others = [hint for hint in hints if hint is not type(None)]
        tried: list[list[Problem]] = []
        for hint in others:
            reader = Reader(self._strict)
            found = reader.read(hint, value, path)
            if not reader.problems:
                return found
            tried.append(reader.problems)
        fewest = min(tried, key=len)
        self.problems += fewest
        return value

    def _tuple(self, inner: tuple[Any, ...], value: Any, path: str) -> Any:
        if not isinstance(value, (list, tuple)):
            self._wrong(path, f"must be a list, not {_said(value)}")
            return ()
        if len(inner) == 2 and inner[1] is Ellipsis:
            inner = (inner[0],) * len(value)
        if len(inner) != len(value):
            self._wrong(path, f"must have {len(inner)} elements, not {len(value)}")
            return ()
        pairs = zip(inner, value, strict=True)
        return tuple(
            self.read(hint, each, f"{path}[{number}]")
            for number, (hint, each) in enumerate(pairs, 1)
        )

    def _mapping(self, inner: Any, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            self._wrong(path, f"must be an object, not {_said(value)}")
            return {}
        return {name: self.read(inner, each, _below(path, name)) for name, each in value.items()}

    def _dataclass(self, kind: Any, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            self._wrong(path, f"must be an object, not {_said(value)}")
            return None
        if kind is Setting and "resolution" not in value:
            # A row's own setting has the input's sides among its fields.
            sides = {side: value[side] for side in ("width", "height") if side in value}
            value = {"resolution": sides, **{k: v for k, v in value.items() if k not in sides}}
        before = len(self.problems)
        given = self._fields(kind, value, path)
        if len(self.problems) > before:
            return None
        try:
            return kind(**given)
        except (UsageError, ValueError, TypeError) as error:
            self._wrong(path, str(error).rstrip("."))
            return None

    def _fields(self, kind: Any, value: Mapping[str, Any], path: str) -> dict[str, Any]:
        hints, given = _hints(kind), {}
        known = {each.name: each for each in fields(kind) if each.init}
        for name, each in known.items():
            below = path if kind is Setting and name == "resolution" else _below(path, name)
            if name in value:
                given[name] = self.read(hints[name], value[name], below)
            elif each.default is MISSING and each.default_factory is MISSING:
                self._wrong(below, "is missing")
        if self._strict:
            for name in value:
                if name not in known:
                    self._wrong(_below(path, str(name)), "is no field of this kind")
        return given


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _said(value: Any) -> str:
    """A value in a message, never long."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
