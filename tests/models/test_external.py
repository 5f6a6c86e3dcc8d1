"""Models of others: timm's and a user's factory, built, counted and refused."""

import pytest
import torch
from torch import nn

import datbench
from datbench import Resolution, Setting
from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import build_for_count
from datbench.errors import DatbenchWarning
from datbench.models.external import FactorySpec, TimmSpec
from datbench.models.on_meta import on_device
from datbench.models.resolve import resolve
from datbench.setting import Kind

FVCORE = CONVENTIONS["fvcore"]


def _macs(name: str) -> int:
    return datbench.count_model(name, Setting(Resolution(34, 34))).total(FVCORE)


@pytest.mark.parametrize(
    ("factory", "macs"),
    [
        ("Net", 8 * 27 * 32 * 32),
        ("Net,width=16", 16 * 27 * 32 * 32),
        ("Net,width=2,scale=0.5", 2 * 27 * 32 * 32),
        ("Net.wide", 64 * 27 * 32 * 32),
        ("lazy", 3 * 34 * 34 * 5),  # a lazy module learns its sizes
    ],
)
def test_a_factory_is_called_with_its_options(factories: str, factory: str, macs: int) -> None:
    assert _macs(f"{factories}:{factory}") == macs


def test_a_factory_that_reads_values_is_built_on_the_cpu(factories: str) -> None:
    spec = resolve(f"{factories}:reads_values")
    module = build_for_count(spec, Setting(spec.resolution))
    assert all(p.is_meta for p in module.parameters())
    assert _macs(spec.name) == 8 * 27 * 32 * 32


def test_a_model_that_reads_its_input_runs_on_the_cpu(factories: str) -> None:
    with pytest.warns(DatbenchWarning, match=r"real ones on the CPU \(Tensor\.item"):
        assert _macs(f"{factories}:ReadsInputs") == 8 * 27 * 32 * 32


def test_what_a_model_prints_is_not_our_output(
    factories: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _macs(f"{factories}:Prints") == 8 * 27 * 32 * 32
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a print while it is made" in captured.err
    assert "a print while it runs" in captured.err


def test_options_are_literals_or_words() -> None:
    spec = resolve("a.b:c,x=(1, 2),y=word,z=None,w=[3,[4]]")
    assert isinstance(spec, FactorySpec)
    assert spec.options == {"x": (1, 2), "y": "word", "z": None, "w": [3, [4]]}
    assert (spec.module, spec.attribute) == ("a.b", "c")
    assert resolve(spec.name) == spec


# timm


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)


def test_a_timm_model_has_its_own_resolution(timm: object) -> None:
    spec = resolve("timm:deit_base_patch16_384")
    assert isinstance(spec, TimmSpec)
    assert str(spec.resolution) == "384x384"
    assert str(resolve("timm:resnet18,img_size=64").resolution) == "64x64"


def test_a_fixed_input_size_is_changed_by_timms_own_option(timm: object) -> None:
    name = "timm:vit_tiny_patch16_224"
    at_64 = datbench.count_model(name, Setting(Resolution(64, 96)))
    tokens = 1 + (64 // 16) * (96 // 16)
    embedding = 3 * 16 * 16 * 192 * (tokens - 1)
    patches = next(c for c in at_64.calls if c.operator == "aten::conv2d")
    assert patches.cost[Kind.CONV] == embedding


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "dat_t"])
def test_attention_is_a_setting_and_does_not_change_a_count(timm, name: str) -> None:
    before = timm.layers.use_fused_attn()
    size = Resolution(224, 224)
    eager, fused = (
        datbench.count_model(f"timm:{name}", Setting(size, attention=attention))
        for attention in ("eager", "sdpa")
    )
    assert eager.total(FVCORE) == fused.total(FVCORE)
    for count, expected in ((eager, False), (fused, True)):
        operators = {call.operator for call in count.calls}
        assert ("aten::scaled_dot_product_attention" in operators) is expected
    assert timm.layers.use_fused_attn() is before


def test_features_of_a_timm_model(timm: object) -> None:
    spec = resolve("timm:resnet18")
    module = build_for_count(spec, Setting(Resolution(64, 64), features=True))
    maps = module(torch.empty(1, 3, 64, 64, device="meta"))
    assert [m.shape[2] for m in maps] == [32, 16, 8, 4, 2]


def test_what_is_built_is_in_evaluation_mode() -> None:
    module = build_for_count("torch.nn:Flatten", Setting(Resolution(32, 32)))
    assert isinstance(module, nn.Flatten)
    assert not module.training


class Unbuildable(nn.Module):
    """What torch refuses while it is built, on meta too."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4, 4))
        if how == "written under autograd":
            self.weight.normal_()
        elif how == "does not fit":
            torch.empty(4).add_(torch.ones(3))
        else:
            nn.init.kaiming_uniform_(torch.empty(4))


@pytest.mark.parametrize("how", ["written under autograd", "does not fit", "a vector"])
def test_what_cannot_be_built_is_refused_on_meta(how: str) -> None:
    with on_device("meta"), pytest.raises((RuntimeError, ValueError)):
        Unbuildable(how)


def test_nothing_is_filled_on_meta_alone() -> None:
    with on_device("meta"):
        assert nn.Linear(4, 4).weight.is_meta
        assert torch.empty(4, device="cpu").fill_(2.0).tolist() == [2.0] * 4
