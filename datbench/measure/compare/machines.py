"""Whether figures are of one machine, row by row: processes within a row, and rows of two files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import UsageError
from .files import HARDWARE, SOFTWARE, Found, ResultFile


def check_machines(file: ResultFile) -> None:
    """Whether every row is of one machine, and says of which.

    Raises:
        UsageError: a row is not, or does not say.
    """
    for row in file.rows.values():
        if not all("processor" in environment for environment in row.environments):
            raise _silent(file.path)
        mixed = [
            f"{name} {' and '.join(map(_short, values))}"
            for name, values in _machine(row).items()
            if len(values) > 1
        ]
        if mixed:
            raise UsageError(
                f"{file.path} mixes machines in one row, {row.words()} ({'; '.join(mixed)}); "
                "compare a file of each machine."
            )


def _silent(path: Path) -> UsageError:
    return UsageError(f"{path} does not say what machine it was measured on; measure it again.")


def apart(a: Found, b: Found) -> list[str]:
    """What says that two rows were measured on different machines, in words."""
    one, other = _machine(a), _machine(b)
    return [
        f"{name} {_joined(one[name])} and {_joined(other[name])}"
        for name in one
        if one[name] and other[name] and one[name] != other[name]
    ]


def differences_of_machines(a: ResultFile, b: ResultFile) -> list[str]:
    """The same of all rows that both files have, each difference once.

    Raises:
        UsageError: a row of a file is of several machines, or does not say of which.
    """
    for file in (a, b):
        check_machines(file)
    both = (key for key in a.rows if key in b.rows)
    return list(dict.fromkeys(said for key in both for said in apart(a.rows[key], b.rows[key])))


def software(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs in versions between the environments of two sides, or within one, in words."""
    said = []
    for name in SOFTWARE:
        one, other = (_distinct(each[name] for each in side if name in each) for side in (a, b))
        if one and other and (one != other or len(one) > 1):
            said.append(f"{name} {_joined(one)} for A, {_joined(other)} for B")
    return said


def _machine(row: Found) -> dict[str, list[Any]]:
    """The different values of each thing that makes a machine; what does not count is left out."""
    on_gpu = str(row.setting.get("device")).startswith("cuda")
    found = {
        name: _distinct(each[name] for each in row.environments if name in each)
        for name in HARDWARE
        if name != "gpus" or on_gpu  # a CPU's time does not depend on the GPUs beside it
    }
    if not on_gpu:
        threads = (each.threads for each in row.processes if each.threads is not None)
        found["threads"] = _distinct(threads)
    return found


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in one order; they need not be hashable."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return sorted(found, key=repr)


def _joined(values: Sequence[Any]) -> str:
    return ", ".join(map(_short, values))


def _short(value: Any) -> str:
    if isinstance(value, list):
        names = [str(v.get("name") if isinstance(v, dict) else v) for v in value]
        return ", ".join(names) or "none"
    return str(value)
