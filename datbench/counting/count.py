"""Counting one run of a model, forward and backward, and leaving the model as it was."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from operator import add, attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.parameter import is_lazy

from .. import units
from ..errors import UsageError, listening, warn
from ..models.comparison.spec import ComparisonSpec
from ..models.declared import observing
from ..models.detectors.dense import FourMaps
from ..models.detectors.spec import DetectorSpec
from ..models.external import FactorySpec
from ..models.module import ModuleSpec
from ..models.pyramid import PyramidBackbone
from ..models.resolve import Spec, is_ours, resolve, takes_any_size
from ..process import Question, asking
from ..run import (
    anywhere,
    as_built,
    as_written,
    build_model,
    check_visible,
    constant_weights,
    losses_of,
    make_inputs,
    ones_like,
    reported,
    run_backward,
    seeded,
    sized,
    tensors_in,
    unchanged,
    values_of,
)
from ..setting import MULTIPLY_ADDS, Kind, Setting
from ..units import Brief
from .conventions import Convention
from .conventions import convention as find_convention
from .operators import ShapesOnly
from .outside import OutsideWork, functions_run_by
from .recorder import GraphWhereAsked, ModuleTracker, OperatorCall, Recorder, below_autograd
from .records import CountRow, GroupRow, ParameterRow, PartRow
from .repeats import EqualPart, counted_once, equal_parts

if TYPE_CHECKING:
    from ..records import ParamsEntry

# From a module's path to the stage of the network that it belongs to.


def stage_of(model: nn.Module, path: str) -> str:
    """The stage of a module: ``stages.2``, ``layers.0``, ``layer3``, ``stem``, ``head``.

    In a detector's backbone, with the norms that it lacks: ``backbone.stages.2``.

    The first component of the path, and the second if the first is a list of numbered parts
    whose own name carries no number (`stages.2`, but `layer3` stays whole).
    """
    if not path:
        return "(model)"
    parts = path.split(".")
    container = getattr(model, "_orig_mod", model)
    if isinstance(container, FourMaps) and parts[0] == "backbone" and len(parts) > 1:
        return f"backbone.{stage_of(container.backbone, '.'.join(parts[1:]))}"
    if isinstance(container, FourMaps) and parts[0] == "norms":
        return ".".join(["backbone", *parts[:2]])
    child = getattr(container, parts[0], None)
    numbered = isinstance(child, (nn.ModuleList, nn.Sequential))
    many = len(parts) > 1 and parts[1].isdigit() and not parts[0][-1].isdigit()
    plural = parts[0].endswith("s")
    return ".".join(parts[:2]) if numbered and many and plural else parts[0]


# One count, seen by convention, operator, module and stage.


@dataclass(frozen=True)
class Group:
    """A sum over operator calls that share a key."""

    key: str  # the operator, stage or module
    calls: int
    amount: int  # in the convention's unit
    bytes_read: int
    bytes_written: int

    @property
    def intensity(self) -> float | None:
        """Arithmetic intensity: amount for each byte moved; None where nothing moves."""
        moved = self.bytes_read + self.bytes_written
        return self.amount / moved if moved else None


_Sums: TypeAlias = Iterable[list[Any]]
"""Sums over calls: the first of them, their number, amount, bytes read and bytes written."""


@dataclass(frozen=True, repr=False)
class Count(Brief):
    """Every operator call of one run of a model, unweighted.

    A convention is given by its name, such as ``fvcore``, or as one of your own.
    """

    calls: tuple[OperatorCall, ...]  # in the order in which they ran
    stages: Mapping[str, str]  # stage of a module path
    # By convention, sums by module and by operator, of which every breakdown is made.
    _sums: list[tuple[Convention, _Sums, _Sums]] = field(default_factory=list, compare=False)
    _equal: list[tuple[OperatorCall, int]] = field(default_factory=list, compare=False)

    def total(self, convention: str | Convention = "fvcore", phase: str | None = None) -> int:
        """The whole cost in the convention's unit, of one phase or both."""
        weights = find_convention(convention)
        if not self._equal:  # calls of equal parts have one cost, the very same mapping
            keys = [(id(call.cost), call.module_type, call.phase) for call in self.calls]
            calls = dict(zip(keys, self.calls, strict=True))
            self._equal.extend((calls[key], times) for key, times in Counter(keys).items())
        return sum(
            times * weights.weigh(call.cost, call.module_type)
            for call, times in self._equal
            if call.cost and phase in (None, call.phase)
        )

    def _summed(self, convention: str | Convention) -> tuple[_Sums, _Sums]:
        weights = find_convention(convention)
        for known, *found in self._sums:
            if known is weights:
                return found[0], found[1]
        modules: dict[Any, list[Any]] = {}
        operators: dict[Any, list[Any]] = {}
        for call in self.calls:
            amount = weights.weigh(call.cost, call.module_type) if call.cost else 0
            what = call.operator, call.status, amount == 0
            for sums, key in ((modules, call.module), (operators, what)):
                row = sums.get(key)
                if row is None:
                    row = sums[key] = [call, 0, 0, 0, 0]
                row[1] += 1
                row[2] += amount
                row[3] += call.bytes_read
                row[4] += call.bytes_written
        self._sums.append((weights, modules.values(), operators.values()))
        return modules.values(), operators.values()

    def multiply_adds(self) -> int:
        """Real multiply-adds alone, whatever the convention; a complex one is four."""
        return sum(
            amount
            for call in self.calls
            for kind, amount in call.cost.items()
            if kind in MULTIPLY_ADDS or kind is Kind.COMPLEX_PRODUCT
        )

    def by_operator(self, convention: str | Convention = "fvcore") -> list[Group]:
        """Sums by operator, largest first."""
        _, operators = self._summed(convention)
        return sorted(_grouped(operators, _operator), key=lambda group: -group.amount)

    def by_stage(self, convention: str | Convention = "fvcore") -> list[Group]:
        """Sums by stage, in the order in which they ran."""
        modules, _ = self._summed(convention)
        return _grouped(modules, lambda call: self.stages.get(call.module, "(model)"))

    def by_module(
        self, convention: str | Convention = "fvcore", depth: int | None = None
    ) -> list[Group]:
        """Sums by module path, cut to `depth` components where given."""

        def key(call: OperatorCall) -> str:
            parts = call.module.split(".") if depth and call.module else [call.module]
            return ".".join(parts[:depth]) or "(model)"

        modules, _ = self._summed(convention)
        return _grouped(modules, key)

    def ignored(self, convention: str | Convention) -> list[Group]:
        """Counted operators to which the convention gives no weight, most calls first."""
        _, operators = self._summed(convention)
        zero = [row for row in operators if row[0].status == "counted" and row[2] == 0]
        return sorted(_grouped(zero, _operator), key=lambda group: -group.calls)

    def with_status(self, status: str, convention: str | Convention) -> list[Group]:
        """Operators that are ``counted``, ``free`` or ``unknown``, with their calls."""
        _, operators = self._summed(convention)
        return _grouped([row for row in operators if row[0].status == status], _operator)


