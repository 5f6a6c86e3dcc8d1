"""Build a model with its inputs for a setting, run it, and leave it as it was."""

from __future__ import annotations

import copy
import inspect
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    redirect_stdout,
    suppress,
)
from contextvars import ContextVar
from dataclasses import fields, is_dataclass, replace
from functools import partial
from operator import is_
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map_only

from .errors import DatbenchError, MeasurementError, Misfit, UsageError, first_line, one_line, warn
from .inputs import EXAMPLE, OWN, PICTURES, FileOf, Inputs, TensorOf, parse, told
from .machine import proc_bytes
from .models.external import FactorySpec, is_factory
from .models.layers import image_channels
from .models.resolve import Spec, build, is_ours, resolve
from .models.spec import TRANSFORMERS
from .setting import DTYPES, WITH_BACKWARD, Autocast, How, MemoryMode, Optimizer, Setting, TimeMode

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer

# The seed of weights and images.


SEED = 0
"""Every process makes the same weights and images: what is counted is what is timed."""

_seed: ContextVar[int | None] = ContextVar("_seed", default=None)


@contextmanager
def seeded(seed: int = SEED) -> Iterator[None]:
    """Make all random values from a seed, and leave their sources as they were.

    Inside another `seeded` the outer seed is taken again.
    """
    outer = _seed.get()
    seed = seed if outer is None else outer
    before = _seed.set(seed)
    python, arrays = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            numpy.random.seed(seed)
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(arrays)
        _seed.reset(before)


# A model and its inputs.


def build_model(
    model: str | Spec,
    setting: Setting,
    on_meta: Callable[[], AbstractContextManager[Any]] = nullcontext,
    *,
    training: bool = False,
    late: bool = True,
) -> nn.Module:
    """The model on the setting's device and in its dtype.

    Args:
        on_meta: a context in which a model is built on meta.
        training: in training mode, with the flag of each module as it was built; else all in
            evaluation mode.
        late: with the weights that a user's model makes in its first forward.

    Raises:
        UnknownNameError: no such model.
        MeasurementError: it cannot be built for this setting.
    """
    spec = resolve(model) if isinstance(model, str) else model
    foreign = not is_ours(spec)
    try:
        with (
            reported(spec.name, setting, foreign),
            on_meta() if setting.device == "meta" else nullcontext(),
        ):
            module = _built(spec, setting, training, late)
    except MeasurementError:
        if setting.device != "meta" or not foreign:
            raise
        # Others' models may read values while they are built, which meta tensors do not have.
        with reported(spec.name, setting, foreign):
            module = _built(spec, replace(setting, device="cpu"), training, late).to("meta")
    return module


def _built(spec: Spec, setting: Setting, training: bool, late: bool) -> nn.Module:
    with seeded():
        module = build(
            spec,
            setting.resolution,
            features=setting.features,
            attention=setting.attention,
            device=setting.device,
        )
        # A factory may return a training model with frozen norms, which keep their statistics.
        if not (training and getattr(module, "training", False)):
            with suppress(NotImplementedError):  # an exported program has one mode
                module.train(training)
        lazy = any(map(is_lazy, _tensors_of(module, {})))
        if lazy or (late and isinstance(spec, FactorySpec)):
            _make_late_weights(module, setting, lazy)
    dtype: torch.dtype = getattr(torch, setting.dtype)
    return module if dtype in (torch.float32, own_dtype(module)) else module.to(dtype)


def _make_late_weights(module: nn.Module, setting: Setting, lazy: bool) -> None:
    """Run a user's model once if its weights are made by its first forward.

    Lazy modules learn their sizes, and layers made in `forward` become parameters of the model.
    """
    names = {name for name, _ in module.named_parameters()}
    given = make_inputs(replace(setting, dtype="float32"), module)
    with ExitStack() as stack, torch.no_grad(), as_written():
        if lazy:
            module(*given.args, **given.named)
            return
        undo = stack.enter_context(unchanged(module))
        with suppress(Exception):  # it is run again, where that is told
            module(*given.args, **given.named)
        if names != {name for name, _ in module.named_parameters()}:
            undo.pop_all()


