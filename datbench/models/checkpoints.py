"""Published weights into our modules: which tensor goes where, and what to do if it does not fit.

Layouts (LeapLabTHU/DAT, DAT-Detection, DAT-Segmentation): classification files hold the weights
under ``model``; detector and segmentor files under ``state_dict`` or bare, behind ``backbone.``.
Other trainers have other words for both, and several sets of weights in a file. So there is no
list of words here: weights are where the keys of stages are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn, strided

from ..errors import CheckpointError, UsageError, warn
from .pyramid import PyramidBackbone
from .records import CheckpointReport, Resized
from .weight_files import StandIn, Weights, read_dictionaries

_WRAPPERS = r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
"""What torch.compile, FSDP and checkpoint_wrapper put into names, at any depth."""

_AVERAGES = r"(?i)(?<![^._])(?:ema|swa|avg|averaged?|momentum|teacher|target)(?![^._])"
"""Weights that average those that were trained: read where they are chosen, or alone."""

_STAGE = re.compile(r"((?:.*?\.)?)stages\.\d+\.")


@dataclass(frozen=True)
class WeightSet:
    """Weights of one model in a file: what a dictionary has behind one prefix."""

    place: str  # keys and prefix, such as state_dict.backbone; empty for bare weights
    values: Weights
    inner: dict[str, str]  # the name behind the prefix, by key; other keys are of other parts

    def named(self, ours: Collection[str]) -> dict[str, str]:
        """Our name of each key; where we have none, the file's."""
        return {key: n if n in ours else _translate(n) for key, n in self.inner.items()}


def weight_sets(path: str | Path) -> list[WeightSet]:
    """The weights in a file.

    Raises:
        CheckpointError: it cannot be read, or has no weights of such a model in it.
    """
    found = [each for place in read_dictionaries(path) for each in _sets(*place)]
    if not found:
        raise CheckpointError(
            f"{path} holds no weights of such a model: expected tensors by name, as in a "
            "state_dict(), and stages.0 and so on in the names."
        )
    return found


def _sets(keys: tuple[str, ...], values: Weights) -> Iterator[WeightSet]:
    """The weights of a dictionary: one set for each prefix that stages have."""
    plain = {key: re.sub(_WRAPPERS, "", key) for key in values}
    prefixes = dict.fromkeys(m[1] for name in plain.values() if (m := _STAGE.match(name)))
    for prefix in prefixes:
        # mmpretrain has the classifier beside the backbone.
        beside = f"{prefix.removesuffix('backbone.')}head.fc."
        inner = {}
        for key, name in plain.items():
            longest = max((each for each in prefixes if name.startswith(each)), key=len, default="")
            if longest == prefix and "." in name[len(prefix) :]:  # a counter has no dot
                inner[key] = name[len(prefix) :]
            elif name.startswith(beside):
                inner[key] = f"head.fc.{name[len(beside) :]}"
        place = ".".join([*keys, *prefix.split(".")[:-1]])
        yield WeightSet(place, values, inner)


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
    (r"(?:cls_head|head\.fc)\.", r"head.linear."),
)
"""Published key (a regular expression matched at the start) to our key; the first match wins."""

_COMPUTED = ("relative_position_index", "attn_mask", "q_grid", "reference")
"""Buffers of the published layouts that we compute: accepted in a file, never required."""


def load_checkpoint(
    model: PyramidBackbone, path: str | Path, weights: str | None = None, head: bool = True
) -> CheckpointReport:
    """Load published (or our own) weights into `model`, wholly or not at all.

    Args:
        model: from `create_model`; a backbone with `features_only` too.
        path: a `.pth` file, of which nothing is run, or a `.safetensors` file.
        weights: which of a file's weights, by a key or prefix in it such as ``model_ema``. By
            default those that fit best and are not an average (EMA, teacher).
        head: whether the classifier has to fit; otherwise one of another size is left as it is.

    Raises:
        CheckpointError: the file cannot be read, or belongs to another model; the message
            names the first differences and `model` is unchanged.
        UsageError: `model` is on meta, or the file has no such weights.
    """
    tensors, report = match_checkpoint(model, path, weights, head)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise UsageError("a model on meta holds no weights; build it on a device to load into it.")
    model.load_state_dict(tensors, strict=False)
    return report