_operator = attrgetter("operator")


def _grouped(sums: _Sums, key: Callable[[OperatorCall], str]) -> list[Group]:
    """Sums by what `key` says of their calls."""
    found: dict[str, list[int]] = {}
    for call, *amounts in sums:
        row = found.setdefault(key(call), [0, 0, 0, 0])
        row[:] = map(add, row, amounts)
    return [Group(name, *row) for name, row in found.items()]


def count(
    model: nn.Module,
    *inputs: Any,
    backward: bool = False,
    kwargs: Mapping[str, Any] | None = None,
) -> Count:
    """Count one run of `model` on `inputs`, on whatever device they are.

    The model is run in the mode that it is in, and is unchanged afterwards: its hooks, gradients,
    buffers and random state are what they were.

    Args:
        inputs: what the model's forward takes; tensors on meta cost nothing.
        backward: count the backward of the sum of all floating outputs too.
        kwargs: what its forward takes by name.

    Raises:
        MeasurementError: nothing that the model returns has a gradient, though one was asked for;
            or it computes with nested tensors.
    """
    check_visible(model)
    given = dict(kwargs or {})
    model = sized(model, inputs, given)
    with unchanged(model, inputs, given):
        return _counted(Built(model), inputs, given, backward)


def _counted(
    built: Built,
    inputs: tuple[Any, ...],
    given: Mapping[str, Any],
    backward: bool,
    once: bool = False,
) -> Count:
    """The same of a model that may be changed; `once`: one of equal parts is run for all."""
    model = built.module
    with ExitStack() as stack:
        if all(tensor.is_meta for tensor in tensors_in((inputs, given))):
            stack.enter_context(_uncollected())
        tracker = stack.enter_context(ModuleTracker(model))
        stack.enter_context(as_written())
        recorder = Recorder(tracker, _outside(model, (inputs, given)))
        stack.enter_context(observing(recorder))
        stack.enter_context(functions_run_by(recorder.function))
        try:
            with (
                torch.no_grad(),
                below_autograd(),
                counted_once(built.equal_parts, recorder) if once else nullcontext(),
                recorder,
            ):
                recorder.returned(model(*inputs, **given))
        except RuntimeError as error:
            if "require grad" not in str(error):
                raise
            # It takes gradients in its forward, which needs a graph where it asks for one.
            recorder.calls.clear()
            recorder.below = False
            with torch.no_grad(), GraphWhereAsked(), recorder:
                recorder.returned(model(*inputs, **given))
        if backward:
            leaves = (*model.parameters(), *tensors_in((inputs, given)))
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            _count_backward(lambda: model(*inputs, **given), wanted, recorder)
    paths = {call.module for call in recorder.calls}
    return Count(tuple(recorder.calls), {path: built.stage(path) for path in paths})


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the cyclic garbage collector, which looks at all that is imported as calls pile up.
    Nothing of size waits for it on meta.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _outside(model: nn.Module, inputs: object) -> OutsideWork:
    """What finds work outside the dispatcher, knowing every tensor that is there already."""
    if all(tensor.is_meta for tensor in tensors_in(inputs)):
        return OutsideWork()
    kept = [value for module in model.modules() for value in vars(module).values()]
    return OutsideWork(tensors_in((kept, inputs)), values=True)


