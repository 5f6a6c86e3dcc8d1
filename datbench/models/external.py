"""Models of others, by name: timm's, and what a function or class of the user's returns.

A name carries its options, so that it can stand in a table file, a result or a shell:
``timm:davit_base,window_size=12`` or ``mypackage.models:make_net,depth=12``.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LibraryError, MeasurementError, UnknownNameError, UsageError, first_line
from ..setting import Attention, Resolution
from .aliases import ALIASES
from .spec import CONFIG, LIBRARIES, TIMM

if TYPE_CHECKING:
    from torch import nn

    from ..records import ModelEntry

SIDE = 224
"""Input side of a model that does not say its own."""


@dataclass(frozen=True)
class TimmSpec:
    """A model of timm's, with options."""

    name: str  # as the user wrote it; it resolves back to this spec
    architecture: str  # timm's name
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)  # of `timm.create_model`

    @property
    def resolution(self) -> Resolution:
        """The input that timm's configuration of the model names."""
        side = self.options.get("img_size")
        if side is None:
            _, config = _timm_model(self.architecture)
            side = SIDE if config is None else config.input_size[1:]
        height, width = side if isinstance(side, (tuple, list)) else (side, side)
        return Resolution(int(width), int(height))

    @property
    def takes_any_size(self) -> bool:
        """Whether it is built alike for every input."""
        _, config = _timm_model(self.architecture)
        return "img_size" in self.options or config is None or not config.fixed_input_size

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The model for this input, on the default device."""
        timm, _ = _timm_model(self.architecture)
        options = dict(self.options)
        if features:
            options["features_only"] = True
        if not self.takes_any_size and resolution != self.resolution:
            options["img_size"] = (resolution.height, resolution.width)
        with _fused(timm, attention != "eager"):
            try:
                model: nn.Module = timm.create_model(self.architecture, **options)
            except (TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
                raise UsageError(f"{self.name}: timm does not build it: {named(error)}") from error
        # datbench's own models in timm's registry do not read timm's global.
        set_attention = getattr(model, "set_attention", None)
        if set_attention is not None and "attention" not in options:
            set_attention(attention)
        return _of_channels(model, options)


@dataclass(frozen=True)
class FactorySpec:
    """A function or class of the user's that makes a model, which takes an image or says in
    `example_inputs` what else; the function may have or return that too.
    """

    name: str  # as the user wrote it; it resolves back to this spec
    module: str  # or the path of a file that ends in .py
    attribute: str  # of the module; it may have dots
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments

    @property
    def resolution(self) -> Resolution:
        """A square of 224; give another with `--res`."""
        return Resolution(SIDE, SIDE)

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """What the factory returns, on the default device."""
        import torch
        from torch import nn

        if features:
            raise UsageError(f"{self.name}: --features is for datbench's and timm's models.")
        with torch.device("cpu"):  # tensors that its module holds have values
            factory = self._factory()
        if isinstance(factory, nn.Module):
            raise UsageError(
                f"{self.name} is a model already; name the function or class that makes it."
            )
        if not callable(factory):
            raise UsageError(f"{self.name} is a {type(factory).__name__}, not a function or class.")
        self._check_arguments(factory)
        try:
            model = factory(**self.options)
        except (Exception, SystemExit) as error:  # somebody else's code may raise anything
            raise MeasurementError(f"{self.name} raised {named(error)}") from error
        example = getattr(factory, "example_inputs", None)
        if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], nn.Module):
            model, example = model
        if type(model).__name__ == "ExportedProgram":
            model = model.module()
        if not isinstance(model, nn.Module):
            raise UsageError(
                f"{self.name} returns {type(model).__name__}, which is not a torch.nn.Module."
            )
        if example is not None and not hasattr(model, "example_inputs"):
            model.example_inputs = example
        return _of_channels(model, self.options)

    def _factory(self) -> Any:
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        try:
            found: Any = _imported(self.module)
        except (Exception, SystemExit) as error:  # somebody else's code may raise anything
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and f"{self.module}.".startswith(f"{missing}."):
                raise UnknownNameError(
                    f"{self.name}: there is no module {missing!r} in this environment or in "
                    "the current directory."
                ) from error
            raise UsageError(f"{self.name}: importing it raised {named(error)}") from error
        for part in self.attribute.split("."):
            if not hasattr(found, part):
                names = [name for name in dir(found) if name[0] != "_"]
                unknown = UnknownNameError.among("factory", part, names)
                raise UnknownNameError(f"{self.name}: {unknown}")
            found = getattr(found, part)
        return found

    def _check_arguments(self, factory: Any) -> None:
        try:
            signature = inspect.signature(factory)
        except (TypeError, ValueError):
            return  # written in C: calling it will tell
        try:
            signature.bind(**self.options)
        except TypeError as error:
            needed = [
                p.name
                for p in signature.parameters.values()
                if p.default is p.empty
                and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
                and p.name not in self.options
            ]
            if not needed:
                raise UsageError(f"{self.name}: {error}.") from error
            wanted = "".join(f",{name}=..." for name in needed)
            raise UsageError(
                f"{self.name} needs arguments: {', '.join(needed)}; write {self.name}{wanted}."
            ) from error


def _imported(module: str) -> Any:
    """A module by its name, or the one in a file, whose folder its own imports see."""
    if not module.endswith(".py"):
        return importlib.import_module(module)
    path = Path(module).resolve()
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    name = path.stem if known is None else f"_{path.stem}_of_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    found = sys.modules[name] = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(found)
    except BaseException:
        del sys.modules[name]
        raise
    return found


def _of_channels(model: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """The model, saying in `in_chans` for images of how many channels it was asked for."""
    if "in_chans" in options and not hasattr(model, "in_chans"):
        model.in_chans = options["in_chans"]
    return model


def is_factory(name: str) -> bool:
    """Whether a model's name is that of a function or class of the user's, or a library's."""
    return ":" in name and not name.startswith((*LIBRARIES, CONFIG))