def match_checkpoint(
    model: PyramidBackbone, path: str | Path, weights: str | None = None, head: bool = True
) -> tuple[dict[str, Tensor], CheckpointReport]:
    """What `load_checkpoint` would load, without touching `model` (which may be on meta).

    Returns:
        Tensors under our names, and the report.
    """
    ours = model.state_dict()
    found, notes = _chosen(path, weights, ours)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    tensors: dict[str, Tensor] = {}
    resized: list[Resized] = []
    ignored = [key for key in found.values if key not in found.inner]
    problems: dict[str, str] = {}  # by our name
    for key, name in found.named(ours).items():
        value, target = found.values[key], ours.get(name)
        if name in tensors:
            problems[name] = f"{key} is in the file twice, under two names"
        elif target is not None and (fitted := _fit(name, value, target)) is not None:
            tensors[name] = fitted
            if fitted.numel() != value.numel():
                resized.append(Resized(name, tuple(value.shape), tuple(target.shape)))
        elif key.rsplit(".", 1)[-1] in _COMPUTED or _other_head(name, model):
            ignored.append(key)
        elif not head and target is not None and name.startswith("head.linear."):
            ignored.append(key)
            note = f"not read: {_difference(path, key, name, value, target)}."
            notes += [note] if name.endswith("weight") else []
        else:
            problems[name] = _difference(path, key, name, value, target)
    missing = [name for name in ours if name not in tensors]
    # Layouts may lack the head or the dense norms.
    kept = [name for name in missing if name in frozen or name.startswith(("head.", "norms."))]
    lost = [name for name in missing if name not in kept and name not in problems]
    problems |= {name: f"{name} is not in the file" for name in lost}
    if problems:
        shown = "; ".join([*problems.values()][:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path} is a checkpoint of another model: {shown}{more}.")
    odd = [name for name, x in tensors.items() if not x.to(ours[name].dtype).isfinite().all()]
    notes += [f"values of {name} are not finite (NaN or infinite)." for name in odd[:1]]
    for note in notes:
        warn(f"{path}: {note}")
    changed = {item.name for item in resized}
    return tensors, CheckpointReport(
        str(path),
        tuple(name for name in tensors if name not in changed),
        tuple(resized),
        tuple(ignored),
        tuple(kept),
        found.place,
        tuple(notes),
    )


def _chosen(
    path: str | Path, asked: str | None, ours: Collection[str]
) -> tuple[WeightSet, list[str]]:
    """The weights to read, and a note of others that may have been meant.

    Raises:
        UsageError: there are none under this key.
    """

    def rank(each: WeightSet) -> tuple[bool, int]:
        foreign = sum(isinstance(each.values[key], StandIn) for key in each.inner)
        differences = set(each.named(ours).values()).symmetric_difference(ours)
        return re.search(_AVERAGES, each.place) is not None, foreign + len(differences)

    sets = weight_sets(path)
    found = [each for each in sets if asked is None or f".{asked}." in f".{each.place}."]
    if not found:
        known = ", ".join(each.place or "bare ones" for each in sets)
        raise UsageError(f"{path} has no weights under {asked!r}; it has {known}.")
    best = min(found, key=rank)
    others = ", ".join(each.place or "bare ones" for each in found if each is not best)
    which = f"of several weights {best.place or 'bare ones'} are read, not {others}"
    choose = "choose with --weights KEY, in Python weights=KEY"
    return best, [f"{which}; {choose}."] if others else []


def _difference(path: str | Path, key: str, name: str, value: Any, target: Tensor | None) -> str:
    """Why a tensor of the file does not go where its name says.

    Raises:
        CheckpointError: it has no values that could be read.
    """
    if kind := _unusual(value):
        raise CheckpointError(
            f"{path}: {key} is not a plain tensor ({kind}); save dense weights on the CPU."
        )
    was = tuple(value.shape)
    if target is None:
        return f"{key} {was} is not in the model"
    if not value.is_floating_point():
        return f"{key} is {value.dtype} in the file, {target.dtype} in the model"
    now, option = tuple(target.shape), ""
    if name == "head.linear.weight" and was[1:] == now[1:]:  # (classes, C)
        option = f" (name it as in dat_t,num_classes={was[0]})"
    elif name == "stem.0.weight" and was[:1] + was[2:] == now[:1] + now[2:]:  # (C, channels, k, k)
        option = f" (name it as in dat_t,in_chans={was[1]})"
    return f"{key} is {was} in the file, {now} in the model{option}"


def _unusual(value: Any) -> str:
    """The kind of a tensor whose values cannot be copied; empty for all others."""
    if isinstance(value, StandIn):
        return value.path
    if value.is_quantized or value.is_nested:
        return "quantized" if value.is_quantized else "nested"
    plain = value.layout is strided and not value.is_meta
    return "" if plain else f"{value.layout}, on {value.device}"


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


def _other_head(name: str, model: PyramidBackbone) -> bool:
    """Whether `name` is the top of the other kind of model: a head here, dense norms there.

    A head may have lost its classifier.
    """
    if model.head is None:
        return name.startswith("head.")
    bare = not isinstance(model.head.linear, nn.Linear)
    return name.startswith("norms.") or (bare and name.startswith("head.linear."))


def _fit(name: str, value: Any, target: Tensor) -> Tensor | None:
    """`value` in `target`'s shape, or None if it is something else."""
    if _unusual(value) or not value.is_floating_point() or not value.numel():
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
