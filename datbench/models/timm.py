"""Backbones with the methods and attributes that timm's tools expect of a model.

Their weights have the names of `datbench.create_model`'s, so that `datbench.load_checkpoint` and
checkpoints of either kind serve both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from ..setting import ATTENTIONS, MIN_SIDE, Attention
from .config import Pyramid
from .pyramid import Head, PyramidBackbone
from .spec import ModelSpec

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

STAGES = 4


def build(
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
        cache_dir: of no use, as there is nothing to download.
        num_classes: width of the classifier; 0 for pooled features.
        img_size: checked only: any input of at least 32x32 runs, and bias tables keep the size
            that the variant was trained at.
        out_indices: with `features_only`, the stages (from 0, or from the end if negative) whose
            maps to return, in this order; a number takes the last so many.

    Raises:
        UsageError: an argument asks for what there is not; the message says what to do.
    """
    if pretrained:
        raise UsageError(
            f"no weights of {spec.name} are hosted: create it with pretrained=False, then "
            "datbench.load_checkpoint(model, file)."
        )
    from timm.models import resolve_pretrained_cfg

    overlay = dict(pretrained_cfg_overlay or {})
    resolved: Any = resolve_pretrained_cfg(spec.name, pretrained_cfg, overlay)
    cfg: dict[str, Any] = resolved.to_dict()
    classes = cfg["num_classes"] if num_classes is None else num_classes
    channels = cfg["input_size"][0] if in_chans is None else in_chans
    _check(spec.name, channels, img_size, drop_rate, drop_path_rate, global_pool, attention)
    if out_indices is not None and not features_only:
        raise UsageError("out_indices chooses feature maps: pass features_only=True with it.")
    config = replace(spec.config, drop_path=drop_path_rate)
    with nullcontext() if device is None else torch.device(device):
        model = (
            TimmFeatures(config, out_indices, attention)
            if features_only
            else TimmClassifier(config, classes, attention)
        )
    absent = ("num_classes", "classifier") if features_only else ()
    described: Any = model
    described.pretrained_cfg = {key: cfg[key] for key in cfg if key not in absent}
    described.default_cfg = described.pretrained_cfg  # its older name
    described.pretrained_model_args = dict(pretrained_model_args or {})
    return model if dtype is None else model.to(dtype)


def _check(
    name: str,
    channels: int,
    img_size: int | Sequence[int] | None,
    drop_rate: float,
    drop_path_rate: float,
    global_pool: str,
    attention: str,
) -> None:
    """Refuse what timm's own models may offer and these do not."""
    if channels != 3:
        raise UsageError(f"{name} takes images of 3 channels, not in_chans={channels}.")
    if drop_rate:
        raise UsageError(f"{name} has no dropout: leave drop_rate at 0; drop_path_rate is built.")
    if not 0 <= drop_path_rate < 1:
        raise UsageError(f"drop_path_rate {drop_path_rate}: write a rate from 0 to below 1.")
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