def constant_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights that are no parameters: packed by quantization, or constants of a frozen script."""
    for path, each in module.named_modules():
        if type(each).__module__.startswith("torch.ao.nn."):
            for name in ("weight", "bias", "get_weight", "get_bias"):
                method = getattr(each, name, None)
                for tensor in tensors_in(method()) if inspect.ismethod(method) else []:
                    yield f"{path}.{name}", tensor
    if isinstance(module, torch.jit.ScriptModule) and not list(module.parameters()):
        graph: Any = module.inlined_graph
        values = [node.output().toIValue() for node in graph.findAllNodes("prim::Constant")]
        for number, value in enumerate(values):
            if isinstance(value, Tensor) and value.is_floating_point():
                yield f"constant_{number}", value


def check_visible(model: nn.Module) -> None:
    """Refuse a model that computes where no dispatch mode sees it.

    Raises:
        UsageError: a script that `torch.jit.optimize_for_inference` has changed.
    """
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            graph: Any = module.inlined_graph
            if "mkldnn_convolution" in str(graph):
                raise UsageError(
                    "torch.jit.optimize_for_inference hides this model's convolutions from torch's "
                    "dispatcher: use the model as it is before."
                )


def sized(model: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> nn.Module:
    """The model, or a copy that ran once if lazy modules in it have no size yet."""
    if not any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        return model
    model = copy.deepcopy(model)
    with torch.no_grad(), as_written():
        model(*inputs, **named)
    return model


def own_dtype(module: nn.Module) -> torch.dtype:
    """The type of the module's first floating-point parameter; float32 without any."""
    dtypes = (p.dtype for p in module.parameters() if p.dtype.is_floating_point)
    return next(dtypes, torch.float32)


def as_built(module: nn.Module, setting: Setting) -> Setting:
    """The setting that a model really has: with the CPU where it does not run on meta, with the
    dtype that its factory makes it in, and with the inputs that it says itself.
    """
    own = str(own_dtype(module)).removeprefix("torch.")
    if setting.dtype == "float32" and own in DTYPES:
        setting = replace(setting, dtype=own)
    example: Any = getattr(module, OWN, None)
    # What a caller gives stands in the caller's setting.
    if not (example is None or setting.inputs or isinstance(example, Inputs)):
        said = f"{OWN}({{B}},{{H}},{{W}})" if callable(example) else OWN
        setting = replace(setting, inputs=(said,))
    on_meta = setting.device != "meta" or all(tensor.is_meta for tensor in _tensors_of(module, {}))
    return setting if on_meta else replace(setting, device="cpu")


def _tensors_of(module: nn.Module, seen: dict[nn.Module, None]) -> Iterator[Tensor]:
    """Parameters and buffers, in a fifth of the time of `parameters()`; shared ones repeatedly."""
    seen[module] = None
    for held in (*module._parameters.values(), *module._buffers.values()):
        if held is not None:
            yield held
    for part in module._modules.values():
        if part is not None and part not in seen:
            yield from _tensors_of(part, seen)


def make_image(setting: Setting, channels: int = 3, number: int = 0) -> Tensor:
    """A batch of images, (B, C, H, W), normally distributed; on meta without values.

    They are the same in every process: what is counted, measured and timed is one input.

    Args:
        number: of the batch; another one has other values.
    """
    size, dtype = setting.resolution, getattr(torch, setting.dtype)
    shape = (setting.batch, channels, size.height, size.width)
    if setting.device == "meta":
        return torch.empty(shape, dtype=dtype, device="meta")
    generator = torch.Generator().manual_seed((_seed.get() or SEED) + number)
    return torch.randn(shape, generator=generator, device="cpu").to(setting.device, dtype)


