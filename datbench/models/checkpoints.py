"""Published weights into our modules: which tensor goes where, and what to do if it does not fit.

Layouts (LeapLabTHU/DAT, DAT-Detection, DAT-Segmentation): classification files hold the weights
under ``model``; detector and segmentor files under ``state_dict`` or bare, behind ``backbone.``;
some carry ``module.``.

A `.pth` file is somebody's pickle: it is read with ``weights_only=True``, which builds tensors and
plain containers and refuses everything else before it runs. `.safetensors` holds only tensors.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, UsageError, first_line
from .pyramid import PyramidBackbone
from .records import CheckpointReport, Resized

_CONTAINERS = ("model", "state_dict", "model_state_dict", "model_ema")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a file, on the CPU.

    Raises:
        CheckpointError: there is no such file, or it is damaged, would run code, or has no
            weights in it.
    """
    file = Path(path)
    if not file.is_file():
        exists = "is a directory" if file.is_dir() else "is not a file"
        what = exists if file.exists() else "does not exist"
        raise CheckpointError(f"checkpoint {path} {what}.")
    read = _read_safetensors if file.suffix == ".safetensors" else _read_pickle
    return _named_tensors(path, read(file))


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(
            f"reading {file} needs safetensors: pip install safetensors."
        ) from error
    try:
        return dict(load_file(file))
    except Exception as error:  # safetensors raises its own type, which has no stable home
        raise CheckpointError(f"{file} cannot be read as safetensors: {error}.") from error


