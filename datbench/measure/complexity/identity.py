"""Formula + causes = counted, for every attention module of a model, as integers.

What is counted comes from the operators that ran: each is attributed to a term by what it is and
where in the module it ran. Nothing is found by subtracting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

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
from .expression import evaluate, names_of
from .formulas import Expected, Formula, formula_of

FVCORE = CONVENTIONS["fvcore"]

Shape: TypeAlias = tuple[int, int, int]
"""Images, height and width of a map."""

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
    shapes: dict[str, list[Shape]] = {}
    handles = [
        mixer.register_forward_pre_hook(_note(shapes.setdefault(path, [])), with_kwargs=True)
        for path, mixer in mixers.items()
    ]
    try:
        count = count_built(spec.name, model, setting)
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for path, mixer in mixers.items():
        calls = [c for c in count.calls if (c.module + ".").startswith(path + ".")]
        terms = _of_module(spec.name, str(resolution), path, mixer, shapes[path], calls)
        found += [terms] if terms is not None else []
    if not found:
        raise UsageError(
            f"{spec.name} has no attention module that a formula here describes; dat_t has "
            "deformable and window attention, datpp_t neighbourhood attention."
        )
    return found


def _note(shapes: list[Shape]) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        b, h, w, _ = next(x for x in (*inputs, *named.values()) if isinstance(x, Tensor)).shape
        shapes.append((b, h, w))

    return hook


def _of_module(
    model: str,
    resolution: str,
    path: str,
    mixer: Mixer,
    shapes: Sequence[Shape],
    calls: Sequence[OperatorCall],
) -> ModuleTerms | None:
    """A module that ran on maps of one size; None if it did not run, or has no formula.

    Raises:
        UsageError: it ran on maps of several sizes.
    """
    sizes = {(h, w) for _, h, w in shapes}
    if not sizes:
        return None
    if len(sizes) > 1:
        raise UsageError(f"{model}: {path} runs on maps of several sizes; no one formula is its.")
    formula = formula_of(mixer, *sizes.pop())
    runs = sum(b for b, _, _ in shapes)
    if formula is None:
        return None
    return module_terms(model, resolution, path, mixer, formula, calls, runs)


def module_terms(
    model: str,
    resolution: str,
    path: str,
    mixer: Mixer,
    formula: Formula,
    calls: Sequence[OperatorCall],
    runs: int = 1,
) -> ModuleTerms:
    """A module's formula with what its operators were counted to cost, term by term.

    Args:
        runs: maps that it saw: the formula is of one.
    """
    counted = attribute(path, mixer, formula, calls)
    terms = [
        _term(e.name, e.expression, runs * e.formula, runs * e.predicted, counted.pop(e.name, 0), e)
        for e in formula.expected
    ]
    # What is left belongs to no term of the module's: the identity then fails, and says where.
    terms += [Term(name, "", 0, 0, amount, "not predicted") for name, amount in counted.items()]
    published = evaluate(_written(formula.formula), names_of(formula.sizes))
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
        runs * published,
        runs,
    )


def _term(
    name: str, expression: str, formula: int, predicted: int, counted: int, expected: Expected
) -> Term:
    cause = expected.cause
    if counted != predicted:
        cause = f"{cause}; NOT EXPLAINED: {counted - predicted:+,}".removeprefix("; ")
    return Term(name, expression, formula, predicted, counted, cause)


def _written(formula: str) -> str:
    """The formula without its source, which stands last in brackets."""
    return formula[: formula.rindex(" (")]


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
    parts = path.removeprefix("backbone.").split(".")  # a detector's backbone
    numbered = parts[0] == "stages" and len(parts) > 1 and parts[1].isdecimal()
    return int(parts[1]) + 1 if numbered else 0
