"""Models of others: timm's and a user's factory, built, counted and refused."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import datbench
from datbench import Resolution, Setting
from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import build_for_count
from datbench.errors import DatbenchWarning, MeasurementError, UnknownNameError, UsageError
from datbench.models.external import FactorySpec, TimmSpec
from datbench.models.resolve import resolve
from datbench.setting import Kind

FVCORE = CONVENTIONS["fvcore"]

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

def number():
    return 3

def quits():
    raise SystemExit(0)

class TwoInputs(Net):
    def forward(self, x, y):
        return x + y

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

def fails_on_images():
    return nn.Linear(7, 7)

made = Net()
name = "Net"
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current directory, which no one put on the path."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(Path.cwd()))])
    monkeypatch.chdir(tmp_path)
    name = f"factories_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield name
    sys.modules.pop(name, None)


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


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("needs", UsageError, "needs arguments: width, depth, heads; write "),
        (
            "needs,width=1",
            UsageError,
            "{name} needs arguments: depth, heads; write {name},depth=...,heads=....",
        ),
        ("Net,wide=3", UsageError, "unexpected keyword argument 'wide'"),
        ("number", UsageError, "returns int, which is not a torch.nn.Module"),
        ("made", UsageError, "is a model already; name the function or class that makes it"),
        ("name", UsageError, "is a str, not a function or class"),
        ("Nett", UnknownNameError, "unknown factory 'Nett'; did you mean Net or name?"),
        ("Net.tall", UnknownNameError, "unknown factory"),
        ("raises", MeasurementError, "raised KeyError: 'nothing here'"),
        ("quits", MeasurementError, "raised SystemExit: 0"),
        ("QuitsLater", MeasurementError, "on cpu: SystemExit: 7"),
        ("TwoInputs", MeasurementError, "missing 1 required positional argument"),
        ("fails_on_images", MeasurementError, "at 34x34 on meta: mat1 and mat2 "),
    ],
)
def test_a_factory_is_refused(factories: str, name: str, error: type, words: str) -> None:
    name = f"{factories}:{name}"
    with pytest.raises(error) as refused:
        _macs(name)
    assert words.format(name=name) in str(refused.value)
    assert refused.type is error


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


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_package:make", "there is no module 'no_such_package'"),
        ("torch.no_such_part:make", "there is no module 'torch.no_such_part'"),
        ("x:", "write package.module:factory"),
        (":x", "write package.module:factory"),
        ("a b:c", "write package.module:factory"),
        ("a:b:c", "write package.module:factory"),
        ("torch.nn:Linear,in_features", "'in_features' is not an option; write name=value"),
    ],
)
def test_a_name_is_refused(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _macs(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_dependency", "raised ModuleNotFoundError: No module named"),
        ("1 / 0", "importing it raised ZeroDivisionError"),
        ("def f(:", "importing it raised SyntaxError"),
    ],
)
def test_a_module_that_does_not_import(
    factories: str, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / f"{factories}_broken.py").write_text(text)
    with pytest.raises(UsageError, match=words):
        _macs(f"{factories}_broken:make")


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


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("timm:resnet81", UnknownNameError, "unknown timm model 'resnet81'; did you mean"),
        ("timm:resnet18,depth=3", UsageError, "timm does not build it: "),
        ("timm:", UnknownNameError, "unknown timm model ''."),
        ("timm:resnet18.nosuchtag", UnknownNameError, "unknown tag of timm's resnet18"),
        ("timm:resnet18,pretrained=True", UsageError, "leave out pretrained"),
        ("timm:davit_tiny,window_size=seven", MeasurementError, "davit_tiny"),
    ],
)
def test_a_timm_name_is_refused(timm: object, name: str, error: type, words: str) -> None:
    with pytest.raises(error) as refused:
        _macs(name)
    assert words in str(refused.value)


def test_what_is_built_is_in_evaluation_mode() -> None:
    module = build_for_count("torch.nn:Flatten", Setting(Resolution(32, 32)))
    assert isinstance(module, nn.Flatten)
    assert not module.training