def _read_pickle(file: Path) -> object:
    try:
        with warnings.catch_warnings():
            # torch remarks on protocols and layouts; what matters is whether the file can be read.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        if forbidden is None:
            raise _unreadable(file, error) from error
        raise CheckpointError(
            f"{file} is refused: unpickling it would import {forbidden[1]}, which may run code. "
            "Save its weights alone (torch.save of a state_dict, or safetensors)."
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to lead to
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    # Errors of the system and of torch's zip reader speak of the file; an unpickler's do not.
    known = isinstance(error, (OSError, RuntimeError))
    reason = first_line(error) if known else type(error).__name__
    if isinstance(error, pickle.UnpicklingError):
        reason = "torch does not unpickle it safely"
    return CheckpointError(
        f"{file} cannot be read: it is damaged, cut short or no checkpoint ({reason})."
    )


def _named_tensors(path: str | Path, content: object) -> dict[str, Tensor]:
    """The weights inside a file's content: bare, or under one of the usual keys."""
    if isinstance(content, Mapping):
        for key in _CONTAINERS:
            inner = content.get(key)
            if isinstance(inner, Mapping):
                content = inner
                break
        named = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        for name, value in named.items():
            if value.is_quantized or value.is_nested:
                kind = "quantized" if value.is_quantized else "nested"
            elif value.layout is not torch.strided or value.is_meta:
                kind = f"{value.layout}, on {value.device}"
            else:
                continue
            raise CheckpointError(
                f"{path}: {name} is not a plain tensor ({kind}); save dense weights on the CPU."
            )
        if named:
            return named
    raise CheckpointError(
        f"{path} holds no weights: expected tensors by name, bare or under "
        f"{', '.join(_CONTAINERS[:2])}."
    )


_BLOCK = r"stages\.(\d+)"

_BLOCK_PATTERNS = (
    (r"mlps\.(\d+)\.chunk\.(linear[12])\.", r"ffn.\3."),
    (r"mlps\.(\d+)\.(linear[12])\.(?:0\.)?", r"ffn.\3."),
    (r"mlps\.(\d+)\.dwc\.", "ffn.dwconv."),
    (r"local_perception_units\.(\d+)\.", "lpu."),
    (r"attns\.(\d+)\.proj_qkv\.", "mixer.qkv."),
    (r"attns\.(\d+)\.(?:relative_position_bias_table|rpb|rpe_table)$", "mixer.bias_table"),
    (r"attns\.(\d+)\.rpe_table\.", "mixer.position_conv."),
    (r"attns\.(\d+)\.conv_offset\.0\.", "mixer.offset_network.dwconv."),
    (r"attns\.(\d+)\.conv_offset\.1\.norm\.", "mixer.offset_network.norm."),
    (r"attns\.(\d+)\.conv_offset\.3\.", "mixer.offset_network.out."),
    (r"attns\.(\d+)\.(?:proj_out|proj)\.", "mixer.out."),
    (r"attns\.(\d+)\.(?:proj_q|q)\.", "mixer.query."),
    (r"attns\.(\d+)\.proj_k\.", "mixer.key."),
    (r"attns\.(\d+)\.proj_v\.", "mixer.value."),
    (r"attns\.(\d+)\.kv\.", "mixer.key_value."),
    (r"attns\.(\d+)\.proj_ds\.0\.", "mixer.reduce.0."),
    (r"attns\.(\d+)\.proj_ds\.1\.norm\.", "mixer.reduce.1."),
    (r"attns\.(\d+)\.proj_off\.", "mixer.offsets."),
    (r"attns\.(\d+)\.proj_att\.", "mixer.weights."),
    (r"attns\.(\d+)\.", "mixer."),
)
"""Below a published stage, and below our block."""

PATTERNS: tuple[tuple[str, str], ...] = (
    (r"patch_proj\.(\d+)\.norm\.", r"stem.\1."),
    (r"patch_proj\.(\d+)\.", r"stem.\1."),
    (rf"{_BLOCK}\.proj\.", r"stages.\1.projection."),
    *((rf"{_BLOCK}\.{key}", rf"stages.\1.blocks.\2.{ours}") for key, ours in _BLOCK_PATTERNS),
    (r"norms\.(\d+)\.norm\.", r"norms.\1."),
    (r"cls_norm\.norm\.", r"head.norm."),
    (r"cls_head\.", r"head.linear."),
)
"""Published key (a regular expression matched at the start) to our key; the first match wins."""

_COMPUTED = ("relative_position_index", "attn_mask", "q_grid", "reference")
"""Buffers of the published layouts that we compute: accepted in a file, never required."""


def load_checkpoint(model: PyramidBackbone, path: str | Path) -> CheckpointReport:
    """Load published (or our own) weights into `model`, wholly or not at all.

    Args:
        model: from `create_model`; a backbone with `features_only` too.
        path: a `.pth` file, read with ``weights_only=True``, or a `.safetensors` file.

    Raises:
        CheckpointError: the file cannot be read safely, or belongs to another model; the message
            names the first differences and `model` is unchanged.
        UsageError: `model` is on meta.
    """
    tensors, report = match_checkpoint(model, path)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise UsageError("a model on meta holds no weights; build it on a device to load into it.")
    model.load_state_dict(tensors, strict=False)
    return report


def match_checkpoint(
    model: PyramidBackbone, path: str | Path
) -> tuple[dict[str, Tensor], CheckpointReport]:
    """What `load_checkpoint` would load, without touching `model` (which may be on meta).

    Returns:
        Tensors under our names, and the report.
    """
    weights = read_weights(path)
    keys, outside = _backbone_part(weights)
    ours = model.state_dict()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    tensors: dict[str, Tensor] = {}
    resized: list[Resized] = []
    ignored = list(outside)
    problems: list[str] = []
    for inner, key in keys.items():
        value, name = weights[key], inner if inner in ours else _translate(inner)
        target = ours.get(name)
        if name in tensors:
            problems.append(f"{key} is in the file twice, under two names")
        elif target is not None and (fitted := _fit(name, value, target)) is not None:
            tensors[name] = fitted
            if fitted.numel() != value.numel():
                resized.append(Resized(name, tuple(value.shape), tuple(target.shape)))
        elif key.rsplit(".", 1)[-1] in _COMPUTED or _other_head(name, model):
            ignored.append(key)
        elif target is None:
            problems.append(f"{key} {tuple(value.shape)} is not in the model")
        elif not value.is_floating_point():
            problems.append(f"{key} is {value.dtype} in the file, {target.dtype} in the model")
        else:
            problems.append(
                f"{key} is {tuple(value.shape)} in the file, {tuple(target.shape)} in the model"
            )
    missing = [name for name in ours if name not in tensors]
    # Layouts may lack the head or the dense norms.
    kept = [name for name in missing if name in frozen or name.startswith(("head.", "norms."))]
    problems += [f"{name} is not in the file" for name in missing if name not in kept]
    if problems:
        shown = "; ".join(problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path} is a checkpoint of another model: {shown}{more}.")
    changed = {item.name for item in resized}
    return tensors, CheckpointReport(
        str(path),
        tuple(name for name in tensors if name not in changed),
        tuple(resized),
        tuple(ignored),
        tuple(kept),
    )


def _translate(key: str) -> str:
    """Our name of a published key; the key itself if it matches none."""
    # Norms and scales are numbered through a stage: two for each block.
    for pattern, ours in (
        (r"layer_norms\.(\d+)\.norm\.(.*)", "norm"),
        (r"layer_scales\.(\d+)\.(?:weight|gamma)($)", "scale"),
    ):
        if pair := re.match(rf"{_BLOCK}\.{pattern}", key):
            block, which = divmod(int(pair[2]), 2)
            return f"stages.{pair[1]}.blocks.{block}.{ours}{which + 1}.{pair[3] or 'weight'}"
    down = re.match(r"down_projs\.(\d+)\.(\d+)\.(?:norm\.)?(.*)", key)
    if down:
        return f"stages.{int(down[1]) + 1}.downsample.{down[2]}.{down[3]}"
    for pattern, ours in PATTERNS:
        name, found = re.subn(rf"^{pattern}", ours, key)
        if found:
            return name
    return key


def _backbone_part(keys: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The file's keys by their names in the backbone, and those of other parts (neck, heads)."""
    named = {key: key for key in keys}
    if all(key.startswith("module.") for key in named):
        named = {key.removeprefix("module."): key for key in named}
    prefix = "backbone."
    inside = {name: key for name, key in named.items() if name.startswith(prefix)}
    if not inside:
        return named, []
    outside = [key for name, key in named.items() if name not in inside]
    return {name.removeprefix(prefix): key for name, key in inside.items()}, outside


def _other_head(name: str, model: PyramidBackbone) -> bool:
    """Whether `name` is the top of the other kind of model: a head here, dense norms there.

    A head may have lost its classifier.
    """
    if model.head is None:
        return name.startswith("head.")
    bare = not isinstance(model.head.linear, nn.Linear)
    return name.startswith("norms.") or (bare and name.startswith("head.linear."))


def _fit(name: str, value: Tensor, target: Tensor) -> Tensor | None:
    """`value` in `target`'s shape, or None if it is something else."""
    if not value.is_floating_point() or not value.numel():
        return None
    if value.shape == target.shape:
        return value
    if value.ndim == 4 and target.ndim == 2 and value.shape == (*target.shape, 1, 1):
        return value.flatten(1)  # a 1x1 convolution (out, in, 1, 1) -> linear (out, in)
    if not name.endswith(".bias_table") or value.ndim != target.ndim:
        return None
    if value.ndim == 3:  # (M, side, side): deformable attention
        square = value.shape[1] == value.shape[2] and target.shape[1] == target.shape[2]
        if value.shape[0] != target.shape[0] or not square or "mixer" not in name:
            return None
        return _bicubic(value, target.shape[1])
    side, now = _root(value.shape[0]), _root(target.shape[0])
    if value.shape[1] != target.shape[1] or side is None or now is None:
        return None
    heads = value.shape[1]
    maps = value.t().reshape(heads, side, side)  # (side^2, M) -> (M, side, side)
    return _bicubic(maps, now).reshape(heads, now * now).t()


def _bicubic(table: Tensor, side: int) -> Tensor:
    """(M, s, s) -> (M, side, side), as the published loader does it."""
    resized = F.interpolate(table[None].float(), (side, side), mode="bicubic", align_corners=False)
    return resized[0].to(table.dtype)


def _root(number: int) -> int | None:
    root = round(number**0.5)
    return root if root * root == number else None
