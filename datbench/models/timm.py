"""The variants as timm's models: `timm.create_model("dat_t")` after `datbench.register_timm()`.

They have the methods and attributes that timm's tools expect of a model. Their weights have the
names of `datbench.create_model`'s, so `datbench.load_checkpoint` and checkpoints of either kind
serve both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import wraps
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import LibraryError, UsageError, first_line
from ..setting import ATTENTIONS, MIN_SIDE, Attention
from .config import Pyramid
from .dat import REGISTRY
from .layers import NO_SCRIPT
from .pyramid import Head, PyramidBackbone
from .spec import ModelSpec, variant

__all__ = ["register_timm"]  # timm appends the names that it registers

STAGES = 4

default_cfgs: dict[str, dict[str, Any]] = {}
"""What timm looks up beside an entry point, by name."""


def load_timm() -> Any:
    """timm, imported.

    Raises:
        LibraryError: it is not installed, or its torchvision does not fit torch.
    """
    try:
        # Torch 2.6 does not import its compiler, as timm does, where meta is the default.
        with torch.device("cpu"), _compiler_later():
            import timm
    except ModuleNotFoundError as error:
        raise LibraryError(
            f"this needs timm, and {error.name} is not installed: pip install timm torchvision."
        ) from error
    except Exception as error:  # a torchvision of another torch fails in several ways
        raise LibraryError(
            f"timm cannot be loaded: {first_line(error)}. Its torchvision was probably built for "
            f"another torch than {torch.__version__}: reinstall the two together, "
            "pip install --force-reinstall torch torchvision. Everything else works without timm."
        ) from error
    return timm


@contextmanager
def _compiler_later() -> Iterator[None]:
    """Keep timm and its torchvision from importing torch's compiler, which takes as long as torch
    itself: they only mark functions for it and ask it a question, and can do so when they run.
    """
    name = "torch._dynamo.utils"
    if name in sys.modules:
        yield
        return
    utils: Any = ModuleType(name)
    utils.is_compile_supported = lambda device: import_module(name).is_compile_supported(device)
    compiler: Any = torch.compiler
    before = compiler.disable

    def disable(function: Any = None, *given: Any, **options: Any) -> Any:
        if not isfunction(function):  # a class, or options alone
            return before(function, *given, **options)
        return wraps(function)(lambda *a, **kw: before(function, *given, **options)(*a, **kw))

    sys.modules[name] = utils
    compiler.disable = disable
    try:
        yield
    finally:
        compiler.disable = before
        if sys.modules.get(name) is utils:
            del sys.modules[name]


def register_timm() -> None:
    """Give timm an entry point for every variant whose name it does not have yet.

    Raises:
        LibraryError: timm cannot be loaded.
    """
    models = load_timm().models
    for spec in REGISTRY.values():
        if not models.is_model(spec.name):
            size = spec.resolution
            # Mean, deviation and crop are timm's defaults, ImageNet's.
            default_cfgs[spec.name] = {
                "input_size": (3, size.height, size.width),
                "min_input_size": (3, MIN_SIDE, MIN_SIDE),
                "num_classes": spec.config.classes,
                "first_conv": "stem.0",
                "classifier": "head.linear",
                "description": spec.summary,
            }
            models.register_model(_entry_point(spec))


def _entry_point(spec: ModelSpec) -> Callable[..., nn.Module]:
    """The function that timm calls; timm takes its name for the model's."""

    def entry_point(pretrained: bool = False, **options: Any) -> nn.Module:
        return build(spec, pretrained, **options)

    entry_point.__name__ = entry_point.__qualname__ = spec.name
    entry_point.__doc__ = f"{spec.summary} ({spec.source})."
    return entry_point