def make_inputs(setting: Setting, module: nn.Module, number: int = 0) -> Inputs:
    """What the setting says that the model takes, or else the model itself in `example_inputs`, or
    else a batch of images. Random values are the same in every process.

    `example_inputs` is a tensor, a tuple of arguments, a dict of named ones, or a function of
    (batch, height, width) that returns one of these.

    Raises:
        UsageError: a file cannot be read, or the inputs do not depend on the batch that is asked.
    """
    setting = as_built(module, setting)
    if setting.inputs and setting.batch > 1 and not told(setting.inputs, "B"):
        raise UsageError(
            f"batch {setting.batch}: the inputs {', '.join(setting.inputs)} have one size; leave "
            "it out, write {B} in a shape, or make example_inputs a function of (batch, height, "
            "width)."
        )
    if setting.inputs and not setting.inputs[0].startswith(OWN):
        source = torch.Generator().manual_seed((_seed.get() or SEED) + number)
        make = partial(_made, setting, source)
        made = [
            (given.name, tree_map_only((TensorOf, FileOf), make, given.value))
            for given in parse(setting.inputs)
        ]
        args = tuple(value for name, value in made if name is None)
        return Inputs(args, {name: value for name, value in made if name})
    example: Any = getattr(module, OWN, None)
    if example is None:
        return Inputs((make_image(setting, image_channels(module), number),))
    if callable(example):
        size = setting.resolution
        example = example(setting.batch, size.height, size.width)
    placed = tree_map_only(Tensor, partial(_placed, setting), example)
    if isinstance(placed, Inputs):
        return placed
    if isinstance(placed, Mapping):
        return Inputs(named=placed)
    return Inputs(tuple(placed) if isinstance(placed, (tuple, list)) else (placed,))


def _placed(setting: Setting, tensor: Tensor) -> Tensor:
    """A tensor where and in the dtype in which the setting runs."""
    dtype = getattr(torch, setting.dtype) if tensor.dtype == torch.float32 else tensor.dtype
    return tensor.to(setting.device, dtype)


def _made(setting: Setting, source: torch.Generator, made: TensorOf | FileOf) -> Any:
    """An argument, or what is in its containers: a tensor that is filled, or what a file holds."""
    if isinstance(made, FileOf):
        return _from_file(made.path, setting)
    size = setting.resolution
    shape = made.shape({"B": setting.batch, "H": size.height, "W": size.width})
    dtype: torch.dtype = getattr(torch, setting.dtype if made.dtype == "float" else made.dtype)
    if setting.device == "meta":
        return torch.empty(shape, dtype=dtype, device="meta")
    if made.fill != "random":
        return torch.full(shape, made.fill == "ones", dtype=dtype, device=setting.device)
    if dtype.is_floating_point or dtype.is_complex:
        real = torch.float32 if dtype.is_floating_point else dtype
        values = torch.randn(shape, generator=source, device="cpu", dtype=real)
    else:
        values = torch.randint(made.low, made.high + 1, shape, generator=source, device="cpu")
    return values.to(setting.device, dtype)


