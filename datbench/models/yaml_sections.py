"""A YAML file as sections whose values are checked when they are asked for.

What is wrong is one line: the file, the key's whole name, and what to write instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import LibraryError, UnknownNameError, UsageError

_LARGEST_FILE = 1 << 20
"""Bytes; the published configurations have about a thousand."""

_LARGEST = 10**9
"""What no setting reaches. Integers of a file may be too long to be printed."""

_KINDS = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    bool: "true or false",
    type(None): "empty",
}


def _kind(value: object) -> str:
    """What a value is, in words. Never its text: aliases nest a small file into a huge one."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "a number"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


@dataclass(frozen=True)
class Section:
    """The keys below one name of a file.

    Args:
        file: as the user named it.
        name: ``MODEL.DAT``; empty for the whole file.
        values: what the file says.
        defaults: what an absent key stands for.
    """

    file: str
    name: str
    values: Mapping[Any, Any]
    defaults: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raise UsageError about `key`."""
        absent = f" ({key} is absent: this is its published default)"
        note = absent if key in self.defaults and key not in self.values else ""
        raise UsageError(f"{self.file}: {self._full(key)}: {problem}{note}.")

    def check_keys(self, known: Iterable[str]) -> None:
        """Refuse a key that is not known, with the one that was probably meant."""
        names = {name.lower(): name for name in known}
        for key in self.values:
            if isinstance(key, str) and key in names.values():
                continue
            where = f"{self.file}: {self.name or 'top level'}"
            if not isinstance(key, str):
                raise UsageError(f"{where}: a key is {_kind(key)}; keys are names.")
            close = difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.6)
            hint = f"did you mean {names[close[0]]}?" if close else "remove it."
            raise UnknownNameError(f"{where}: unknown key {key[:60]!r}; {hint}")

    def section(self, key: str, defaults: Mapping[str, Any] | None = None) -> Section:
        """The mapping below `key`; an empty one where it is absent or holds nothing."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            self.refuse(key, f"it is {_kind(value)}; write keys below it")
        return Section(self.file, self._full(key), value or {}, defaults or {})

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return self._integer(key, "", self._get(key), low, high)

    def number(self, key: str) -> float:
        """A finite number."""
        return self._number(key, "", self._get(key))

    def flag(self, key: str) -> bool:
        """True or false."""
        return self._flag(key, "", self._get(key))

    def integers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        """A whole number for each stage."""
        return tuple(
            self._integer(key, f"stage {i}: ", value, low, high)
            for i, value in enumerate(self.four(key), 1)
        )

    def numbers(self, key: str) -> tuple[float, ...]:
        """A finite number for each stage."""
        return tuple(
            self._number(key, f"stage {i}: ", value) for i, value in enumerate(self.four(key), 1)
        )

    def flags(self, key: str) -> tuple[bool, ...]:
        """True or false for each stage."""
        return tuple(
            self._flag(key, f"stage {i}: ", value) for i, value in enumerate(self.four(key), 1)
        )

    def four(self, key: str) -> list[Any]:
        """One value, of whatever kind, for each of the four stages."""
        value = self._get(key)
        if not isinstance(value, list):
            self.refuse(key, f"it is {_kind(value)}; write a list of 4, one value a stage")
        if len(value) != 4:
            self.refuse(key, f"it has {len(value)} entries; write 4, one a stage")
        return value

    def _full(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def _get(self, key: str) -> Any:
        return self.values.get(key, self.defaults.get(key))

    def _integer(self, key: str, where: str, value: object, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(key, f"{where}it is {_kind(value)}; write a whole number")
        if not low <= value <= high:
            shown = value if abs(value) < _LARGEST else "the number"
            self.refuse(key, f"{where}{shown} lies outside {low} to {high}")
        return value

    def _number(self, key: str, where: str, value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self.refuse(key, f"{where}it is {_kind(value)}; write a number such as 0.2")
        if not abs(value) < _LARGEST:  # nor is it nan
            self.refuse(key, f"{where}write a finite number such as 0.2")
        return value

    def _flag(self, key: str, where: str, value: object) -> bool:
        if not isinstance(value, bool):
            self.refuse(key, f"{where}it is {_kind(value)}; write True or False")
        return value


def read_sections(path: Path) -> Section:
    """The whole of a YAML file.

    Raises:
        UsageError: it cannot be read, or holds no mapping; the message says where it is malformed.
        LibraryError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise LibraryError(f"reading {path} needs PyYAML: pip install pyyaml.") from error
    text = _text(path)
    try:
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UsageError(f"{path}: {where}{error.problem or 'no YAML'}.") from error
    except yaml.reader.ReaderError as error:  # a character that YAML forbids
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise UsageError(f"{path}: line {line}, column {column}: {error.reason}.") from error
    except Exception as error:  # a scalar that its tag cannot hold raises whatever it leads to
        raise UsageError(
            f"{path}: a value cannot be read as YAML ({type(error).__name__})."
        ) from error
    if content is None:
        raise UsageError(f"{path} is empty; a configuration has a MODEL section.")
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds {_kind(content)}, not the sections of a configuration.")
    return Section(str(path), "", content, {})


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            exists = "is a directory" if path.is_dir() else "is no file"
            raise UsageError(f"{path} {exists if path.exists() else 'does not exist'}.")
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"{path} is larger than a mebibyte: it is no configuration.")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
