"""Models that take something else than one image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .nets import Net, conv


class Pair(Net, conv=conv):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.conv(left) * self.conv(right)


class Batch(Net, conv=conv):
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"out": self.conv(batch["image"])}


class Words(Net, embed=lambda: nn.Embedding(100, 8), mix=lambda: nn.Linear(8, 8, bias=False)):
    def forward(self, ids: Tensor) -> Tensor:
        return self.mix(self.embed(ids))


class Captioned(Net, words=Words, conv=conv):
    def forward(self, pixels: Tensor, ids: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.conv(pixels).mean() + scale * self.words(ids).mean()


class Digits(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 14 * 14, 10)
        )


def clip() -> nn.Conv3d:
    return nn.Conv3d(3, 4, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False)


class Named(Net, linear=lambda: nn.Linear(4, 5)):
    def forward(self, *, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.linear(x)
        return y if mask is None else y * mask


class Sized(Net, conv=conv):
    """Pads images to the sizes that it is told."""

    def forward(self, image: Tensor, sizes: list[int]) -> Tensor:
        return self.conv(nn.functional.pad(image, (0, sizes[1], 0, sizes[0])))


class Detector(Net, conv=conv):
    def forward(self, images: list[Tensor]) -> list[Tensor]:
        return [self.conv(image[None]) for image in images]


@dataclass
class Found:
    logits: Tensor


class Answers(Net, linear=lambda: nn.Linear(4, 5)):
    """Returns a dataclass; it says its input itself."""

    example_inputs: ClassVar = {"x": torch.zeros(2, 4)}

    def forward(self, x: Tensor) -> Found:
        return Found(self.linear(x))


class Keeps(Net, linear=lambda: nn.Linear(4, 5)):
    """Keeps the tokens above 0: what it computes depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x[x.sum(-1) > 0])


def volume() -> tuple[nn.Module, Callable[[int, int, int], Tensor]]:
    """With its inputs, which depend on the size."""
    net = nn.Conv3d(1, 2, 3, padding=1, bias=False)
    return net, lambda batch, height, width: torch.zeros(batch, 1, 4, height, width)


class Late(Net, conv=lambda: nn.Conv1d(2, 4, 3), head=lambda: nn.LazyLinear(5)):
    """Makes its head in the first forward."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


def half() -> nn.Module:
    return Named().to(torch.bfloat16)


def bilinear() -> nn.Module:
    return nn.Bilinear(3, 4, 5)


bilinear.example_inputs = (torch.zeros(2, 3), torch.zeros(2, 4))  # type: ignore[attr-defined]
