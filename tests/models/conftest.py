"""A user's file of models."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FACTORIES = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8, *, scale=1.0):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, bias=False)
        self.scale = scale

    def forward(self, x):
        return self.conv(x) * self.scale

    @classmethod
    def wide(cls):
        return cls(64)

def reads_values():
    net = Net()
    net.rates = [x.item() for x in torch.linspace(0, 1, 4)]
    net.batches = int(torch.ones(3).sum())
    return net

def needs(width, depth, *, heads):
    return Net(width)

def raises():
    raise KeyError("nothing here")

def quits():
    raise SystemExit(0)

class QuitsLater(Net):
    def forward(self, x):
        raise SystemExit(7)

class ReadsInputs(Net):
    def forward(self, x):
        return self.conv(x) * x.sum().item()

class Prints(Net):
    def __init__(self):
        print("a print while it is made")
        super().__init__()

    def forward(self, x):
        print("a print while it runs")
        return super().forward(x)

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(5))

made = Net()
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current directory, which no one put on the path."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(Path.cwd()))])
    monkeypatch.chdir(tmp_path)
    name = f"factories_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield name
    sys.modules.pop(name, None)