def _from_file(path: str, setting: Setting) -> Any:
    """What a file holds: a picture at the setting's size, an array, or tensors in containers.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    if path.lower().endswith(PICTURES):
        from .pictures import as_input, read_image

        size = setting.resolution
        pixels = as_input(read_image(Path(path)), size.width, size.height)
        # (B, 3, H, W)
        image = torch.from_numpy(pixels).expand(setting.batch, *pixels.shape).contiguous()
        return _placed(setting, image)
    if not Path(path).is_file():
        raise UsageError(f"--input: there is no file {path}.")
    try:
        if path.lower().endswith(".npy"):
            held: Any = torch.from_numpy(numpy.load(path, allow_pickle=False))
        else:
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to lead to
        raise UsageError(f"--input: {path} cannot be read ({type(error).__name__}).") from error
    return tree_map_only(Tensor, partial(_placed, setting), held)


T = TypeVar("T")


def with_values(name: str, on_meta: Callable[[], T], real: Callable[[], T]) -> T:
    """What a run on meta gives; of a model that does not run there, with real values, and say so.

    Raises:
        Exception: what the run with real values raised.
    """
    try:
        return on_meta()
    except UsageError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        cause = error.__cause__ or error
        if isinstance(cause, Misfit):
            raise
        reason = first_line(cause)
    found = real()
    warn(f"{name} does not run without values; it was run with real ones on the CPU ({reason}).")
    return found


def anywhere(spec: Spec, setting: Setting, work: Callable[[Setting], T]) -> T:
    """`work` at a setting; on the CPU for a model of others that does not run on meta.

    Every command that runs a model on meta does it through this.

    Raises:
        DatbenchError: it does not run.
    """
    if setting.device != "meta" or is_ours(spec):
        return work(setting)
    there = replace(setting, device="cpu")
    return with_values(spec.name, lambda: work(setting), lambda: work(there))


# One iteration, piece by piece.


def tensors_in(outputs: object) -> list[Tensor]:
    """Every tensor in what a model returned: in containers of any depth, and in dataclasses."""
    found = []
    for leaf in tree_leaves(outputs):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, SimpleNamespace):
            found += tensors_in(list(vars(leaf).values()))
        elif is_dataclass(leaf) and not isinstance(leaf, type):  # it may have slots
            found += tensors_in([getattr(leaf, each.name, None) for each in fields(leaf)])
    return found


def values_of(tensor: Tensor) -> Tensor:
    """The elements that a sparse tensor stores; any other tensor itself."""
    if tensor.layout == torch.strided:
        return tensor
    return tensor._values() if tensor.layout == torch.sparse_coo else tensor.values()


def losses_of(outputs: object, remedy: str = "use --mode inference") -> list[Tensor]:
    """The tensors of a model's outputs from which a backward starts.

    Raises:
        MeasurementError: none has a gradient; the message ends with the remedy.
    """
    losses = [tensor for tensor in tensors_in(outputs) if tensor.requires_grad]
    if not losses:
        raise MeasurementError(f"the model's output has no gradient; {remedy}.")
    return losses


def ones_like(losses: list[Tensor]) -> list[Tensor]:
    """The gradients from which a backward starts: ones, since there is no loss function."""
    return [torch.ones_like(loss) for loss in losses]


def run_backward(losses: list[Tensor]) -> None:
    """Accumulate the gradients of the parameters."""
    torch.autograd.backward(losses, ones_like(losses))


def iterate(
    model: nn.Module,
    inputs: Inputs,
    mode: MemoryMode,
    casting: AbstractContextManager[Any] | None = None,
    forwarded: Callable[[list[Tensor]], None] = lambda outputs: None,
) -> list[Tensor]:
    """One iteration up to its gradients; the tensors that the model returned.

    Args:
        casting: autocast for the forward.
        forwarded: called with these tensors before the backward.

    Raises:
        MeasurementError: a training mode, and no output has a gradient.
    """
    training = mode != "inference"
    with torch.set_grad_enabled(training), casting or nullcontext():
        outputs = tensors_in(model(*inputs.args, **inputs.named))
    forwarded(outputs)
    if training:
        losses = losses_of(outputs, "use --mode inference")
        if mode in WITH_BACKWARD:
            run_backward(losses)
    return outputs


PHASES = FORWARD, STEP = ("forward", "optimizer")
"""The parts of an iteration that a profile names."""

Phase: TypeAlias = Callable[[str], AbstractContextManager[Any]]


class Runner:
    """Runs a model once a call: a forward without gradients; or forward, backward and a step of
    SGD.

    Args:
        compiled: by torch.compile.
        autocast: the type that the forward is cast to.

    Raises:
        MeasurementError: training, and there is nothing to train.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        mode: TimeMode,
        compiled: bool = False,
        autocast: Autocast | None = None,
    ) -> None:
        self.model, self.inputs, self.mode, self.autocast = model, inputs, mode, autocast
        self._casting: Callable[[], AbstractContextManager[Any]] = nullcontext
        if autocast is not None:
            there = tensors_in((inputs, *model.parameters()))
            kind = there[0].device.type if there else "cpu"
            self._casting = partial(torch.autocast, kind, getattr(torch, autocast))
        self._forward: Callable[..., object] = torch.compile(model) if compiled else model
        self._without_gradients: Callable[[], Any] = torch.inference_mode
        self.optimizer: TorchOptimizer | None = None
        if mode == "step":
            trained = [p for p in model.parameters() if p.requires_grad]
            if not trained:
                raise MeasurementError(
                    "no parameter of the model has a gradient; use --mode inference."
                )
            # At a rate of 0 a step reads and writes all that it would, and no weight runs away to
            # values that take another time.
            self.optimizer = torch.optim.SGD(trained, lr=0.0)

    def __call__(self) -> None:
        """Run once."""
        self.run(lambda phase: nullcontext())

    def run(self, named: Phase) -> None:
        """Run once, with the forward and the optimizer's work inside a context each."""
        if self.optimizer is None:
            try:
                with self._without_gradients(), named(FORWARD):
                    self._outputs()
            except RuntimeError as error:
                if "require grad" not in str(error) or self._without_gradients is nullcontext:
                    raise
                # It takes gradients in its forward, which need a graph.
                self._without_gradients = nullcontext
                self.run(named)
            return
        with named(STEP):
            self.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad(), named(FORWARD):
            outputs = self._outputs()
        run_backward(losses_of(outputs))
        with named(STEP):
            self.optimizer.step()

    def _outputs(self) -> object:
        with self._casting():
            return self._forward(*self.inputs.args, **self.inputs.named)


