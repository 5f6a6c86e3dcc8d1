"""Models by the names that people know: aliases, torchvision's, transformers' families, files."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import datbench
from datbench import Setting
from datbench.counting.count import build_for_count
from datbench.errors import (
    DatbenchWarning,
    LibraryError,
    MeasurementError,
    UnknownNameError,
)
from datbench.models.aliases import ALIASES
from datbench.models.resolve import resolve

NET = "from torch import nn\nfrom {helper} import bias\nclass Net(nn.Conv2d):\n"
NET += "    def __init__(self, width={width}): super().__init__(3, width, 1, bias=bias)\n"


def _library(name: str) -> None:
    pytest.importorskip(name, reason=f"needs datbench[{name}]", exc_type=ImportError)


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("DAT-T", "dat_t"),
        ("DAT-T++", "datpp_t"),
        ("DAT++_B", "datpp_b"),
        ("dat-s,num_classes=10", "dat_s,num_classes=10"),
        ("DAT-T+mask_rcnn", "dat_t+mask_rcnn"),
        ("NAT-Mini", "nat_mini"),
        ("Swin-T", "timm:swin_tiny_patch4_window7_224"),
        (
            "swin_b,img_size=384+retinanet",
            "timm:swin_base_patch4_window7_224,img_size=384+retinanet",
        ),
        ("ResNet50", "timm:resnet50"),
    ],
)
def test_an_alias_is_the_model_that_it_stands_for(name: str, means: str) -> None:
    assert resolve(name).name == means
    assert resolve(means).name == means


@pytest.mark.parametrize(
    ("alias", "millions", "gmacs"),
    [  # as the papers print them: Swin and ConvNeXt (Tables 1), DeiT and ViT (DeiT's Table 5)
        ("swin_t", "29", "4.5"),
        ("swin_b", "88", "15.4"),
        ("convnext_t", "29", "4.5"),
        ("convnext_b", "89", "15.4"),
        ("deit_s", "22", "4.6"),
        ("vit_b", "86", None),
    ],
)
def test_an_alias_has_the_sizes_of_its_paper(alias: str, millions: str, gmacs: str | None) -> None:
    _library("timm")
    found = datbench.flops(alias, convention="torch")
    assert abs(found.params / 1e6 - float(millions)) < 1
    assert gmacs is None or f"{found.macs / 1e9:.1f}" == gmacs


def test_every_alias_is_there() -> None:
    _library("timm")
    import timm

    named = {name.removeprefix("timm:") for name in ALIASES.values() if name.startswith("timm:")}
    assert named <= set(timm.list_models())


def test_without_timm_an_unknown_name_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UnknownNameError, match="timm:NAME names one of timm's"):
        resolve("efficientformer_l1")
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(LibraryError, match="pip install torchvision"):
        datbench.flops("torchvision:resnet18")


@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "efficientnet_b4", "mobilenet_v3_small", "resnet18", "swin_t", "vit_b_16"),
        *("r3d_18", "ssdlite320_mobilenet_v3_large"),  # of 16 frames; a list of images
    ],
)
def test_torchvision_models_count_what_torchvision_publishes(name: str) -> None:
    """`num_params` and `_ops` stand beside its weights, at the weights' crop."""
    _library("torchvision")
    from torchvision.models import get_model_weights

    published = next(iter(get_model_weights(name))).meta
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatbenchWarning)  # a detector needs values
        found = datbench.flops(f"torchvision:{name}", convention="torch")
    assert found.params == published["num_params"]
    assert round(found.macs / 1e9, 3) == published["_ops"]


def test_optical_flow_takes_two_images() -> None:
    _library("torchvision")
    one, two = (datbench.flops("torchvision:raft_small", res=128, batch=n) for n in (1, 2))
    assert two.macs == 2 * one.macs
    held = datbench.memory("torchvision:raft_small", res=128, mode="inference")
    assert held.line("inputs").amount == 2 * 3 * 128 * 128 * 4


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vit,num_hidden_layers=1", "224"),
        ("vit,num_hidden_layers=1,num_labels=10", "320x224"),
        ("swin,depths=[1,1]", "224"),
        ("segformer,depths=[1,1,1,1]", "256x128"),
        ("dinov2,num_hidden_layers=1,num_channels=1", "112"),
    ],
)
def test_families_of_transformers_count_what_torch_counts(name: str, settings: str) -> None:
    _library("transformers")
    setting = Setting(settings)
    module = build_for_count(f"transformers:{name}", setting)
    image = torch.empty(1, module.in_chans, setting.resolution.height, setting.resolution.width)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        module(image.to("meta"))
    found = datbench.flops(f"transformers:{name}", res=settings, convention="torch")
    assert found.amount == theirs.get_total_flops()
    assert found.params == sum(p.numel() for p in module.parameters())
    assert ("classifier.weight" in module.state_dict()) == ("num_labels" in name)


def test_a_model_that_takes_text_is_told_of_inputs() -> None:
    _library("transformers")
    text = "transformers:bert,num_hidden_layers=1,vocab_size=100,hidden_size=12"
    with pytest.raises(MeasurementError, match="say what it takes: --input"):
        datbench.flops(text)
    setting = Setting(224, batch=2, inputs=("input_ids=int64:{B}x16:0..99",))
    # Four projections of 12 to 12, two of 12 to 3072, and twice 16 x 16 x 12; a pooler of 12 to 12.
    macs = 2 * (16 * (4 * 144 + 2 * 12 * 3072 + 2 * 16 * 12) + 144)
    assert datbench.count_model(text, setting).multiply_adds() == macs


def test_a_factory_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is seen by its own imports; files of one name in two folders are two."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    for folder, width in (("one", 4), ("other", 8)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"helper_{folder}.py").write_text("bias = False\n")
        text = NET.format(helper=f"helper_{folder}", width=width)
        (tmp_path / folder / "net_in_a_file.py").write_text(text)
    try:
        names = ["one/net_in_a_file.py:Net", f"{tmp_path}/other/net_in_a_file.py:Net"]
        counted = datbench.flops([*names, f"{names[0]},width=2", names[1]], res=32)
        assert counted.params == (12, 24, 6, 24)
        assert counted.model[0] == names[0]
    finally:
        for name in set(sys.modules) - known:
            if "net_in_a_file" in name or name.startswith("helper_o"):
                del sys.modules[name]