def build(  # noqa: PLR0913 (what timm passes to a model)
    spec: ModelSpec,
    pretrained: bool = False,
    *,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    pretrained_model_args: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    global_pool: str = "avg",
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    attention: Attention = "eager",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> PyramidBackbone:
    """What a timm entry point returns, for the keyword arguments of `timm.create_model`.

    Args:
        cache_dir: not used, because nothing is downloaded.
        num_classes: width of the classifier; 0 for pooled features.
        in_chans: channels of the image.
        img_size: only checked: any input of at least 32x32 runs, and bias tables keep the size
            that the variant was trained at.
        out_indices: with `features_only`, the stages (from 0, or from the end if negative) whose
            maps to return, in this order. A number n means the last n stages.

    Raises:
        UsageError: an argument asks for something that does not exist; the message says what to do.
    """
    name = spec.name
    if pretrained:
        raise UsageError(
            f"no weights of {name} are hosted: create it with pretrained=False, then "
            "datbench.load_checkpoint(model, file)."
        )
    import timm.layers
    from timm.models import resolve_pretrained_cfg

    layers: Any = timm.layers
    if layers.is_scriptable():  # create_model(..., scriptable=True); exportable=True needs nothing
        raise UsageError(NO_SCRIPT)
    overlay = dict(pretrained_cfg_overlay or {})
    resolved: Any = resolve_pretrained_cfg(name, pretrained_cfg, overlay)
    cfg: dict[str, Any] = resolved.to_dict()
    channels = cfg["input_size"][0] if in_chans is None else in_chans
    _check(name, img_size, drop_rate, global_pool, attention)
    if out_indices is not None and not features_only:
        raise UsageError("out_indices chooses feature maps: pass features_only=True with it.")
    classes = cfg["num_classes"] if num_classes is None else num_classes
    options = {"num_classes": classes, "in_chans": channels, "drop_path": drop_path_rate}
    spec = variant(spec, options)
    with nullcontext() if device is None else torch.device(device):
        model: Any
        if features_only:
            model = TimmFeatures(spec.config, out_indices, attention)
            cfg = {key: cfg[key] for key in cfg if key not in ("num_classes", "classifier")}
        else:
            model = TimmClassifier(spec.config, attention)
    model.pretrained_cfg = model.default_cfg = cfg  # the second is its older name
    model.pretrained_model_args = dict(pretrained_model_args or {})
    return model if dtype is None else model.to(dtype)


class TimmClassifier(PyramidBackbone):
    """A backbone with its head, (B, in_chans, H, W) -> (B, classes)."""

    head: Head

    def __init__(self, config: Pyramid, attention: Attention) -> None:
        super().__init__(config, attention=attention)
        self.num_classes = config.classes
        self.num_features = self.head_hidden_size = config.stages[-1].dim
        self.drop_rate = 0.0
        self.global_pool = "avg"
        self.feature_info = _features(config)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last stage's normalised map: (B, in_chans, H, W) -> (B, C, H/32, W/32)."""
        x = self.embed(x)
        for stage in self.stages:
            x = stage(x)
        x = self.head.norm(x)
        return x.permute(0, 3, 1, 2)  # (B, C, H/32, W/32)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, H/32, W/32) -> (B, classes), or (B, C) before the classifier."""
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (B, C)
        if pre_logits:
            return x
        return self.head.linear(x)

    def get_classifier(self) -> nn.Module:
        return self.head.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier with fresh weights, or none for 0 classes."""
        if num_classes < 0:
            raise UsageError(f"num_classes {num_classes}: write 0 or more.")
        _check_pool(global_pool)
        weight = self.head.norm.weight
        if num_classes:
            self.head.linear = nn.Linear(
                self.num_features, num_classes, device=weight.device, dtype=weight.dtype
            )
        else:
            self.head.linear = nn.Identity()
        self.config = replace(self.config, classes=num_classes)
        self.num_classes = num_classes


class TimmFeatures(PyramidBackbone):
    """A backbone that returns some stages' normalised maps; stages after the last do not run."""

    norms: nn.ModuleList

    def __init__(
        self, config: Pyramid, out_indices: int | Sequence[int] | None, attention: Attention
    ) -> None:
        from timm.models._features import FeatureInfo

        super().__init__(config, features=True, attention=attention)
        self.out_indices = _stages(out_indices)
        self.feature_info = FeatureInfo(_features(config), self.out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.embed(x)
        maps: dict[int, Tensor] = {}
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = stage(x)
            if i in self.out_indices:
                maps[i] = norm(x).permute(0, 3, 1, 2)  # (B, C_i, H_i, W_i)
            if i == max(self.out_indices):
                break
        return [maps[i] for i in self.out_indices]


def _check(
    name: str,
    img_size: int | Sequence[int] | None,
    drop_rate: float,
    global_pool: str,
    attention: str,
) -> None:
    """Refuse what timm's own models may offer and these do not."""
    if drop_rate:
        raise UsageError(f"{name} has no dropout: leave drop_rate at 0; drop_path_rate is built.")
    if attention not in ATTENTIONS:
        raise UsageError(f"attention {attention!r}: choose one of {', '.join(ATTENTIONS)}.")
    _check_pool(global_pool)
    sides = (img_size,) if isinstance(img_size, int) else tuple(img_size or ())
    if len(sides) > 2 or any(side < MIN_SIDE for side in sides):
        raise UsageError(
            f"img_size {img_size}: write one side or (height, width), of at least {MIN_SIDE} "
            "pixels each."
        )


def _check_pool(global_pool: str | None) -> None:
    if global_pool not in (None, "avg"):
        raise UsageError(
            f"global_pool {global_pool!r}: the head averages; forward_features gives the map."
        )


def _features(config: Pyramid) -> list[dict[str, Any]]:
    """Each stage's map as timm describes it."""
    return [
        {"num_chs": stage.dim, "reduction": 4 << i, "module": f"stages.{i}"}
        for i, stage in enumerate(config.stages)
    ]


def _stages(out_indices: int | Sequence[int] | None) -> tuple[int, ...]:
    """Stages from 0, those asked for and in that order."""
    if out_indices is None:
        return tuple(range(STAGES))
    wanted = range(-out_indices, 0) if isinstance(out_indices, int) else out_indices
    if not wanted or not all(-STAGES <= i < STAGES for i in wanted):
        raise UsageError(f"out_indices {out_indices}: there are stages 0 to {STAGES - 1}.")
    return tuple(i % STAGES for i in wanted)