class TimmClassifier(PyramidBackbone):
    """A backbone with its head, (B, 3, H, W) -> (B, classes)."""

    def __init__(self, config: Pyramid, num_classes: int, attention: Attention) -> None:
        _check_classes(num_classes)
        # Without classes, the linear layer is made for one and taken out again.
        super().__init__(replace(config, classes=max(num_classes, 1)), attention=attention)
        self.in_chans = 3
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = config.stages[-1].dim
        self.drop_rate = 0.0
        self.global_pool = "avg"
        self.feature_info = _features(config)
        if num_classes == 0:
            self.reset_classifier(0)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last stage's normalised map: (B, 3, H, W) -> (B, C, H/32, W/32)."""
        x = self.embed(x)
        for stage in self.stages:
            x = stage(x)
        x = self._head().norm(x)
        return x.permute(0, 3, 1, 2)  # (B, C, H/32, W/32)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, H/32, W/32) -> (B, classes), or (B, C) before the classifier."""
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (B, C)
        if pre_logits:
            return x
        logits: Tensor = self._head().linear(x)
        return logits

    def get_classifier(self) -> nn.Module:
        return self._head().linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier with fresh weights, or none for 0 classes."""
        _check_classes(num_classes)
        _check_pool(global_pool)
        head, weight = self._head(), self._head().norm.weight
        if num_classes:
            head.linear = nn.Linear(
                self.num_features, num_classes, device=weight.device, dtype=weight.dtype
            )
            self.config = replace(self.config, classes=num_classes)
        else:
            head.linear = nn.Identity()
        self.num_classes = num_classes

    def _head(self) -> Head:
        assert self.head is not None
        return self.head


class TimmFeatures(PyramidBackbone):
    """A backbone that returns some stages' normalised maps; stages after the last do not run."""

    def __init__(
        self, config: Pyramid, out_indices: int | Sequence[int] | None, attention: Attention
    ) -> None:
        from timm.models._features import FeatureInfo

        super().__init__(config, features=True, attention=attention)
        self.in_chans = 3
        self.out_indices = _stages(out_indices)
        self.feature_info = FeatureInfo(_features(config), self.out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        assert self.norms is not None
        x = self.embed(x)
        maps: dict[int, Tensor] = {}
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = stage(x)
            if i in self.out_indices:
                maps[i] = norm(x).permute(0, 3, 1, 2)  # (B, C_i, H_i, W_i)
            if i == max(self.out_indices):
                break
        return [maps[i] for i in self.out_indices]


def _features(config: Pyramid) -> list[dict[str, Any]]:
    """Each stage's map as timm describes it."""
    return [
        {"num_chs": stage.dim, "reduction": 4 << i, "module": f"stages.{i}"}
        for i, stage in enumerate(config.stages)
    ]


def _stages(out_indices: int | Sequence[int] | None) -> tuple[int, ...]:
    """Stages from 0, as many as asked for and in that order."""
    if out_indices is None:
        return tuple(range(STAGES))
    wanted = range(-out_indices, 0) if isinstance(out_indices, int) else out_indices
    if not wanted or not all(-STAGES <= i < STAGES for i in wanted):
        raise UsageError(f"out_indices {out_indices}: there are stages 0 to {STAGES - 1}.")
    return tuple(i % STAGES for i in wanted)


def _check_classes(num_classes: int) -> None:
    if num_classes < 0:
        raise UsageError(f"num_classes {num_classes}: write 0 or more.")


# Our variants among timm's: `timm.create_model("dat_t")` after `import datbench.models`.
#
# Neither timm nor torch is imported for it. Where timm is not loaded yet, a finder waits at the
# front of `sys.meta_path` for its model package, lets the usual finders find it, registers once it
# was executed, and goes. Importing timm never fails because of it: what goes wrong is logged.


__all__ = ["install"]  # timm appends the names that it registers

_REGISTRY_HOME = "timm.models"

default_cfgs: dict[str, dict[str, Any]] = {}
"""What timm looks up beside an entry point, by name."""


def install() -> None:
    """Register now if timm is loaded, else as soon as it is."""
    if sys.modules.get(_REGISTRY_HOME) is not None:
        _register_or_log()
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())


def register() -> None:
    """Give timm an entry point for every variant whose name it does not have yet."""
    from timm.models import is_model, register_model

    from .dat import REGISTRY

    for spec in REGISTRY:
        if not is_model(spec.name):
            default_cfgs[spec.name] = _default_cfg(spec)
            globals()[spec.name] = register_model(_entry_point(spec))


def _register_or_log() -> None:
    try:
        register()
    except Exception as error:  # whatever it is, it is no reason for timm not to load
        import logging  # logged, not warned of: a warning may be an error here

        logging.getLogger("datbench").warning(
            "timm does not get datbench's models: %s: %s", type(error).__name__, error
        )


def _default_cfg(spec: ModelSpec) -> dict[str, Any]:
    """A model as timm describes it; mean, deviation and crop are its defaults, ImageNet's."""
    size = spec.resolution
    return {
        "input_size": (3, size.height, size.width),
        "min_input_size": (3, 32, 32),
        "num_classes": spec.config.classes,
        "first_conv": "stem.0",
        "classifier": "head.linear",
        "description": spec.summary,
    }


def _entry_point(spec: ModelSpec) -> Callable[..., nn.Module]:
    """The function that timm calls; timm takes its name for the model's."""

    def entry_point(pretrained: bool = False, **options: Any) -> nn.Module:

        return build(spec, pretrained, **options)

    entry_point.__name__ = entry_point.__qualname__ = spec.name
    entry_point.__doc__ = f"{spec.summary} ({spec.source})."
    return entry_point


class _AfterTimm:
    """A finder of timm's model package that adds what is done after its execution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _REGISTRY_HOME:
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(fullname, path, target) if find else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = cast(Any, _Loader(spec.loader, self))
                return spec
        return None

    def leave(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class _Loader:
    """Another loader, which the module gets back before its code runs."""

    def __init__(self, loader: Any, finder: _AfterTimm) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._finder.leave()
        _register_or_log()
