"""Models whose profile is known in advance."""

import torch
from torch import Tensor, nn


class Slow(nn.Module):
    """Sorts, which FLOPs do not count, a hundred times what its small products take."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(8):
            x = x.sort(dim=-1, descending=True).values.sin()
        return x


class Fickle(nn.Module):
    """Runs other operators under a dispatch mode, as the counter is one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        if torch._C._len_torch_dispatch_stack():
            return x.relu()
        return x.sigmoid().tanh()


def slow() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Slow(), nn.Conv2d(8, 4, 1))


def fickle() -> nn.Module:
    return nn.Sequential(Fickle(), nn.Conv2d(3, 4, 3))


def with_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))


def failing() -> nn.Module:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not x.is_meta:
                raise RuntimeError("[enforce fail] can't allocate memory: you tried 1 byte")
            return x

    return Failing()