def _count_backward(forward: Callable[[], Any], wanted: list[Tensor], recorder: Recorder) -> None:
    """Run the forward once more to make a graph, then record its backward."""
    before = len(recorder.calls)
    try:
        losses = _losses(forward, recorder)
        # autograd.grad, not backward(): it touches no .grad and fires no hook of a parameter.
        with recorder:
            torch.autograd.grad(losses, wanted, ones_like(losses), allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        # Re-entrant checkpointing allows backward() alone.
        del recorder.calls[before:]
        losses = _losses(forward, recorder)
        with recorder:
            run_backward(losses)


def _losses(forward: Callable[[], Any], recorder: Recorder) -> list[Tensor]:
    """Every output with a gradient, from a forward whose graph the recorder knows."""
    recorder.phase = "forward"
    with torch.enable_grad(), recorder.linking(), recorder:
        outputs = forward()
    recorder.phase = "backward"
    return losses_of(outputs, "count its forward alone")


def build_for_count(model: str | Spec, setting: Setting, *, training: bool = False) -> nn.Module:
    """The model, in evaluation mode by default; on meta without the time that initialising takes.

    Raises:
        UnknownNameError: no such model.
        MeasurementError: it cannot be built for this setting.
    """
    spec = resolve(model) if isinstance(model, str) else model
    return _built(spec, setting, training).module


@dataclass(eq=False)
class Built:
    """A model that was built for counting, and what holds of it as long as it is not changed."""

    module: nn.Module
    _stages: dict[str, str] = field(default_factory=dict)

    def stage(self, path: str) -> str:
        """See `stage_of`."""
        if path not in self._stages:
            self._stages[path] = stage_of(self.module, path)
        return self._stages[path]

    @cached_property
    def equal_parts(self) -> list[list[EqualPart]]:
        """See `repeats`."""
        return equal_parts(self.module)

    @cached_property
    def sizes(self) -> dict[str, ParameterRow]:
        """Elements by stage."""
        return parameters_by(self.module, "stage")


def _built(spec: Spec, setting: Setting, training: bool = False) -> Built:
    if setting.device != "meta" or not takes_any_size(spec):
        return Built(build_model(spec, setting, on_meta=ShapesOnly, training=training))
    if isinstance(spec, DetectorSpec):
        spec.check(setting.resolution)
    own = replace(setting, resolution=spec.resolution, batch=1, backward=False, inputs=())
    return _built_once(spec, own, training)


@lru_cache(maxsize=8)
def _built_once(spec: Spec, setting: Setting, training: bool) -> Built:
    """A model on meta that takes any size: one for all, so leave it as it is."""
    return Built(build_model(spec, setting, on_meta=ShapesOnly, training=training))


def count_model(model: str | Spec, setting: Setting) -> Count:
    """Build a model in evaluation mode and count it.

    Args:
        model: any name that `datbench.models.resolve` knows, such as ``dat_t``,
            ``timm:swin_tiny_patch4_window7_224`` or ``package.module:factory``, or its spec.

    Raises:
        UnknownNameError: no such model.
        MeasurementError: the device is not there, or the model does not run with this setting.
    """
    return count_anywhere(resolve(model) if isinstance(model, str) else model, setting)[1]


def count_anywhere(spec: Spec, setting: Setting) -> tuple[Built, Count]:
    """Build and count a model; one of others that needs real values on meta, on the CPU instead.

    Real values are the image that is timed. Whether the count depends on them is told by another.

    Raises:
        DatbenchError: it does not run.
    """

    def work(setting: Setting) -> tuple[Built, Count]:
        built = _built(spec, setting)
        if isinstance(spec, FROM_USERS):  # it may have been changed since it was built
            found = count_built(spec.name, built.module, setting)
        else:
            found = _count_known(spec.name, built, setting)
        if setting.device != "meta" and not is_ours(spec):
            _compare_inputs(spec.name, found, count_built(spec.name, built.module, setting, 1))
        return built, found

    return anywhere(spec, setting, work)


FROM_USERS = (FactorySpec, ModuleSpec)
"""Specs of models of the user's."""


def warn_of_sampling(spec: Spec, setting: Setting, calls: Sequence[OperatorCall]) -> None:
    """Say what half precision does to a model that samples, where it is run on a CPU."""
    half = setting.dtype in ("bfloat16", "float16") and setting.device == "cpu"
    samplers = ("grid_sampler", "datbench::deformable_detr")
    if not half or not any(name in call.operator for call in calls for name in samplers):
        return
    if is_ours(spec) or isinstance(spec, ComparisonSpec):
        warn(
            f"{spec.name} samples in float32 on a CPU, where torch's grid_sample is wrong in "
            f"{setting.dtype}: time and memory that are measured there include the casts."
        )
    else:
        warn(
            f"{spec.name} calls grid_sample in {setting.dtype} on a CPU, where torch's kernel is "
            "coarse, and wrong for maps of more than 32,767 elements: cast to float32 around it."
        )


def _compare_inputs(name: str, found: Count, other: Count) -> None:
    if [call.cost for call in found.calls] != [call.cost for call in other.calls]:
        macs, others = (units.integer(count.multiply_adds()) for count in (found, other))
        warn(
            f"{name}: the count depends on the input: {macs} multiply-adds on the image that is "
            f"timed, which is meant, {others} on another one."
        )


def count_built(name: str, module: nn.Module, setting: Setting, number: int = 0) -> Count:
    """Count a model that is built already, on a numbered image of the setting's size."""
    with reported(name, setting, _is_foreign(module)), seeded():
        given = make_inputs(setting, module, number)
        return count(module, *given.args, backward=setting.backward, kwargs=given.named)


def _count_known(name: str, built: Built, setting: Setting) -> Count:
    """The same of a model as datbench or timm built it: one of equal parts is run for all."""
    foreign = _is_foreign(built.module)
    with reported(name, setting, foreign), seeded():
        given = make_inputs(setting, built.module)
        # The forwards of datbench's models change nothing.
        with unchanged(built.module, given.args, given.named) if foreign else nullcontext():
            return _counted(built, given.args, given.named, setting.backward, once=True)


def _is_foreign(module: nn.Module) -> bool:
    inner = module.backbone if isinstance(module, FourMaps) else module
    return not isinstance(inner, PyramidBackbone)


# Numbers of parameters and buffers.

Place = Literal["total", "part", "stage"]


def parameters(model: nn.Module) -> ParameterRow:
    """Trainable and frozen parameters and buffers of `model`, shared tensors once.

    Weights that quantization packed, and those that TorchScript froze into constants, are frozen.

    Raises:
        UsageError: a lazy module has not learned its size yet.
    """
    return parameters_by(model, "total")["total"]


def parameters_by(model: nn.Module, place: Place) -> dict[str, ParameterRow]:
    """The same for each stage, or for each part (``backbone``, ``neck``), in the model's order."""
    sums: dict[str, Counter[str]] = {"total": Counter()} if place == "total" else {}
    tensors = [
        *(("params" if p.requires_grad else "frozen", n, p) for n, p in model.named_parameters()),
        *(("frozen", name, weight) for name, weight in constant_weights(model)),
        *(("buffers", name, buffer) for name, buffer in model.named_buffers()),
    ]
    for _, name, tensor in tensors:
        if is_lazy(tensor):
            raise UsageError(f"{name} has no size yet: run the model once on an input first.")
    for kind, name, tensor in tensors:
        where = "total" if place == "total" else stage_of(model, name.rpartition(".")[0])
        where = where.partition(".")[0] if place == "part" else where
        stored = tensor if tensor.layout == torch.strided else values_of(tensor.detach())
        sums.setdefault(where, Counter())[kind] += stored.numel()
    if not any(kind != "buffers" for kind, *_ in tensors):
        warn_of_none(model)
    return {
        where: ParameterRow(found["params"], found["frozen"], found["buffers"])
        for where, found in sums.items()
    }


def warn_of_none(model: nn.Module) -> None:
    """Say that no figure has weights of this model, whether or not it has some."""
    warn(
        f"{type(model).__name__} registers no parameters; weights that it keeps in a list or in "
        "packed form would be in no figure."
    )


def parts(model: nn.Module) -> list[PartRow]:
    """The stages of a model with their classes, in the model's order."""
    classes = {path: type(module).__name__ for path, module in model.named_modules()}
    return [
        PartRow(stage, classes.get(stage, ""), row.params, row.frozen, row.buffers)
        for stage, row in parameters_by(model, "stage").items()
    ]


def module_tree(spec: Spec, setting: Setting, depth: int) -> list[dict[str, Any]]:
    """Every module down to `depth` names of a path, each with all that is below it.

    Returns:
        Rows with ``path``, ``kind`` (its class), ``output`` (the shape of what its first call
        returned, such as 1x96x56x56, and how many more tensors there are), ``params`` (elements,
        trainable or frozen) and ``macs`` (as fvcore counts, of all its calls). The model itself,
        whose path is empty, is the first.

    Raises:
        DatbenchError: it does not run.
    """
    shapes: dict[int, str | None] = {}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        found = ["x".join(map(str, tensor.shape)) for tensor in tensors_in(output)]
        more = f" (+{len(found) - 1})" if len(found) > 1 else ""
        shapes.setdefault(id(module), f"{found[0] or 'scalar'}{more}" if found else None)

    def work(setting: Setting) -> tuple[nn.Module, Count]:
        module = build_for_count(spec, setting)
        with register_module_forward_hook(note):
            return module, count_built(spec.name, module, setting)

    model, found = anywhere(spec, setting, work)
    macs: Counter[str] = Counter()
    for each in found.by_module():
        names = each.key.split(".") if each.key != "(model)" else []
        macs.update({".".join(names[:n]): each.amount for n in range(len(names) + 1)})
    return [
        {
            "path": path,
            "kind": type(module).__name__,
            "output": shapes.get(id(module)),
            "params": sum(values_of(p.detach()).numel() for p in module.parameters())
            + sum(values_of(weight).numel() for _, weight in constant_weights(module)),
            "macs": macs[path],
        }
        for path, module in model.named_modules()
        if path.count(".") < depth
    ]


def mask_elements(model: nn.Module) -> int:
    """Elements of attention masks that a model keeps as buffers, which some prints count."""
    return sum(
        buffer.numel()
        for name, buffer in model.named_buffers()
        if name.rpartition(".")[2].endswith("mask")
    )


# A count as a row of plain values, for reports and JSON.


def count_row(spec: Spec, setting: Setting, convention: Convention) -> CountRow:
    """Build, count and summarise one model.

    Raises:
        MeasurementError: it does not run with this setting.
    """
    built, found = count_anywhere(spec, setting)
    setting = as_built(built.module, setting)
    warn_of_sampling(spec, setting, found.calls)
    return _summarised(spec.name, built, found, setting, convention)


@dataclass(frozen=True)
class CountShare:
    """The models that one process counts."""

    jobs: tuple[tuple[str, Setting], ...]
    convention: str


@dataclass(frozen=True)
class Counted:
    """What it counted, in the same order, and what it warned of."""

    rows: tuple[CountRow, ...]
    warnings: tuple[str, ...]


def count_share(share: CountShare) -> Counted:
    """Count the models of a share."""
    said: list[str] = []
    weights = find_convention(share.convention)
    with listening(said.append):
        rows = tuple(count_row(resolve(name), setting, weights) for name, setting in share.jobs)
    return Counted(rows, tuple(said))


def count_in_processes(
    jobs: Sequence[tuple[Spec, Setting]], convention: Convention, processes: int
) -> list[CountRow]:
    """`count_row` of every job, in their order; the models are shared among fresh processes.

    Raises:
        MeasurementError: a model does not run with its setting.
    """
    models = list(dict.fromkeys(spec.name for spec, _ in jobs))
    processes = min(processes, len(models))
    owners = [models.index(spec.name) % processes for spec, _ in jobs]
    named: list[list[tuple[str, Setting]]] = [[] for _ in range(processes)]
    for owner, (spec, setting) in zip(owners, jobs, strict=True):
        named[owner].append((spec.name, setting))
    shares = [CountShare(tuple(own), convention.name) for own in named]
    questions = [Question("datbench.counting.count:count_share", share) for share in shares]
    with asking(questions, Counted) as asked:
        # An error ends its process; here it is told.
        found = [
            reply.answer or count_share(share)
            for reply, share in zip(asked.replies(), shares, strict=True)
        ]
    for text in (text for counted in found for text in counted.warnings):
        warn(text)
    rows = [iter(counted.rows) for counted in found]
    return [next(rows[owner]) for owner in owners]


def _summarised(
    name: str, built: Built, count: Count, setting: Setting, convention: Convention
) -> CountRow:
    """A count under one convention, with the model's parameters beside it."""
    stages = count.by_stage(convention)
    total = sum(group.amount for group in stages)
    backward = count.total(convention, "backward") if setting.backward else None
    sizes = built.sizes.values()

    def rows(groups: list[Group]) -> tuple[GroupRow, ...]:
        return tuple(
            GroupRow(
                group.key,
                group.calls,
                group.amount,
                group.amount / total if total else 0.0,
                group.bytes_read,
                group.bytes_written,
                group.intensity,
            )
            for group in groups
        )

    def calls(groups: list[Group]) -> dict[str, int]:
        return {group.key: group.calls for group in groups}

    return CountRow(
        model=name,
        setting=setting,
        convention=convention.name,
        unit=convention.unit,
        amount=total,
        macs=total if convention.unit == "MAC" else count.multiply_adds(),
        flops=total if convention.unit == "FLOP" else None,
        forward=total - (backward or 0),
        backward=backward,
        params=sum(row.params for row in sizes),
        frozen=sum(row.frozen for row in sizes),
        buffers=sum(row.buffers for row in sizes),
        bytes_read=sum(group.bytes_read for group in stages),
        bytes_written=sum(group.bytes_written for group in stages),
        stages=rows(stages),
        operators=rows(count.by_operator(convention)),
        modules=rows(count.by_module(convention)),
        counted=calls(count.with_status("counted", convention)),
        ignored=calls(count.ignored(convention)),
        free=calls(count.with_status("free", convention)),
        unknown=calls(count.with_status("unknown", convention)),
        stage_params={stage: row.params for stage, row in built.sizes.items()},
    )


def parameter_entries(
    spec: Spec, place: Place, features: bool = False, inputs: tuple[str, ...] = ()
) -> list[ParamsEntry]:
    """The elements of a model, part by part or stage by stage, and the whole of it at the end.

    Args:
        inputs: what its first forward takes (`datbench.inputs`), if that makes weights.
    """
    from ..records import ParamsEntry

    module = build_for_count(spec, Setting(spec.resolution, features=features, inputs=inputs))
    return [
        ParamsEntry(
            spec.name,
            row.params,
            row.frozen,
            row.buffers,
            stage=name if place == "stage" else None,
            part=name if place == "part" else None,
            features=features,
        )
        for name, row in (parameters_by(module, place) | parameters_by(module, "total")).items()
    ]
