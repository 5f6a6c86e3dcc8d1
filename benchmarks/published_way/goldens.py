"""The models of this package against the golden files and the printed parameter counts."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from . import dat2022, datpp2023
from .recipe import recipe_input, recipe_state_dict

TOLERANCE = 1e-4  # absolute (the README beside the golden files)

#: (code year, published configuration) -> our name.
GOLDEN_NAMES = {
    (2022, "dat_tiny"): "dat_t",
    (2022, "dat_small"): "dat_s",
    (2022, "dat_base"): "dat_b",
    (2022, "dat_base_384"): "dat_b_384",
    (2023, "dat_tiny"): "datpp_t",
    (2023, "dat_small"): "datpp_s",
    (2023, "dat_base"): "datpp_b",
}


@dataclass(frozen=True)
class GoldenCheck:
    """One golden file against our model of the same architecture."""

    name: str
    same_keys: bool  # names, shapes and their order
    same_params: bool
    logits_error: float  # largest absolute error of the first eight logits
    norm_error: float  # of the norm over all logits

    @property
    def passed(self) -> bool:
        """Whether the layout is equal and the numbers are within the tolerance."""
        close = self.logits_error <= TOLERANCE and self.norm_error <= TOLERANCE
        return self.same_keys and self.same_params and close


@dataclass(frozen=True)
class ParameterCheck:
    """One variant's trainable parameters against the printed count."""

    name: str
    parameters: int
    printed_m: float

    @property
    def passed(self) -> bool:
        """Whether the count rounds to the printed digits."""
        digits = 3 if self.name.startswith("datpp") else 4
        return round(self.parameters / 1e6, digits) == self.printed_m


def build(name: str) -> nn.Module:
    """Any variant of the package by its name."""
    if name in datpp2023.VARIANTS:
        return datpp2023.build_datpp2023(name)
    return dat2022.build_dat2022(name)


def trainable(model: nn.Module) -> int:
    """How many parameters are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def check_golden(path: Path) -> GoldenCheck:
    """Run one golden file."""
    golden = json.loads(path.read_text())
    if golden["over"]:
        raise ValueError(f"{path}: overrides of a configuration are not known here")
    model = build(GOLDEN_NAMES[golden["version"], golden["config"]])
    keys = [(key, list(value.shape)) for key, value in model.state_dict().items()]
    same_keys = keys == list(golden["keys"].items())
    model.load_state_dict(recipe_state_dict(model))
    b, _, h, w = golden["input"]
    with torch.no_grad():
        logits = model(recipe_input(b, h, w))
    logits_error = (logits[:, :8] - torch.tensor(golden["logits8"])).abs().max().item()
    norms = logits.double().norm(dim=1)
    norm_error = (norms - torch.tensor(golden["logit_norm"]).double()).abs().max().item()
    same_params = trainable(model) == golden["params"]
    return GoldenCheck(path.stem, same_keys, same_params, logits_error, norm_error)


def check_parameters() -> list[ParameterCheck]:
    """Count every variant, on the meta device."""
    printed = dat2022.PARAMETERS_M | datpp2023.PARAMETERS_M
    with torch.device("meta"):
        return [ParameterCheck(name, trainable(build(name)), m) for name, m in printed.items()]