def ready(model: str | Spec, setting: Setting, how: How) -> Runner:
    """Build a model in its mode with a batch of images for it.

    Raises:
        DatbenchError: the model could not be built, or there is nothing to train.
    """
    training = how.mode == "step"
    module = build_model(model, setting, training=training, late=training)
    inputs = make_inputs(setting, module)
    if how.channels_last:
        to: Any = module.to  # torch does not type this form
        module = to(memory_format=torch.channels_last)
        inputs = tree_map_only(Tensor, _channels_last, inputs)
    return Runner(module, inputs, how.mode, how.compile, how.autocast)


def _channels_last(tensor: Tensor) -> Tensor:
    image = tensor.ndim == 4
    return tensor.contiguous(memory_format=torch.channels_last) if image else tensor


# torch.optim's optimizers as a full step runs them, and the state that they keep.


def stepped(name: Optimizer, model: nn.Module) -> TorchOptimizer:
    """The optimizer after its first step, which made its state; the gradients are gone.

    It holds the parameters that have a gradient. Its learning rate is 0, so that every tensor of a
    step is made and no parameter changes.

    Raises:
        MeasurementError: there are none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    if not parameters:
        raise MeasurementError("no parameter of the model has a gradient; use another mode.")
    # `foreach` is torch's default on CUDA: temporaries of all parameters live at once.
    optimizer: TorchOptimizer
    if name == "adamw":
        optimizer = torch.optim.AdamW(parameters, lr=0.0, foreach=True)
    else:
        momentum = 0.9 if name == "sgd-momentum" else 0.0
        optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=momentum, foreach=True)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def optimizer_state(optimizer: TorchOptimizer) -> list[Tensor]:
    """Every tensor that an optimizer keeps between steps, step counts on the host included."""
    return [tensor for kept in optimizer.state.values() for tensor in tensors_in(kept)]


# Contexts of a run.


@contextmanager
def unchanged(model: nn.Module, *inputs: Any) -> Iterator[ExitStack]:
    """Restore the model and torch's random state afterwards; `pop_all()` of what is given keeps
    the model as it has become.

    Restored are the values of the model's buffers, all attributes of its modules (buffers that are
    assigned, training flags, hooks, counters, lists), and the gradients of its parameters and of
    the inputs. Inside there are no gradients to begin with.
    """
    modules = list(model.modules())  # each walk of a model takes as long as a few operators
    parameters = list(
        dict.fromkeys(p for m in modules for p in m._parameters.values() if p is not None)
    )
    buffers = dict.fromkeys(b for m in modules for b in m._buffers.values() if b is not None)
    leaves = [*parameters, *(tensor for tensor in tensors_in(inputs) if tensor.is_leaf)]
    gradients = [(leaf, leaf.grad) for leaf in leaves]
    with torch.random.fork_rng(devices=[]), ExitStack() as undo:
        for buffer in buffers:
            if not (buffer.is_meta or is_lazy(buffer)):
                undo.callback(_refill, buffer, buffer.detach().clone())
        weights = [(weight, weight.data) for weight in parameters if not is_lazy(weight)]
        undo.callback(_reassign, weights)
        held: list[tuple[Any, Any]] = []
        for module in modules:
            _hold(vars(module), held)
        undo.callback(_put_back, held)
        for leaf in leaves:
            leaf.grad = None
        try:
            yield undo
        finally:
            for leaf, gradient in gradients:
                leaf.grad = gradient


def _refill(buffer: Tensor, saved: Tensor) -> None:
    with torch.no_grad():
        if not torch.equal(values_of(buffer), values_of(saved)):
            buffer.copy_(saved)


def _reassign(weights: list[tuple[nn.Parameter, Tensor]]) -> None:
    """Undo `parameter.data = ...`."""
    for weight, data in weights:
        if (weight.data_ptr(), weight.shape) != (data.data_ptr(), data.shape):
            weight.data = data


def _hold(attributes: dict[str, Any], held: list[tuple[Any, Any]]) -> None:
    """Keep a module's attributes, and those of them that are containers, each with a plain copy."""
    held.append((attributes, dict(attributes)))
    for value in attributes.values():
        if isinstance(value, (dict, list, set)):
            if value:
                kind = next(kind for kind in (dict, list, set) if isinstance(value, kind))
                held.append((value, kind(value)))
            else:
                held.append((value, ()))  # most are empty, and a copy takes time