def timm_spec(text: str) -> TimmSpec:
    """``timm:NAME[,option=value...]``; nothing is loaded yet."""
    name, options = split_options(text, text[len(TIMM) :])
    for option in ("pretrained", "checkpoint_path"):
        if options.get(option):
            raise UsageError(f"{text}: no weights are needed to count; leave out {option}.")
    return TimmSpec(text, name, options)


def factory_spec(text: str) -> FactorySpec:
    """``package.module:factory[,argument=value...]``; nothing is imported yet."""
    target, options = split_options(text, text)
    module, _, attribute = target.rpartition(":")
    if module.endswith(".py") and not Path(module).is_file():
        raise UsageError(f"{text}: there is no file {module}.")
    words = [*([] if module.endswith(".py") else module.split(".")), *attribute.split(".")]
    if not all(word.isidentifier() for word in words):
        raise UsageError(
            f"{text!r} is not understood; write package.module:factory or file.py:factory."
        )
    return FactorySpec(text, module, attribute, options)


def split_options(text: str, rest: str) -> tuple[str, dict[str, Any]]:
    """The name and options of ``name,key=value,key=(1,2)``, as Python literals or words."""
    parts, depth = [""], 0
    for character in rest:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    options: dict[str, Any] = {}
    for part in parts[1:]:
        key, equals, value = part.partition("=")
        if not equals or not key.strip().isidentifier():
            raise UsageError(f"{text!r}: {part!r} is not an option; write name=value.")
        options[key.strip()] = _literal(value.strip())
    return parts[0].strip(), options


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _timm_model(architecture: str) -> tuple[Any, Any]:
    """timm, and what it says about a model's input (None where it says nothing)."""
    from .timm import load_timm, register_timm

    timm = load_timm()
    register_timm()
    if not timm.is_model(architecture):
        raise UnknownNameError.among("timm model", architecture, timm.list_models())
    try:
        return timm, timm.get_pretrained_cfg(architecture)
    except RuntimeError as error:
        name, _, tag = architecture.partition(".")
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
        raise UnknownNameError.among(f"tag of timm's {name}", tag, tags) from error


def timm_names(text: str) -> list[str]:
    """Models of timm's whose names contain a text, those first that begin with it; none where timm
    cannot be loaded.
    """
    from .dat import REGISTRY
    from .timm import load_timm

    try:
        names = load_timm().list_models()
    except LibraryError:
        return []
    found = [name for name in names if text in name and name not in REGISTRY]
    return sorted(found, key=lambda name: not name.startswith(text))


def near_in_timm(text: str, others: Iterable[str]) -> list[str]:
    """A few of them that may be meant by a name, unless it nearly is one of the others."""
    if difflib.get_close_matches(text, others, cutoff=0.9):
        return []  # timm takes seconds to load
    begun = [name for name in timm_names(text) if name.startswith(text)]
    alike = begun or difflib.get_close_matches(text, timm_names(""), cutoff=0.7)
    return [TIMM + name for name in sorted(alike, key=len)[:3]]


def timm_entries(text: str) -> list[ModelEntry]:
    """Models of timm's whose names contain a text, with what timm says of each."""
    from ..records import ModelEntry

    found = []
    for name in timm_names(text):
        timm, _ = _timm_model(name)
        said = (timm.model_entrypoint(name).__doc__ or "").strip().partition("\n")[0]
        aliases = [alias for alias, of in ALIASES.items() if of == TIMM + name != TIMM + alias]
        summary = f"{said} ({', '.join(aliases)})" if aliases else said
        size = TimmSpec(name, name).resolution
        found.append(ModelEntry(TIMM + name, "timm", str(size), "timm", summary))
    return found


@contextlib.contextmanager
def _fused(timm: Any, wanted: bool) -> Iterator[None]:
    """Fused or plain attention in what timm builds meanwhile: it reads a global."""
    config = timm.layers.config
    before = config._USE_FUSED_ATTN
    timm.layers.set_fused_attn(wanted)
    try:
        yield
    finally:
        config._USE_FUSED_ATTN = before


def named(error: BaseException) -> str:
    """An exception's class, and the first line of what it says, as a sentence."""
    return f"{type(error).__name__}: {first_line(error)}."
