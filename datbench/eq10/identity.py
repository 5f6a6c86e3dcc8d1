"""Formula + causes = counted, for every attention module of a model, as integers.

What is counted comes from the operators that ran: each is attributed to a term by what it is and
where in the module it ran. Nothing is found by subtracting.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..counting.conventions import CONVENTIONS
from ..counting.count import build_for_count, count_built
from ..counting.recorder import OperatorCall
from ..errors import CheckFailed, UsageError
from ..models.mixers.attention import Mixer
from ..models.mixers.deformable import DeformableAttention
from ..models.resolve import Spec
from ..run import anywhere
from ..setting import MULTIPLY_ADDS, Kind, Resolution, Setting
from . import formulas
from .formulas import Formula, evaluate, formula_of, names_of
from .records import FormulaTerm, ModuleTerms

FVCORE = CONVENTIONS["fvcore"]

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


def identities(spec: Spec, resolution: Resolution) -> list[ModuleTerms]:
    """Every attention module of a model with its formula and its count, in the model's order.

    Raises:
        UsageError: the model has no module with a known formula.
        MeasurementError: it does not run at this resolution.
    """
    return anywhere(spec, Setting(resolution), lambda setting: _identities(spec, setting))


def _identities(spec: Spec, setting: Setting) -> list[ModuleTerms]:
    model = build_for_count(spec, setting)
    mixers = {path: m for path, m in model.named_modules() if isinstance(m, Mixer)}
    # Each module's maps by height and width, and how many images it saw there.
    maps: dict[nn.Module, Counter[tuple[int, int]]] = defaultdict(Counter)

    def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        b, h, w, _ = next(x for x in (*inputs, *named.values()) if isinstance(x, Tensor)).shape
        maps[module][h, w] += b

    with ExitStack() as stack:
        for mixer in mixers.values():
            stack.enter_context(mixer.register_forward_pre_hook(note, with_kwargs=True))
        counted = count_built(spec.name, model, setting)
    found = []
    for path, mixer in mixers.items():
        if len(maps[mixer]) > 1:
            raise UsageError(
                f"{spec.name}: {path} runs on maps of several sizes; a formula is of one size."
            )
        for (height, width), images in maps[mixer].items():
            if (formula := formula_of(mixer, height, width)) is not None:
                calls = [c for c in counted.calls if (c.module + ".").startswith(path + ".")]
                place = (spec.name, str(setting.resolution), path)
                found.append(module_terms(place, mixer, formula, calls, images))
    if not found:
        raise UsageError(
            f"{spec.name} has no attention module that a formula here describes; dat_t has "
            "deformable and window attention, datpp_t neighbourhood attention."
        )
    return found


def identities_of(
    models: Iterable[tuple[Spec, Resolution]], stage: int | None = None
) -> list[ModuleTerms]:
    """The same for several models; of one stage, counted from 1, or of all.

    Raises:
        UsageError: no attention module is in this stage.
    """
    found = [terms for model in models for terms in identities(*model)]
    chosen = [terms for terms in found if stage in (None, terms.stage)]
    if not chosen:
        raise UsageError(f"there is no attention module in stage {stage}.")
    return chosen


def check(modules: Sequence[ModuleTerms]) -> None:
    """Raise CheckFailed if an identity does not hold."""
    failing = [f"{m.model} {m.module} at {m.resolution}" for m in modules if not m.holds]
    if failing:
        raise CheckFailed(
            f"{len(failing)} of {len(modules)} identities fail: {', '.join(failing)}."
        )


def module_terms(
    place: tuple[str, str, str],
    mixer: Mixer,
    formula: Formula,
    calls: Sequence[OperatorCall],
    runs: int = 1,
) -> ModuleTerms:
    """A module's formula with what its operators were counted to cost, term by term.

    Args:
        place: the model, its resolution and the module's path.
        runs: maps that the module saw; the formula is of one.
    """
    model, resolution, path = place
    counted = attribute(path, mixer, formula, calls)
    terms = []
    for e in formula.expected:
        cause, predicted, amount = e.cause, runs * e.predicted, counted.pop(e.name, 0)
        if amount != predicted:
            cause = f"{cause}; NOT EXPLAINED: {amount - predicted:+,}".removeprefix("; ")
        terms.append(FormulaTerm(e.name, e.expression, runs * e.formula, predicted, amount, cause))
    # What is left belongs to no term of the module's: the identity then fails, and says where.
    terms += [
        FormulaTerm(name, "", 0, 0, amount, "not predicted") for name, amount in counted.items()
    ]
    written = formula.formula[: formula.formula.rindex(" (")]  # without its source
    whole = sum(weight_of(call) for call in calls)
    published = runs * evaluate(written, names_of(formula.sizes))
    where = (model, resolution, path, _stage(path))
    kind = (formula.kind, formula.formula, formula.sizes)
    return ModuleTerms(*where, *kind, tuple(terms), whole, published, runs)


def weight_of(call: OperatorCall) -> int:
    """Multiply-adds of a call, as fvcore weighs them."""
    return FVCORE.weigh(call.cost, call.module_type)


def attribute(
    path: str, mixer: Mixer, formula: Formula, calls: Sequence[OperatorCall]
) -> dict[str, int]:
    """What was counted, by term."""
    known = {expected.name for expected in formula.expected}
    counted = Counter[str]()
    # By kind, so that attention that is one operator with its bias is apart again.
    for call in (c._replace(cost={kind: n}) for c in calls for kind, n in c.cost.items()):
        if amount := weight_of(call):
            name = term_of(call, call.module[len(path) :].lstrip("."), mixer)
            if name in (formulas.PROJECTIONS, formulas.KEYS) and name not in known:
                name = formulas.ALL_PROJECTIONS  # where one term holds them all
            counted[name] += amount
    return counted


def term_of(call: OperatorCall, part: str, mixer: Mixer) -> str:
    """The term that a call belongs to; `part` is where in the module it ran."""
    if part in _BY_PART:
        return _BY_PART[part]
    kinds = {kind for kind, amount in call.cost.items() if amount and FVCORE.weights.get(kind)}
    if part == "" and kinds <= MULTIPLY_ADDS:
        return formulas.PRODUCTS
    if part == "" and kinds == {Kind.SAMPLE}:
        return formulas.SAMPLING if _samples_features(call, mixer) else formulas.BIAS
    if part == "" and kinds == {Kind.UPSAMPLE_BILINEAR}:
        return formulas.BIAS
    return f"unattributed: {call.operator} in {part or 'the module'}"


def _samples_features(call: OperatorCall, mixer: Mixer) -> bool:
    """Whether a sampler reads the map, C/G channels of it, and not the table, M/G of it."""
    if not isinstance(mixer, DeformableAttention):
        return True
    if not call.shapes:  # a declared operator: attention with its bias
        return False
    channels = call.shapes[0][1]
    if mixer.head_dim > 1:
        return channels == mixer.dim // mixer.config.groups
    table = mixer.bias_table
    return table is None or call.shapes[0][2:] != table.shape[1:]


def _stage(path: str) -> int:
    """From 1, as the papers count; of a module on its own, 0."""
    parts = path.removeprefix("backbone.").split(".")  # a detector's backbone
    numbered = parts[0] == "stages" and len(parts) > 1 and parts[1].isdecimal()
    return int(parts[1]) + 1 if numbered else 0
