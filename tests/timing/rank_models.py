"""Models for ranks: each does something else on each rank. Imported by the ranks, not by tests."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

RANK = int(os.environ.get("RANK", "0"))
NAP = 0.05


class Uneven(nn.Module):
    """Rank 0's gradient is 1 and rank 1's is 2; rank 1 sleeps a while in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (RANK + 1)


def uneven(told: str) -> nn.Module:
    """Writes the gradient that the optimizer finds to `told`, which is a folder."""
    model = Uneven()

    def before_step(optimizer: torch.optim.Optimizer, *rest: object) -> None:
        if model.weight.grad is not None:
            Path(told, f"gradient-{RANK}").write_text(f"{model.weight.grad.item():g}")
        time.sleep(NAP * RANK)

    register_optimizer_step_pre_hook(before_step)
    return model


def killed(told: str) -> nn.Module:
    """Rank 1 dies as if the kernel had killed it; rank 0 would work for an hour."""
    Path(told, f"pid-{RANK}").write_text(str(os.getpid()))
    if RANK == 1:
        while not Path(told, "pid-0").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)
    return nn.Identity()
