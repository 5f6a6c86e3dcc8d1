"""Results as plain values, and their JSON form.

A document is ``{"format": "datbench", "version": 1, "kind", "environment", "rows": [...]}``.
Version history: 1, the first (0.1.0): kinds ``flops``, ``explain``, ``eq10``, ``eq10-fit``,
``eq10-paper``, ``eq10-measured``, ``memory``, ``memory-largest``, ``memory-measured``,
``throughput``, ``profile``, ``compare``, ``compare-aa``, ``baseline``, ``gate``, ``report``,
``validate``, ``points``, ``table``, ``params``, ``models``, ``show``, ``env``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .errors import UsageError
from .types import Setting

VERSION = 1


@dataclass(frozen=True)
class GroupRow:
    """A part of a count: an operator, a stage or a module.

    Args:
        amount: in the convention's unit.
        share: of the whole, 0 to 1.
        intensity: amount for each byte read or written; None where no byte moves.
    """

    name: str
    calls: int
    amount: int
    share: float
    bytes_read: int
    bytes_written: int
    intensity: float | None


@dataclass(frozen=True)
class ParameterRow:
    """Numbers of elements, not bytes.

    Args:
        params: trainable parameters, what papers print.
        frozen: parameters without gradient.
        buffers: elements of registered buffers, persistent or not.
    """

    params: int
    frozen: int
    buffers: int


@dataclass(frozen=True)
class PartRow:
    """A part of a model, its class, and its elements (see `ParameterRow`)."""

    part: str
    kind: str
    params: int
    frozen: int
    buffers: int


@dataclass(frozen=True)
class CountRow:
    """One model at one setting, under one convention.

    Args:
        unit: ``MAC`` or ``FLOP``, the unit of every `amount` here.
        amount: the convention's total, for the whole batch.
        macs: the total in MACs; for a convention in FLOPs, the multiply-adds alone.
        flops: the total of a convention in FLOPs; None where the convention counts MACs.
        forward, backward: the total by phase; backward is None if it was not counted.
        ignored: operators with a cost to which this convention gives no weight.
        free: operators that compute nothing.
        unknown: operators without a rule; their cost is missing from the total.
    """

    model: str
    setting: Setting
    convention: str
    unit: str
    amount: int
    macs: int
    flops: int | None
    forward: int
    backward: int | None
    params: int
    frozen: int
    buffers: int
    bytes_read: int
    bytes_written: int
    stages: tuple[GroupRow, ...]
    operators: tuple[GroupRow, ...]
    modules: tuple[GroupRow, ...]
    counted: dict[str, int]
    ignored: dict[str, int]
    free: dict[str, int]
    unknown: dict[str, int]
    stage_params: dict[str, int]


@dataclass(frozen=True)
class Resized:
    """A bias table that was resized, with its shape in the file and in the model."""

    name: str
    was: tuple[int, ...]
    now: tuple[int, ...]


@dataclass(frozen=True)
class CheckpointReport:
    """What loading did.

    Args:
        matched: our parameters that the file set as they stand.
        resized: bias tables that were resized bicubically.
        ignored: keys of the file that this model has no use for.
        initialised: our parameters that the file does not hold and that keep their values.
    """

    path: str
    matched: tuple[str, ...]
    resized: tuple[Resized, ...]
    ignored: tuple[str, ...]
    initialised: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.path}: {len(self.matched)} matched, {len(self.resized)} resized, "
            f"{len(self.ignored)} ignored, {len(self.initialised)} left as initialised"
        )


@dataclass(frozen=True)
class Term:
    """One operator's part of the difference between two conventions.

    Args:
        label: for people: the operator, and the kind of its work where it does several.
        amount: of that kind of work, unweighted.
        each: the difference for one unit of work; None where it depends on the module.
        difference: what the term adds, in the chain's unit.
    """

    label: str
    operator: str
    kind: str
    calls: int
    amount: int
    each: int | None
    difference: int


@dataclass(frozen=True)
class Chain:
    """Two conventions, in one unit: `start_amount` and the terms are `end_amount`, exactly."""

    start: str
    end: str
    unit: str
    start_amount: int
    end_amount: int
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class PeerTerm:
    """A part of the difference between another counter's figure and our multiply-adds.

    Args:
        label: for people: the operator and the kind of its work.
        kind: of work; ``parameters`` for a module's own; None where nothing explains it.
        modules: classes of the modules concerned; empty where it is every module with the operator.
        below: whether what runs inside these modules' children is meant too.
        amount: of that kind of work, unweighted; None where nothing explains it.
        each: what the other counter adds for one unit of work; -1 on a product: it is not counted.
        difference: in MACs.
        others: other columns that would explain the same as simply.
    """

    label: str
    kind: str | None
    modules: tuple[str, ...]
    below: bool
    amount: int | None
    each: int | float | None
    difference: int | float
    others: tuple[str, ...]


@dataclass(frozen=True)
class PeerRow:
    """What another counter said, in a process of its own.

    Args:
        unit: of `amount`: ``MAC`` or ``FLOP``.
        amount: as the counter gave it; None where it gave none, and `reason` says why.
        macs: the same in MACs: FLOPs halved.
        difference: `macs` less our multiply-adds.
        seconds: the counting call, once.
        peak_bytes: of the process, torch and all.
        extra_bytes: the part above what the process held before the counting call.
        terms: what the difference is; None where the counter gives totals alone.
    """

    name: str
    version: str | None
    unit: str
    amount: int | float | None
    macs: int | float | None
    difference: int | float | None
    seconds: float | None
    peak_bytes: int | None
    extra_bytes: int | None
    terms: tuple[PeerTerm, ...] | None
    reason: str | None


@dataclass(frozen=True)
class ExplainRow:
    """One count, and how the conventions and the other counters differ on it.

    Args:
        macs: multiply-adds alone.
        unknown: operators without a rule, in no figure here.
        peers: None where they were not run.
    """

    model: str
    setting: Setting
    macs: int
    chains: tuple[Chain, ...]
    unknown: dict[str, int]
    peers: tuple[PeerRow, ...] | None


def document(kind: str, rows: Sequence[Any], environment: dict[str, Any]) -> dict[str, Any]:
    """The JSON document of some rows (dataclasses or dicts)."""
    return {
        "format": "datbench",
        "version": VERSION,
        "kind": kind,
        "environment": environment,
        "rows": [row if isinstance(row, dict) else _plain(row) for row in rows],
    }


def _plain(row: Any) -> dict[str, Any]:
    values = asdict(row)
    setting = values.get("setting")
    if setting is not None:
        resolution = setting.pop("resolution")
        values["setting"] = {**resolution, **setting}
    return values


def dumps(content: dict[str, Any]) -> str:
    """Text of a document, ending in a newline."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object each of whose keys stands there once: of two, JSON's readers take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise UsageError(f"the key {twice!r:.60} stands twice in one object.")
    return found


def loads(text: str, name: str = "the document") -> dict[str, Any]:
    """Read a document back.

    Raises:
        UsageError: it is not JSON, not ours, or of a newer version.
    """
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    except (ValueError, RecursionError) as error:  # numbers and nesting beyond Python's limits too
        raise UsageError(f"{name} is no complete JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != "datbench":
        raise UsageError(f"{name} is no datbench result.")
    version = content.get("version")
    if type(version) is not int:  # true is an int for Python
        said = "null" if version is None else repr(version)
        raise UsageError(
            f"{name}: version must be a whole number, not {said:.40}; this is no datbench result."
        )
    if version > VERSION:
        raise UsageError(
            f"{name} has version {version}; this datbench reads up to {VERSION}. Upgrade datbench."
        )
    return content
