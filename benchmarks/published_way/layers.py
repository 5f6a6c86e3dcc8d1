"""What both code years share: LayerNorm on NCHW maps."""

from torch import Tensor, nn


class LayerNormProxy(nn.Module):
    """LayerNorm over the channels of an NCHW map (2022 and 2023: `LayerNormProxy`, eps 1e-5)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.permute(0, 2, 3, 1))  # (B, H, W, C)
        return x.permute(0, 3, 1, 2)  # (B, C, H, W)
