"""Results as plain values, and their JSON form.

A document is ``{"format": "datbench", "version": 1, "kind", "environment", "rows": [...]}``.
Version history: 1, the first (0.1.0): kinds ``flops``, ``explain``, ``eq10``, ``eq10-fit``,
``eq10-paper``, ``eq10-measured``, ``memory``, ``memory-largest``, ``memory-measured``,
``throughput``, ``profile``, ``compare``, ``compare-aa``, ``baseline``, ``gate``, ``report``,
``validate``, ``points``, ``table``, ``params``, ``models``, ``show``, ``env``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..setting import Setting


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
