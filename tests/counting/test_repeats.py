"""Equal parts of a model are run once: the calls are those of a run of every part."""

import pytest
import torch
from torch import nn

from datbench import Resolution, Setting
from datbench.counting.count import build_for_count, count_anywhere, count_built
from datbench.counting.repeats import equal_parts
from datbench.models.resolve import resolve


@pytest.mark.parametrize(
    "name",
    [
        *("dat_s", "datpp_t", "dat_t_sra", "dat_t_ddetr_49_49", "dat_t,drop_path=0.2"),
        *("dat_t+mask_rcnn", "pvt_s", "nat_t", "ceit_s", "regionvit_s"),
        *("timm:swin_tiny_patch4_window7_224", "timm:vit_tiny_patch16_224", "timm:davit_tiny"),
        *("timm:coat_lite_mini", "timm:convnext_tiny", "timm:twins_svt_small", "timm:resnet50"),
    ],
)
def test_calls_are_those_of_all_parts(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    spec = resolve(name)
    other = () if name.startswith("timm:") else (Resolution(96, 64),)  # several take one size
    for size in (Resolution(224), *other):
        setting = Setting(size, batch=2, backward=name == "dat_t_sra")
        model = build_for_count(spec, setting)
        assert equal_parts(model)
        _, found = count_anywhere(spec, setting)
        assert found == count_built(name, model, setting)


class _Given(nn.Module):
    """A block that is called with tensors, and may keep what cannot be compared."""

    def __init__(self, held: object = None) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4, device="meta")
        self.held = held


def _hooked() -> nn.Module:
    block = nn.Sequential(nn.Linear(4, 4, device="meta"))
    block.register_forward_hook(lambda *_: None)
    return block


_one = nn.Sequential(nn.Linear(4, 4, device="meta"))


@pytest.mark.parametrize(
    "blocks",
    [
        [_Given(), _Given()],  # of a package that is not known
        [_hooked(), _hooked()],
        [_one, _one],  # a part that has two paths
        [nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))],  # with values
        [nn.Sequential(nn.Linear(4, n, device="meta")) for n in (4, 5)],
        [nn.Sequential(nn.Dropout(p)) for p in (0.1, 0.2)],
        [nn.Sequential(nn.ReLU()).train(mode) for mode in (True, False)],
    ],
)
def test_what_is_not_equal(blocks: list[nn.Module]) -> None:
    assert equal_parts(nn.ModuleList(blocks)) == []


def test_a_model_serves_every_size_and_is_as_it_was() -> None:
    spec = resolve("dat_t")
    first = build_for_count(spec, Setting(Resolution(64)))
    state = {name: list(vars(part)) for name, part in first.named_modules()}
    count_anywhere(spec, Setting(Resolution(96, 64)))
    second = build_for_count(spec, Setting(Resolution(96, 64), batch=8))
    assert second is first
    assert {name: list(vars(part)) for name, part in first.named_modules()} == state
    other = build_for_count(spec, Setting(Resolution(64), attention="sdpa", dtype="bfloat16"))
    assert next(other.parameters()).dtype is torch.bfloat16
