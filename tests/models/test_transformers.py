"""Models of Hugging Face's transformers: built from our literals, counted, run and refused."""

import logging
import re
import socket
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import datbench
from datbench import Resolution, Setting
from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import build_for_count
from datbench.errors import LibraryError, UsageError
from datbench.models.comparison.pvt import MODELS, PyramidTransformer
from datbench.models.comparison.tokens import EPS
from datbench.models.resolve import resolve
from datbench.models.transformers import ARCHITECTURES, TransformersSpec
from datbench.paper.tables import Printed

FVCORE = CONVENTIONS["fvcore"]
AT_224 = Setting(Resolution(224, 224))
OURS = {"pvt_tiny": "pvt_t", "pvt_small": "pvt_s", "pvt_medium": "pvt_m", "pvt_large": "pvt_l"}


@pytest.fixture
def _library() -> None:
    pytest.importorskip("transformers", reason="needs datbench[transformers]", exc_type=ImportError)


needs_library = pytest.mark.usefixtures("_library")


def _totals(name: str, setting: Setting) -> tuple[int, int]:
    module = build_for_count(name, setting)
    elements = sum(p.numel() for p in module.parameters())
    return datbench.count_model(name, setting).total(FVCORE), elements


# Names, without the library


def test_a_name_is_read_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    spec = resolve("transformers:cvt_13,num_labels=21841,cls_token=[False, False, True]")
    assert isinstance(spec, TransformersSpec)
    assert spec.architecture == "cvt_13"
    assert spec.options == {"num_labels": 21841, "cls_token": [False, False, True]}
    assert resolve(spec.name) == spec
    assert str(spec.resolution) == "224x224"
    assert str(resolve("transformers:pvt_tiny,image_size=384").resolution) == "384x384"


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(LibraryError, match=r"pip install transformers"):
        datbench.count_model("transformers:cvt_13", AT_224)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (AttributeError("no attribute"), "has no CvtConfig: pip install"),
        (ImportError("tokenizers>=0.22 is required."), "cannot be loaded: ImportError: tokenizers"),
        (RuntimeError("Failed to import"), "cannot be loaded: RuntimeError: Failed to import"),
    ],
)
def test_a_broken_library(monkeypatch: pytest.MonkeyPatch, broken: Exception, words: str) -> None:
    class Broken:
        __spec__ = None

        def __getattr__(self, name: str) -> Any:
            raise broken

    monkeypatch.setitem(sys.modules, "transformers", Broken())
    with pytest.raises(LibraryError, match=words):
        datbench.count_model("transformers:cvt_13", AT_224)


@needs_library
def test_cvt_has_no_four_maps() -> None:
    with pytest.raises(UsageError, match="three stages"):
        datbench.count_model("transformers:cvt_13", replace(AT_224, features=True))


@needs_library
@pytest.mark.parametrize(
    ("name", "setting"),
    [
        *((name, AT_224) for name in OURS),
        ("pvt_tiny", replace(AT_224, attention="sdpa")),
        ("pvt_tiny", Setting(Resolution(1280, 800))),
        ("pvt_tiny", Setting(Resolution(2048, 512), features=True)),
    ],
)
def test_pvt_counts_as_our_own(name: str, setting: Setting) -> None:
    assert _totals(f"transformers:{name}", setting) == _totals(OURS[name], setting)


RENAMED = (  # the library's stage is the patches, then the blocks
    (r"^norm\.", "head.norm."),
    (r"^head\.(?=weight|bias)", "head.linear."),
    (r"(stages\.\d)\.0\.projection", r"\1.patches.0"),
    (r"(stages\.\d)\.0\.layer_norm", r"\1.patches.1"),
    (r"(stages\.\d)\.0\.cls_token", r"\1.class_token"),
    (r"(stages\.\d)\.0\.position_embeddings", r"\1.positions"),
    (r"(stages\.\d)\.(\d+)\.", lambda found: f"{found[1]}.blocks.{int(found[2]) - 1}."),
    (r"attention\.self\.sequence_reduction", "mixer.reduce.0"),
    (r"attention\.self\.layer_norm", "mixer.reduce.1"),
    (r"attention\.self\.query", "mixer.query"),
    (r"attention\.self\.key", "mixer.key_value"),
    (r"attention\.output\.dense", "mixer.out"),
    (r"layer_norm_", "norm"),
    (r"mlp\.dense", "ffn.linear"),
)


