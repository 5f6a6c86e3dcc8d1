"""Models of a user that cannot be counted from shapes alone, or are not what they seem."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .nets import Net

IMAGE = (1, 3, 32, 32)


class Drops(Net, stem=lambda: nn.Conv2d(3, 4, 4, 4), deep=lambda: nn.Conv2d(4, 4, 3, padding=1)):
    """Goes on with the columns of the map that are above 0: the work depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)  # (B, 4, 8, 8)
        return self.deep(y[..., y.mean((0, 1, 2)) > 0]).mean((2, 3))


class Reads(Net, conv=lambda: nn.Conv2d(3, 4, 3, padding=1)):
    """Reads a value that changes nothing, and makes a tensor on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + torch.linspace(0, 1, 32) * x.abs().max().item()


class Grows(nn.Module):
    """Makes its head in the first forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).flatten(1)
        if self.head is None:
            self.head = nn.Linear(y.shape[1], 10, device=x.device)
        return self.head(y)


class Remembers(nn.Module):
    """Changes everything that a module can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("bank", torch.zeros(4, 8))
        self.register_buffer("average", torch.zeros(8))
        self.calls, self.seen, self.cache = 0, [], {}

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(x)
        self.cache["x"] = x
        self.bank[0] = 1
        self.average = 0.9 * self.average + x.mean(0) + 1
        self.linear.weight.data = self.linear.weight.data.clamp(-0.1, 0.1)
        self.train(not self.training)
        return self.linear(x)


def plain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 32 * 32, 5)
    ).eval()


MACS, WEIGHTS = 4 * 27 * 1024 + 5 * 4096, 4 * 27 + 4 + 5 * 4096 + 5
"""Of `plain`, by pencil."""


class Samples(nn.Module):
    """The centre of its input, in the input's type."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        centre = x.new_zeros(x.shape[0], 1, 1, 2)
        return nn.functional.grid_sample(x * self.scale, centre, align_corners=True).flatten(1)


FORMS: dict[str, Callable[[], object]] = {
    "half": lambda: plain().half(),
    "traced": lambda: torch.jit.trace(plain(), torch.zeros(IMAGE)),
    "scripted": lambda: torch.jit.script(plain()),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(plain())),
    "fused": lambda: torch.jit.optimize_for_inference(torch.jit.script(plain())),
    "exported": lambda: torch.export.export(plain(), (torch.zeros(IMAGE),)).module(),
    "program": lambda: torch.export.export(plain(), (torch.zeros(IMAGE),)),
    "graph": lambda: torch.fx.symbolic_trace(plain()),
    "dynamic": lambda: torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear}),
}
"""`plain` in other forms, each a factory of this module."""

globals().update(FORMS)


def quantized() -> nn.Module:
    """By constants, without calibration: convolution and linear layer in int8."""
    net = torch.ao.quantization.QuantWrapper(plain())
    net.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    torch.ao.quantization.prepare(net, inplace=True)
    net(torch.randn(IMAGE))
    return torch.ao.quantization.convert(net, inplace=True)


class Listed(nn.Module):
    """Weights that no module registers."""

    weights = (torch.zeros(4, 3, 3, 3),)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weights[0])


def tuned() -> nn.Module:
    """In training, but for its norm."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    net[1].eval()
    return net
