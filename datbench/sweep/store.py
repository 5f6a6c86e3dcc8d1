"""The directory of a sweep: its frozen units, one file a record, and the marks of tries.

::

    sweep.toml            what was asked for
    units.jsonl           its units, frozen: a head, then one unit a line
    KIND/ab/KEY.OUTCOME.json   a record; its name says how the unit ended
    tries/KEY.N           the N-th try of a unit without a record yet
    retried/ set-aside/   records that were done again; files that cannot be read
    log/ beside/ slurm.jsonl   logs of jobs; files that are being written; jobs submitted

A record is written beside, synced, and linked to its name, which never replaces another file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import DatbenchError, MissingError, UsageError
from ..files import read_text, write_whole
from ..process import PACKAGES, alive
from ..records import checked, load, read_json
from ..version import __version__
from .plan import PLAN, key_of, pruning_key, specification, units_of
from .records import KINDS, OUTCOMES, Outcome, Unit

UNITS = "units.jsonl"

FORMAT = "datbench-sweep"

BROKEN = "set-aside"

LEFT = 3600.0
"""Seconds after which nobody is still at work on a file beside the records."""

PRUNED = ("throughput", "memory-measured")
"""Kinds of which a larger batch runs out of memory where a smaller one has."""


_LINE = re.compile(r'{"key": "(\w+)", "kind": "([a-z-]+)", .*}')


@dataclass(frozen=True)
class PlannedUnit:
    """A line of ``units.jsonl``; most lines of a sweep that is resumed are not read further."""

    number: int
    key: str
    kind: str  # of its record
    line: str

    @classmethod
    def read(cls, number: int, line: str) -> PlannedUnit:
        """A line.

        Raises:
            ValueError: it is none.
        """
        if (match := _LINE.fullmatch(line)) is None:
            raise ValueError
        return cls(number, match[1], match[2], line)

    @cached_property
    def _content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.line)
        return found

    @property
    def timeout(self) -> float:
        """Seconds that it may take."""
        return float(self._content["timeout"])

    @property
    def specified(self) -> dict[str, Any]:
        """The unit as JSON has it."""
        found: dict[str, Any] = self._content["unit"]
        return found

    @cached_property
    def unit(self) -> Unit:
        """The unit as a value."""
        found, problems = checked(Unit, self.specified)
        if problems:
            raise UsageError(f"{UNITS}, unit {self.number + 1}: {problems[0]}.")
        assert isinstance(found, Unit)
        return found


def lines_of(text: str, name: str) -> list[str]:
    """The lines of a plan's units.

    Raises:
        UsageError: the plan is wrong.
    """
    lines = []
    for unit, timeout in units_of(text, name):
        found = specification(unit)
        line = {"key": key_of(found), "kind": unit.kind, "timeout": timeout, "unit": found}
        lines.append(json.dumps(line))
    return lines


def _text(folder: Path, text: str | None) -> tuple[str, str]:
    """A plan, and the name of its file: what options say, or what stands in ``sweep.toml``.

    Raises:
        MissingError: neither says anything.
    """
    if text is not None:
        return text, ""
    if not (folder / PLAN).is_file():
        raise _missing(folder)
    return read_text(folder / PLAN), str(folder / PLAN)


def _missing(folder: Path) -> MissingError:
    return MissingError(
        f"{folder} holds no sweep: write {folder / PLAN}, or name models, and "
        f"`datbench sweep run {folder}`."
    )


class Sweep:
    """A sweep's directory."""

    def __init__(self, folder: Path, units: Sequence[PlannedUnit]) -> None:
        self.folder = folder
        self.units = units
        self.by_key = {each.key: each for each in units}

    @classmethod
    def open(cls, folder: Path) -> Sweep:
        """The sweep of a directory whose units are frozen.

        Raises:
            MissingError: it holds none.
            UsageError: its units are damaged.
        """
        path = folder / UNITS
        if not path.is_file():
            raise _missing(folder)
        head, *lines = read_text(path).splitlines() or [""]
        try:
            if json.loads(head)["format"] != FORMAT:
                raise KeyError
            units = [PlannedUnit.read(number, line) for number, line in enumerate(lines)]
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{path} is damaged; start the sweep in another directory.") from None
        return cls(folder, units)

    @classmethod
    def create(cls, folder: Path, text: str | None = None) -> Sweep:
        """The sweep of a directory, whose units are frozen now if they are not yet.

        Args:
            text: the plan; what stands in ``sweep.toml`` where None.

        Raises:
            UsageError: the plan is wrong, or the directory is another sweep's.
        """
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; a sweep is a directory.")
        frozen = folder / UNITS
        if text is None and frozen.is_file() and not (folder / PLAN).is_file():
            return cls.open(folder)
        text, name = _text(folder, text)
        digest = sha256(text.encode()).hexdigest()
        if frozen.is_file() and _head(frozen).get("plan") == digest:
            return cls.open(folder)
        lines = lines_of(text, name)
        if frozen.is_file():
            before = cls.open(folder)
            if {PlannedUnit.read(0, line).key for line in lines} != before.by_key.keys():
                raise UsageError(
                    f"{folder} is another sweep, of {len(before.units)} units: its units are "
                    "frozen; name another directory."
                )
            return before
        head = json.dumps({"format": FORMAT, "version": 1, "plan": digest})
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: {error.strerror}.") from error
        if not (folder / PLAN).is_file():
            write_whole(folder / PLAN, text)
        write_whole(frozen, "".join(f"{line}\n" for line in (head, *lines)))
        return cls.open(folder)

    # Which units are done: names are read, not contents.

    def scan(self) -> dict[str, Outcome]:
        """The outcome of every unit that has a record.

        Where a unit has two (on a file system without locks), the better one counts.
        """
        found: dict[str, Outcome] = {}
        for name in self._names():
            key, _, rest = name.partition(".")
            outcome = rest.removesuffix(".json")
            if outcome in OUTCOMES and key in self.by_key:
                known = found.get(key)
                if known is None or OUTCOMES.index(outcome) < OUTCOMES.index(known):
                    found[key] = outcome
        return found

    def _names(self) -> Iterator[str]:
        for kind in KINDS:
            # Names alone: paths of 10,000 files would take ten times as long.
            for _, _, names in os.walk(self.folder / kind):
                yield from names

    def path(self, planned: PlannedUnit, outcome: str) -> Path:
        """Where the record of a unit that ended so stands."""
        return self.folder / planned.kind / planned.key[:2] / f"{planned.key}.{outcome}.json"

    def outcome(self, planned: PlannedUnit) -> Outcome | None:
        """How a unit ended; None without a record."""
        return next((each for each in OUTCOMES if self.path(planned, each).exists()), None)

    @cached_property
    def alike(self) -> dict[str, list[PlannedUnit]]:
        """Units that differ in batch and round alone, by what they have in common."""
        found: dict[str, list[PlannedUnit]] = {}
        for each in self.units:
            if each.kind in PRUNED:
                found.setdefault(pruning_key(each.specified), []).append(each)
        return found

    def smaller_out_of_memory(self, planned: PlannedUnit) -> PlannedUnit | None:
        """A unit of the same setting with no larger batch that ran out of memory."""
        if planned.kind not in PRUNED:
            return None
        batch = planned.specified["setting"]["batch"]
        for each in self.alike.get(pruning_key(planned.specified), ()):
            smaller = each is not planned and each.specified["setting"]["batch"] <= batch
            if smaller and self.path(each, "oom").exists():
                return each
        return None

    # Writing.

    def put(self, planned: PlannedUnit, outcome: Outcome, content: Mapping[str, Any]) -> bool:
        """Add a record, unless the unit has one: whoever comes first wins. Whether it was added.

        Raises:
            OSError: the system refuses, for example because the disk is full.
        """
        path = self.path(planned, outcome)
        beside = self.folder / "beside" / f"{planned.key}.{socket.gethostname()}.{os.getpid()}"
        text = json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
        for folder in (path.parent, beside.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                file.write(text.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
            with _locked(path.parent) as handle:
                if self.outcome(planned) is not None or not _linked(beside, path):
                    return False
                os.fsync(handle)
        finally:
            beside.unlink(missing_ok=True)
        return True

    def sweep_out(self) -> None:
        """Remove what processes left that were killed while they wrote, or right after."""
        for path in _files(self.folder / "beside"):
            host, _, number = path.name.partition(".")[2].rpartition(".")
            ours = host == socket.gethostname() and number.isdecimal()
            with contextlib.suppress(FileNotFoundError):
                old = time.time() - path.stat().st_mtime > LEFT  # of another machine
                if old or (ours and not alive(int(number))):
                    path.unlink()
        tries = self.tries()
        for key in tries.keys() & self.scan().keys() if tries else ():
            self.end(self.by_key[key])

    def retry(self, planned: PlannedUnit, outcome: Outcome, where: str = "retried") -> None:
        """Move a record away, so that its unit is pending again."""
        path = self.path(planned, outcome)
        place = self.folder / where
        place.mkdir(exist_ok=True)
        number = sum(each.name.startswith(planned.key) for each in _files(place))
        path.replace(place / f"{planned.key}.{outcome}.{number}.json")

    def set_broken_aside(self, thoroughly: bool = False) -> list[str]:
        """Move records away that cannot be read; what was wrong with each.

        Args:
            thoroughly: whether every field is checked.
        """
        said = []
        for key, outcome in self.scan().items():
            path = self.path(self.by_key[key], outcome)
            try:
                block = read_json(path)["unit"]
                if block["outcome"] != outcome or key_of(block["specification"]) != key:
                    raise UsageError(f"{path} is the record of another unit.")
                if thoroughly:
                    load(path)
            except UsageError as error:
                said.append(str(error))
            except (KeyError, TypeError):
                said.append(f"{path} is not a record of a sweep.")
            else:
                continue
            self.retry(self.by_key[key], outcome, BROKEN)
        return said

    # Tries: which unit was at work when a process vanished.

    def tries(self) -> dict[str, list[Path]]:
        """The marks of tries that gave no record, by unit, the last try last."""
        found: dict[str, list[Path]] = {}
        for path in sorted(_files(self.folder / "tries"), key=lambda p: (len(p.name), p.name)):
            found.setdefault(path.name.partition(".")[0], []).append(path)
        return found

    def begin(self, planned: PlannedUnit, number: int) -> Path:
        """Mark a try."""
        path = self.folder / "tries" / f"{planned.key}.{number}"
        path.parent.mkdir(exist_ok=True)
        here = {"host": socket.gethostname(), "process": os.getpid(), "began": time.time()}
        path.write_text(json.dumps(here), encoding="utf-8")
        return path

    def end(self, planned: PlannedUnit) -> None:
        """Remove the marks of a unit that has a record."""
        for path in (self.folder / "tries").glob(f"{planned.key}.*"):
            path.unlink(missing_ok=True)


def planned(folder: Path, text: str | None) -> list[PlannedUnit]:
    """The units that a sweep has, or would have.

    Args:
        text: the plan; what stands in ``sweep.toml`` where None.

    Raises:
        UsageError: the plan is wrong.
    """
    if text is None and (folder / UNITS).is_file():
        return list(Sweep.open(folder).units)
    return [PlannedUnit.read(n, line) for n, line in enumerate(lines_of(*_text(folder, text)))]


def read_mark(path: Path) -> dict[str, Any]:
    """What a mark says: ``host``, ``process``, ``began``, and the ``reason`` if it gave nothing.

    Nothing, where it is gone meanwhile or was cut off: its unit may be another shard's.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _head(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8", errors="replace") as file:
        try:
            found = json.loads(file.readline())
        except ValueError:
            return {}
    return found if isinstance(found, dict) else {}


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _linked(beside: Path, path: Path) -> bool:
    """Give a file its name; whether it got it."""
    try:
        os.link(beside, path)
    except FileExistsError:
        # NFS says so too when its first answer was lost: the file has both names then.
        return beside.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A file system without links, such as exFAT: a rename is as whole, and we have the lock.
        beside.replace(path)
    return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """A folder that nobody else here adds a record to meanwhile; its descriptor."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the name is all there is
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def only_one(folder: Path, name: str) -> int:
    """A lock that this process has until it ends.

    Raises:
        UsageError: another process has it.
    """
    import fcntl

    path = folder / "locks" / name
    try:
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise DatbenchError(f"could not write {path}: {error.strerror}.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.read(handle, 200).decode(errors="replace")
        os.close(handle)
        raise UsageError(
            f"another `datbench sweep run` ({who}) works on {folder}; wait for it, or do a part "
            "with --shard I/N."
        ) from None
    except OSError:  # a file system without locks; two at once are harmless
        return handle
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return handle


def code() -> dict[str, str]:
    """The version of what measures: datbench, to the letter of its files, and torch."""
    from ..machine import summary

    digest = sha256()
    for path in sorted((PACKAGES / "datbench").rglob("*.py")):
        digest.update(path.read_bytes())
    return {
        "datbench": f"{__version__}+{digest.hexdigest()[:12]}",
        "torch": str(summary()["torch"]),
    }