def _put_back(held: list[tuple[Any, Any]]) -> None:
    """Give containers what they held."""
    for container, content in held:
        if (container or content) and not _holds(container, content):
            container.clear()
            add = container.extend if isinstance(container, list) else container.update
            add(content)


def _holds(container: Any, content: Any) -> bool:
    """Whether it holds the very same objects."""
    if isinstance(container, set):
        return bool(container == content)
    same = len(container) == len(content) and all(map(is_, container, content))
    if same and isinstance(container, dict):
        return all(map(is_, container.values(), content.values()))
    return same


_optimized: Any = torch.jit.optimized_execution  # type: ignore[attr-defined]


@contextmanager
def as_written() -> Iterator[None]:
    """Run the operators that the model's code names: no fast path of nn.MultiheadAttention, which
    some devices lack, and no compiled code; without the warnings that this provokes.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # Costs nothing where none was ever compiled. Functions that compile themselves when they are
    # called, as flex_attention and torch.cond do, then ask the environment.
    compiled = "torch._dynamo" in sys.modules
    try:
        with (
            _variable("TORCHDYNAMO_DISABLE", "1"),
            warnings.catch_warnings(),
            _optimized(False),  # fused operators of scripts reach no dispatcher
            torch.compiler.set_stance("force_eager") if compiled else nullcontext(),
        ):
            # A checkpointed module may run once without gradients.
            warnings.filterwarnings("ignore", "None of the inputs have requires_grad")
            # Compiled modules see the tracker's global hooks.
            warnings.filterwarnings("ignore", "Using `torch.compile")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def quiet_kineto() -> AbstractContextManager[None]:
    """Without the lines that some builds write to stderr at every profile."""
    name = "KINETO_LOG_LEVEL"
    return _variable(name, os.environ.get(name, "99"))


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment, and leave it as it was."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def threads_set(wanted: int | None) -> Iterator[None]:
    """Run operators on this number of threads; on torch's own number if None."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# What goes wrong, as one line.


_EXPECTED = (RuntimeError, MemoryError, AssertionError)