def _as_ours(theirs: nn.Module) -> dict[str, Tensor]:
    """The library's weights of a PVT, under our names."""
    state, found = {}, theirs.state_dict()
    for key, tensor in found.items():
        name = key
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        if ".self.key." in key:
            tensor = torch.cat((tensor, found[key.replace(".key.", ".value.")]))
        elif name.endswith("class_token"):
            tensor = tensor[:, None]
        elif name.endswith("positions"):
            side = 56 >> int(name.split(".")[1])
            if tensor.shape[1] > side * side:
                state[name.replace("positions", "class_position")] = tensor[:, None, :1]
            tensor = tensor[:, -side * side :].unflatten(1, (side, side))
        if ".self.value." not in key:
            state[name] = tensor
    return state


@needs_library
@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("size", [(224, 224), (64, 96)], ids=["224x224", "96x64"])
def test_pvt_computes_what_ours_does(features: bool, size: tuple[int, int]) -> None:
    """The library's PVT and ours, with the same weights; its norms all have one epsilon."""
    spec = resolve(f"transformers:pvt_tiny,layer_norm_eps={EPS}")
    theirs = spec.build(Resolution(224, 224), features, "eager").eval()
    ours = PyramidTransformer(MODELS["pvt_t"], features=features).eval()
    ours.load_state_dict(_as_ours(theirs))
    for module in ours.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = EPS
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        one, other = theirs(x), ours(x)
    pairs = zip(one, other, strict=True) if features else [(one, other)]
    for a, b in pairs:
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@needs_library
@pytest.mark.parametrize(
    ("name", "side", "flops", "params"),
    # The README of microsoft/CvT.
    [
        ("cvt_13", 224, "4.5G", "20M"),
        ("cvt_21", 224, "7.1G", "32M"),
        ("cvt_13", 384, "16.3G", "20M"),
    ],
)
def test_cvt_is_near_its_print(name: str, side: int, flops: str, params: str) -> None:
    total, elements = _totals(f"transformers:{name}", Setting(Resolution(side, side)))
    assert Printed.parse(params).agrees(elements)
    # Their counter is their own; none of the figures is off by 2 %.
    assert abs(Printed.parse(flops).miss(total)) < 0.02


@needs_library
@pytest.mark.parametrize("name", ["cvt_13", "pvt_tiny"])
def test_it_runs(name: str) -> None:
    spec = resolve(f"transformers:{name},num_labels=7")
    module = spec.build(Resolution(96, 64), False, "eager").eval()
    with torch.no_grad():
        logits = module(torch.randn(2, 3, 64, 96))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    count = datbench.count_model(spec.name, Setting(Resolution(96, 64)))
    assert {"stages.0", "stages.1", "stages.2", "head"} <= set(count.stages.values())


@needs_library
def test_maps_leave_no_parameter_over() -> None:
    spec = resolve("transformers:pvt_tiny")
    model = spec.build(Resolution(64, 64), True, "eager")
    maps = model(torch.randn(1, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [
        (1, dim, side, side) for dim, side in ((64, 16), (128, 8), (320, 4), (512, 2))
    ]
    sum(m.square().mean() for m in maps).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@needs_library
def test_it_is_quiet_and_asks_no_one(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    with caplog.at_level(logging.INFO):
        for name in ARCHITECTURES:
            datbench.count_model(f"transformers:{name}", AT_224)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
