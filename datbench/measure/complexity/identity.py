"""Formula + causes = counted, for every attention module of a model, as integers.

What is counted comes from the operators that ran: each is attributed to a term by what it is and
where in the module it ran. Nothing is found by subtracting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...errors import UsageError
from ...models.mixers.attention import Mixer
from ...models.mixers.deformable import DeformableAttention
from ...models.resolve import Spec
from ...terms import ModuleTerms, Term
from ...types import MULTIPLY_ADDS, Attention, Kind, Resolution, Setting
from ..conventions import CONVENTIONS
from ..count import build_for_count, count_built
from ..recorder import OperatorCall
from . import formulas
from .formulas import Formula, formula_of

FVCORE = CONVENTIONS["fvcore"]

UNATTRIBUTED = "unattributed"

# Where in a module an operator ran -> its term. Products outside these are attention's own.
_BY_PART = {
    "query": formulas.PROJECTIONS,
    "key": formulas.KEYS,
    "value": formulas.KEYS,
    "key_value": formulas.KEYS,
    "qkv": formulas.ALL_PROJECTIONS,
    "out": formulas.PROJECTIONS,
    "offset_network.dwconv": formulas.OFFSETS,
    "offset_network.out": formulas.OFFSETS,
    "offset_network.norm": formulas.OFFSET_NORM,
    "position_conv": formulas.POSITION_CONV,
    "reduce.0": formulas.REDUCTION,
    "reduce.1": formulas.REDUCTION_NORM,
    "offsets": formulas.PREDICTIONS,
    "weights": formulas.PREDICTIONS,
}


def identities(
    spec: Spec, resolution: Resolution, attention: Attention = "eager"
) -> list[ModuleTerms]:
    """Every attention module of a model with its formula and its count, in the model's order.

    Raises:
        UsageError: the model has no module of which a formula is known.
        MeasurementError: it does not run at this resolution.
    """
    setting = Setting(resolution, attention=attention)
    model = build_for_count(spec, setting)
    mixers = {path: m for path, m in model.named_modules() if isinstance(m, Mixer)}
    if not mixers:
        raise UsageError(
            f"{spec.name} has no attention module that a formula here describes; dat_t has "
            "deformable and window attention, datpp_t neighbourhood attention."
        )
    shapes: dict[str, tuple[int, int]] = {}
    handles = [
        mixer.register_forward_pre_hook(_note(shapes, path)) for path, mixer in mixers.items()
    ]
    try:
        count = count_built(spec.name, model, setting)
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for path, mixer in mixers.items():
        formula = formula_of(mixer, *shapes[path])
        if formula is not None:
            calls = [c for c in count.calls if (c.module + ".").startswith(path + ".")]
            found.append(module_terms(spec.name, str(resolution), path, mixer, formula, calls))
    return found


def _note(shapes: dict[str, tuple[int, int]], path: str) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes[path] = (inputs[0].shape[1], inputs[0].shape[2])  # of (B, H, W, C)

    return hook


def module_terms(
    model: str,
    resolution: str,
    path: str,
    mixer: Mixer,
    formula: Formula,
    calls: Sequence[OperatorCall],
) -> ModuleTerms:
    """A module's formula with what its operators were counted to cost, term by term."""
    counted = attribute(path, mixer, formula, calls)
    terms = [
        Term(e.name, e.expression, e.formula, e.predicted, counted.pop(e.name, 0), e.cause)
        for e in formula.expected
    ]
    # What is left belongs to no term of the module's: the identity then fails, and says where.
    terms += [Term(name, "", 0, 0, amount, "not predicted") for name, amount in counted.items()]
    return ModuleTerms(
        model,
        resolution,
        path,
        _stage(path),
        formula.kind,
        formula.formula,
        formula.sizes,
        tuple(terms),
        sum(FVCORE.weigh(call.cost, call.module_type) for call in calls),
    )


def attribute(
    path: str, mixer: Mixer, formula: Formula, calls: Sequence[OperatorCall]
) -> dict[str, int]:
    """What was counted, by term."""
    known = {expected.name for expected in formula.expected}
    counted: dict[str, int] = {}
    for call in calls:
        amount = FVCORE.weigh(call.cost, call.module_type)
        if amount:
            name = term_of(call, call.module[len(path) :].lstrip("."), mixer)
            if name == formulas.PROJECTIONS and name not in known:
                name = formulas.ALL_PROJECTIONS  # where one term holds them all
            if name == formulas.KEYS and name not in known:
                name = formulas.ALL_PROJECTIONS
            counted[name] = counted.get(name, 0) + amount
    return counted


def term_of(call: OperatorCall, part: str, mixer: Mixer) -> str:
    """The term that a call belongs to; `part` is where in the module it ran."""
    if part in _BY_PART:
        return _BY_PART[part]
    kinds = _kinds(call.cost)
    if part == "" and kinds <= set(MULTIPLY_ADDS):
        return formulas.PRODUCTS
    if part == "" and kinds == {Kind.SAMPLE}:
        return formulas.SAMPLING if _samples_features(call, mixer) else formulas.BIAS
    if part == "" and kinds == {Kind.UPSAMPLE_BILINEAR}:
        return formulas.BIAS
    return f"{UNATTRIBUTED}: {call.operator} in {part or 'the module'}"


def _kinds(cost: Mapping[Kind, int]) -> set[Kind]:
    """The kinds of work to which fvcore gives a weight."""
    return {kind for kind, amount in cost.items() if amount and FVCORE.weights.get(kind)}


def _samples_features(call: OperatorCall, mixer: Mixer) -> bool:
    """Whether a sampler reads the map, C/G channels of it, and not the table, M/G of it."""
    if not isinstance(mixer, DeformableAttention):
        return True
    channels = call.shapes[0][1]
    groups = mixer.config.groups
    if mixer.head_dim > 1:
        return channels == mixer.dim // groups
    table = mixer.bias_table
    return table is None or call.shapes[0][2:] != table.shape[1:]


def _stage(path: str) -> int:
    """From 1, as the papers count; of a module on its own, 0."""
    parts = path.split(".")
    return int(parts[1]) + 1 if parts[0] == "stages" and len(parts) > 1 else 0