@contextmanager
def reported(name: str, setting: Setting, foreign: bool) -> Iterator[None]:
    """Turn what torch raises into one line that names the model and its setting.

    Args:
        foreign: somebody else's code, which may raise anything, and print: its prints go to
            standard error.

    Raises:
        MeasurementError: something expected was raised.
    """
    try:
        with redirect_stdout(sys.stderr) if foreign else nullcontext():
            yield
    except DatbenchError:
        raise
    except (Exception, SystemExit) as error:
        if not foreign and not isinstance(error, _EXPECTED):
            raise
        hint = ""
        other = name.startswith(TRANSFORMERS) or (is_factory(name) and _at_entry(error))
        if other and not setting.inputs:
            hint = f"; if it does not take one image, say what it takes: {EXAMPLE}"
        batch = "" if (setting.device, setting.batch) == ("meta", 1) else f", batch {setting.batch}"
        raise MeasurementError(
            f"{name} at {setting.resolution}{batch} on {setting.device}: "
            f"{_reason(error, setting)}{hint}"
        ) from error


def _reason(error: BaseException, setting: Setting) -> str:
    if memory_error(error) is not None:
        smaller = "batch" if setting.batch > 1 else "resolution"
        return f"out of memory; use a smaller {smaller}."
    line = (str(error).splitlines() or [""])[0]
    reason = line if isinstance(error, _EXPECTED) and line else f"{type(error).__name__}: {line}"
    return reason + _where(error)


def _running(error: BaseException) -> list[nn.Module]:
    """The modules whose forward was running when it was raised, the outermost first."""
    running: list[nn.Module] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        module = trace.tb_frame.f_locals.get(code.co_varnames[0]) if code.co_varnames else None
        if code.co_name == "forward" and isinstance(module, nn.Module):
            running.append(module)
        trace = trace.tb_next
    return running


def _at_entry(error: BaseException) -> bool:
    """Whether it was raised where the input comes in: by the model itself, or by the first of its
    parts that has weights.
    """
    running = _running(error)
    weighted = (m for whole in running[:1] for m in whole.modules() if [*m.parameters(False)])
    return not running or running[-1] in (running[0], next(weighted, None))


def _where(error: BaseException) -> str:
    """The module whose forward raised it, with its class: `` (in stages.0.norm, LayerNorm)``."""
    if not (running := _running(error)):
        return ""
    paths = {id(module): path for path, module in running[0].named_modules()}
    # A module that is made in a forward has no path; its caller has.
    module = next(module for module in reversed(running) if id(module) in paths)
    path, kind = paths[id(module)], type(module).__qualname__
    return f" (in {path}, {kind})" if path else f" (in {kind})"


def failure(error: BaseException, on_gpu: bool) -> tuple[Literal["out of memory", "failed"], str]:
    """What a run that raised this is called, and why."""
    cause = memory_error(error, on_gpu)
    if cause is not None:
        # Torch's first sentences: what was asked for, and what was left. The rest is advice.
        text = " ".join(str(cause).split()) or type(cause).__name__
        return "out of memory", ". ".join(text.split(". ")[:3])
    known = isinstance(error, DatbenchError)
    return "failed", str(error) if known else one_line(error) + _where(error)


_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What libraries say who allocate past torch's allocator. `CUBLAS_STATUS_NOT_INITIALIZED` is left
out: it may mean this, and may mean anything."""

_OUT_OF_HOST_MEMORY = ("can't allocate memory", "not enough memory")
"""What torch's CPU allocator says."""


def memory_error(error: BaseException | None, on_gpu: bool | None = None) -> BaseException | None:
    """The error in the chain that says that memory was used up.

    Args:
        on_gpu: only the GPU's memory, or only the machine's. For a run on a GPU the machine's own
            memory running out is a failure like any other: a smaller batch is not what it needs.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for there, kind, sentences in (
            (True, torch.OutOfMemoryError, _OUT_OF_MEMORY),
            (False, MemoryError, _OUT_OF_HOST_MEMORY),
        ):
            said = isinstance(error, kind) or any(each in str(error) for each in sentences)
            if said and on_gpu in (None, there):
                return error
        error = error.__cause__ or error.__context__
    return None


def available_bytes(device: torch.device) -> int | None:
    """Free memory where asking for more would not fail but kill; None on a GPU, which says no."""
    if device.type != "cpu":
        return None
    return proc_bytes("/proc/meminfo", "MemAvailable")
