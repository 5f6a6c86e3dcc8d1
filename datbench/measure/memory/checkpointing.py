"""Activation checkpointing: blocks that run again in the backward instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import UsageError
from ...ledger import Checkpointing
from ...models.pyramid import StageModule


@contextmanager
def checkpointed(model: nn.Module, how: Checkpointing | None) -> Iterator[None]:
    """The model with its blocks checkpointed inside; as it was afterwards.

    Ours have each block checkpointed, without re-entering autograd. Others do what their own
    `set_grad_checkpointing` does.

    Raises:
        UsageError: others', and they cannot be checkpointed.
    """
    if how is None:
        yield
        return
    ours = [module for module in model.modules() if isinstance(module, StageModule)]
    if not ours:
        switch = _switch(model)
        switch(True)
        try:
            yield
        finally:
            switch(False)
        return
    for stage in ours:
        # The blocks themselves are called, so that hooks see them run again.
        stage.blocks.forward = _each_checkpointed(stage.blocks)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for stage in ours:
            del stage.blocks.forward


def _each_checkpointed(blocks: nn.Sequential) -> Any:
    def forward(x: Tensor) -> Tensor:
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    return forward


def _switch(model: nn.Module) -> Any:
    """The model's own way of turning it on and off, which it is known to take.

    Raises:
        UsageError: it has none.
    """
    own = getattr(model, "set_grad_checkpointing", None)
    try:
        if callable(own):
            own(False)
            own(True)
            own(False)
            return own
    except (AssertionError, NotImplementedError, TypeError):
        pass  # timm's models without checkpointing refuse to turn it on
    raise UsageError(
        f"--checkpointing: {type(model).__qualname__} cannot be checkpointed: it has neither "
        "blocks of ours nor a set_grad_checkpointing() that takes True."
    )
