"""Programs made of the models: export, ONNX, compiled for any size, traces; at other sizes too."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import datbench
from datbench.errors import UsageError
from datbench.models.config import (
    Deformable,
    DeformableDetr,
    Neighborhood,
    Pyramid,
    SpatialReduction,
    Stage,
    Window,
)
from datbench.models.mixers import make_mixer
from datbench.models.pyramid import PyramidBackbone
from datbench.models.resolve import build, resolve

SHIFTED = Window(7, shift=4)
OFFSETS = Deformable(2, 3)
FREE = Deformable(1, 3, stride=2, offset_range=None, code=2023)


def image(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


EXAMPLE = image(2, 64, 96)
OTHERS = [EXAMPLE, image(3, 100, 70), image(2, 64, 224)]
"""224 is the size that tables and masks are made for."""


def pyramid(*mixers: Any, **options: Any) -> Pyramid:
    """A narrow backbone with one block a stage."""
    first, second, third, fourth = (Stage(8, 2, (mixer,)) for mixer in mixers)
    return Pyramid((first, second, third, fourth), classes=5, **options)


SMALL = {
    "2022": pyramid(SHIFTED, Window(7), DeformableDetr(3), OFFSETS),
    "2023": pyramid(Neighborhood(7), FREE, Neighborhood(5), FREE, lpu=True, ffn="conv_residual"),
    "ablations": pyramid(
        SpatialReduction(8),
        Deformable(2, 3, offsets=False),
        Deformable(2, 3, bias="fixed"),
        Deformable(2, 3, bias="dwconv"),
        stem="overlap",
    ),
}


def random(model: nn.Module) -> nn.Module:
    """In evaluation mode, with weights that make every part of the output count."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, 0.5 * (parameter.ndim < 2), 0.2)
    return model.eval()


def outputs(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found)


def agree(model: nn.Module, program: Callable[[Tensor], Any], inputs: Sequence[Tensor]) -> None:
    """The program computes what the model does, to float32's rounding."""
    for x in inputs:
        with torch.no_grad():
            pairs = zip(outputs(program(x)), outputs(model(x)), strict=True)
        for found, exact in pairs:
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def dynamic(x: Tensor) -> tuple[dict[int, Any]]:
    """Batch and both sides of an image; the height of a map."""
    dims = (0, 2, 3) if x.shape[1] == 3 else (1,)
    return (dict.fromkeys(dims, torch.export.Dim.DYNAMIC),)


def exported(model: nn.Module, x: Tensor = EXAMPLE) -> Callable[[Tensor], Any]:
    return torch.export.export(model, (x,), dynamic_shapes=dynamic(x), strict=False).module()


def compiled(model: nn.Module, x: Tensor = EXAMPLE) -> Callable[[Tensor], Any]:
    """One program for all sizes: another one would be refused."""
    torch.compiler.reset()
    program = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        program(x)
    return torch.compiler.set_stance("fail_on_recompile")(program)


def traced(model: nn.Module) -> Callable[[Tensor], Any]:
    return torch.jit.trace(model, EXAMPLE, check_trace=False)


def through_onnx(model: nn.Module, x: Tensor = EXAMPLE) -> Callable[[Tensor], Any]:
    """As onnxruntime computes it."""
    pytest.importorskip("onnxscript", reason="needs datbench[export]")
    runtime = pytest.importorskip("onnxruntime", reason="needs datbench[export]")
    made: Any = torch.onnx.export(
        model, (x,), dynamo=True, dynamic_shapes=dynamic(x), verbose=False
    )
    session = runtime.InferenceSession(made.model_proto.SerializeToString())
    (taken,) = session.get_inputs()
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {taken.name: x.numpy()})]


@pytest.mark.parametrize(("attention", "features"), [("eager", False), ("chunked", True)])
@pytest.mark.parametrize("name", SMALL)
def test_a_trace_takes_other_sizes(name: str, attention: Any, features: bool) -> None:
    model = random(PyramidBackbone(SMALL[name], features, attention))
    agree(model, traced(model), [*OTHERS, image(1, 33, 128)])


@pytest.mark.parametrize(
    ("mixer", "way"),
    [
        *((mixer, exported) for mixer in (SHIFTED, Neighborhood(5), OFFSETS, FREE)),
        (Neighborhood(5), compiled),
    ],
)
def test_a_mixer_takes_other_sizes(mixer: Any, way: Any) -> None:
    """Maps of one window and of several, below the neighbourhood, and of the training size."""
    module = random(make_mixer(mixer, dim=8, heads=2, map_side=14))
    program = way(module, torch.randn(2, 4, 7, 8))
    for height in (3, 4, 14, 30):
        agree(module, program, [torch.randn(2, height, 7, 8)])


@pytest.mark.slow
@pytest.mark.parametrize("way", [exported, compiled, traced, through_onnx])
@pytest.mark.parametrize("index", range(len(datbench.list_models())))
def test_every_variant(index: int, way: Any) -> None:
    """Classifiers with eager attention and backbones with fused attention take turns."""
    model = datbench.create_model(
        datbench.list_models()[index],
        features_only=bool(index % 2),
        attention="sdpa" if index // 2 % 2 else "eager",
    )
    agree(random(model), way(model), OTHERS)


@pytest.mark.slow
@pytest.mark.parametrize("way", [exported, compiled, through_onnx])
@pytest.mark.parametrize("name", SMALL)
def test_small_models(name: str, way: Any) -> None:
    model = random(PyramidBackbone(SMALL[name]))
    agree(model, way(model), OTHERS)


@pytest.mark.parametrize("name", ["datpp_t", "dat_t+retinanet", "pvt_t", "ceit_s", "glit_t"])
def test_script_is_refused_with_what_works(name: str) -> None:
    spec = resolve(name)
    model = build(spec, spec.resolution, device="meta")
    with pytest.raises(UsageError, match=r"use torch\.export"):
        torch.jit.script(model)


def test_what_timm_asks_of_a_model_to_be_exported() -> None:
    timm = pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    datbench.register_timm()
    with pytest.raises(UsageError, match=r"use torch\.export"):
        timm.create_model("dat_t", scriptable=True)
    plain, exportable = (
        timm.create_model("dat_t", exportable=exportable, device="meta").state_dict()
        for exportable in (None, True)
    )
    assert list(plain) == list(exportable)
