"""Whether an error says that the device's memory was used up."""

from __future__ import annotations

import torch

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


def memory_error(error: BaseException | None, on_gpu: bool) -> BaseException | None:
    """The error in the chain that says that the device's memory was used up.

    On a GPU the machine's own memory running out is a failure like any other: a smaller batch is
    not what the GPU asks for.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error)
        if on_gpu and (
            isinstance(error, torch.OutOfMemoryError)
            or any(said in text for said in _OUT_OF_MEMORY)
        ):
            return error
        if not on_gpu and (
            isinstance(error, MemoryError) or any(said in text for said in _OUT_OF_HOST_MEMORY)
        ):
            return error
        error = error.__cause__ or error.__context__
    return None


def shortage(error: BaseException) -> str:
    """Torch's first sentences: what was asked for, and what was left. The rest is advice."""
    text = " ".join(str(error).split()) or type(error).__name__
    return ". ".join(text.split(". ")[:3])
