"""The detectors and segmentors that a backbone can have, by name. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import UnknownNameError, UsageError
from ...setting import Resolution
from ..spec import CONFIG

JOINT = "+"
"""Between a backbone's name and a head's: ``dat_t+retinanet``."""

MIN_SIDE = 64
"""Smallest side in pixels: the coarsest level of a pyramid (stride 64) keeps one."""

COCO = Resolution(1280, 800)

ADE20K = Resolution(2048, 512)  # 512x2048 as mmseg writes it, height first


@dataclass(frozen=True)
class HeadSpec:
    """A detector or segmentor."""

    name: str
    summary: str
    resolution: Resolution  # the input that the papers' figures belong to
    start: int = 0  # the first of the four maps that it takes, from 0


HEADS: Mapping[str, HeadSpec] = {
    head.name: head
    for head in (
        HeadSpec("retinanet", "FPN P3 to P7 and RetinaNet's two towers", COCO, start=1),
        HeadSpec(
            "mask_rcnn", "FPN P2 to P6, RPN, a box head of two linear layers, a mask head", COCO
        ),
        HeadSpec(
            "cascade_mask_rcnn",
            "FPN P2 to P6, RPN, three stages of a 4conv1fc box head and a mask head",
            COCO,
        ),
        HeadSpec("semantic_fpn", "FPN P2 to P5 and Semantic FPN's head", ADE20K),
        HeadSpec(
            "upernet",
            "pyramid pooling, FPN and fusion of 512 channels; an auxiliary FCN head in training",
            ADE20K,
        ),
    )
}


def join(name: str, head: str) -> str:
    """The name of `head` on the model called `name`.

    Raises:
        UnknownNameError: there is no such head.
        UsageError: the model has one already.
    """
    find(head)
    if split(name) is not None:
        raise UsageError(f"{name} has a head already; leave out +{head}.")
    return f"{name}{JOINT}{head}"


def split(name: str) -> tuple[str, str] | None:
    """The backbone's name and the head's, at the last ``+``; None for a backbone without a head.

    A ``+`` inside a backbone's options or a file's name (``config:a+b.yaml``) is not one of ours:
    a head is a plain word, and a file that is there under the whole name is that file.
    """
    if name.startswith(CONFIG) and Path(name[len(CONFIG) :]).is_file():
        return None
    backbone, joint, head = name.rpartition(JOINT)
    if backbone.endswith(JOINT) and head not in HEADS:  # dat++_t
        return None
    return (backbone, head) if joint and head.isidentifier() else None


def find(name: str) -> HeadSpec:
    """The head called `name`.

    Raises:
        UnknownNameError: there is none; the message suggests the closest names.
    """
    if name not in HEADS:
        raise UnknownNameError.among("head", name, HEADS)
    return HEADS[name]
