"""Models that take something else than one image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 8, 3, padding=1, bias=False)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.conv(left) * self.conv(right)


class Batch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"out": self.conv(batch["image"])}


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(100, 8), nn.Linear(8, 8, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.mix(self.embed(ids))


class Captioned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.conv = Words(), conv()

    def forward(self, pixels: Tensor, ids: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.conv(pixels).mean() + scale * self.words(ids).mean()


class Digits(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 14 * 14, 10)
        )


class Clip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 5)

    def forward(self, *, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.linear(x)
        return y if mask is None else y * mask


class Sized(nn.Module):
    """Pads images to the sizes that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, image: Tensor, sizes: list[int]) -> Tensor:
        return self.conv(nn.functional.pad(image, (0, sizes[1], 0, sizes[0])))


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        return [self.conv(image[None]) for image in images]


@dataclass
class Found:
    logits: Tensor


class Answers(nn.Module):
    """Returns a dataclass; it says its input itself."""

    example_inputs: ClassVar = {"x": torch.zeros(2, 4)}

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Found:
        return Found(self.linear(x))


class Keeps(nn.Module):
    """Keeps the tokens above 0: what it computes depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x[x.sum(-1) > 0])


def volume() -> tuple[nn.Module, Callable[[int, int, int], Tensor]]:
    """With its inputs, which depend on the size."""
    net = nn.Conv3d(1, 2, 3, padding=1, bias=False)
    return net, lambda batch, height, width: torch.zeros(batch, 1, 4, height, width)


class Late(nn.Module):
    """Makes its head in the first forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 4, 3), nn.LazyLinear(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


def half() -> nn.Module:
    return Named().to(torch.bfloat16)


def bilinear() -> nn.Module:
    return nn.Bilinear(3, 4, 5)


bilinear.example_inputs = (torch.zeros(2, 3), torch.zeros(2, 4))  # type: ignore[attr-defined]
