"""Published YAML configurations: what they become, what is refused, and how it is said."""

import copy
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import datbench
from benchmarks.published_way.dat2022 import VARIANTS, build_dat2022
from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import Count
from datbench.errors import DatbenchError, LibraryError, UnknownNameError, UsageError
from datbench.models.config import Deformable, Neighborhood, Pyramid, Window
from datbench.models.dat import REGISTRY
from datbench.models.resolve import resolve
from datbench.models.spec import ModelSpec
from datbench.models.yaml import Code, read_config

yaml = pytest.importorskip("yaml", reason="needs PyYAML", exc_type=ImportError)

CONFIGS = Path(__file__).parent / "configs"

REGISTERED = {
    "dat_tiny": "dat_t",
    "dat_small": "dat_s",
    "dat_base": "dat_b",
    "dat_base_384": "dat_b_384",
    "datpp_tiny": "datpp_t",
    "datpp_small": "datpp_s",
    "datpp_base": "datpp_b",
    "datpp_base_384": "datpp_b_384",
}


def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return content


def _read(tmp_path: Path, content: object, code: Code | None = None) -> ModelSpec:
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_config(path, code)


def _with(name: str, place: str, change: str) -> dict[str, Any]:
    """The configuration with a change in a place such as MODEL.DAT: YAML, or a key that goes."""
    content = _content(name)
    section: Any = content
    for part in filter(None, place.split(".")):
        section = section[part]
    new = yaml.safe_load(change)
    if isinstance(new, str):
        del section[new]
    else:
        section |= new
    return content


def _changed(tmp_path: Path, name: str, code: Code | None = None, **dat: object) -> Pyramid:
    """The configuration with these keys of MODEL.DAT."""
    content = _content(name)
    content["MODEL"]["DAT"] |= dat
    return _read(tmp_path, content, code).config


def _refusal(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "model.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError) as caught:
        read_config(path)
    message = str(caught.value).replace(str(path), "model.yaml")
    assert caught.value.exit_code == 2
    assert "\n" not in message
    assert isinstance(caught.value, UnknownNameError) == ("unknown key" in message)
    return message


@pytest.mark.parametrize(("file", "name"), REGISTERED.items())
def test_a_published_configuration_is_the_registered_variant(file: str, name: str) -> None:
    path = CONFIGS / f"{file}.yaml"
    spec, registered = read_config(path), REGISTRY.get(name)
    assert replace(spec.config, drop_path=0.0) == registered.config
    assert spec.config.drop_path > 0
    assert spec.resolution == registered.resolution
    assert (spec.name, spec.family, spec.source) == (f"config:{path}", "config", str(path))
    assert spec.summary == (file if name.startswith("dat_") else "dat_plus_plus")


def test_reading_loads_no_torch() -> None:
    code = (
        "import sys, pathlib; from datbench.models.yaml import read_config;"
        f"read_config(pathlib.Path({str(CONFIGS / 'datpp_tiny.yaml')!r}));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_pyyaml_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(LibraryError, match="pip install pyyaml"):
        read_config(CONFIGS / "dat_tiny.yaml")


def test_letters() -> None:
    config = read_config(CONFIGS / "swin_tiny.yaml").config
    assert config.stages[2].blocks == (Window(7), Window(7, shift=4)) * 3
    config = read_config(CONFIGS / "datpp_plain.yaml").config
    plain = (config.stem, config.downsample, config.ffn, config.lpu)
    assert plain == ("patch", "patch", "linear", False)
    assert config.stages[0].blocks == (Neighborhood(7), Deformable(1, 9, 8, None, code=2023))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("use_pes: [no, no, no, no]", "dat_t_no_bias"),
        ("fixed_pes: [yes, yes, yes, yes]", "dat_t_fixed_bias"),
        ("dwc_pes: [yes, yes, yes, yes]", "dat_t_dwconv_bias"),
        ("{dwc_pes: &on [yes, yes, yes, yes], fixed_pes: *on}", "dat_t_dwconv_bias"),
        ("no_offs: [yes, yes, yes, yes]", "dat_t_no_offsets"),
        ("use_conv_patches: yes", "dat_t_star"),
        ("strides: [-1, -1, 2, 1]", "dat_t_49_49"),
        ("ns_per_pts: [4, 4, 4, 4]", "dat_t"),
        ("sr_ratios", "dat_t"),
        ("window_sizes", "dat_t"),
        (
            "{stage_spec: [[P, P], [P, P], [L, D, L, D, L, D], [L, D]], sr_ratios: [8, 4, -1, -1]}",
            "dat_t_sra",
        ),
    ],
)
def test_ablations_of_the_2022_code(tmp_path: Path, change: str, name: str) -> None:
    config = _read(tmp_path, _with("dat_tiny", "MODEL.DAT", change)).config
    assert replace(config, drop_path=0.0) == REGISTRY.get(name).config


def test_the_year_decides_what_the_same_keys_mean(tmp_path: Path) -> None:
    convolutions = {"use_conv_patches": True, "use_dwc_mlps": [True] * 4}
    old = _changed(tmp_path, "dat_tiny", **convolutions)
    assert (old.stem, old.ffn) == ("overlap", "conv")
    new = _changed(tmp_path, "dat_tiny", **convolutions, use_lpus=[False] * 4)
    assert (new.stem, new.ffn, new.lpu) == ("double", "conv_residual", False)
    assert isinstance(new.stages[3].blocks[1], Deformable)
    assert new.stages[3].blocks[1].code == 2023
    spec = [["N", "N"], ["L", "S"], ["L", "D"] * 3, ["L", "D"]]  # a letter that 2022 has not
    assert _changed(tmp_path, "dat_tiny", **convolutions, stage_spec=spec).stem == "double"


def _sized(
    tmp_path: Path, size: int, window: int, code: Code | None = None, file: str = "dat_tiny"
) -> Pyramid:
    """A configuration for another image size and window."""
    return _changed(tmp_path, file, code, img_size=size, window_sizes=[window] * 4)


def _built(config: Pyramid) -> torch.nn.Module:
    return datbench.create_model(ModelSpec("x", config, "", "", ""), device="meta").eval()


def _counted(config: Pyramid) -> Count:
    image = torch.empty(1, 3, config.image_size, config.image_size, device="meta")
    return datbench.count(_built(config), image)


@pytest.mark.parametrize(
    ("size", "window", "gmacs"),
    [
        (224, 7, 4.58894),
        (384, 12, 14.69391),
        (256, 8, 6.07836),
        (512, 8, 26.31655),
        (448, 7, 19.52899),
    ],
)
def test_figures_of_the_code_of_june_2022(
    tmp_path: Path, size: int, window: int, gmacs: float
) -> None:
    """What fvcore counts of the published code (LeapLabTHU/DAT, 42b489e)."""
    count = _counted(_sized(tmp_path, size, window))
    assert round(count.total(CONVENTIONS["fvcore"]) / 1e9, 5) == gmacs


@pytest.mark.parametrize(("code", "params"), [(None, 28_415_234), ("2022-01", 28_426_498)])
def test_parameters_of_both_codes_of_2022(tmp_path: Path, code: Code | None, params: int) -> None:
    assert datbench.parameters(_built(_sized(tmp_path, 448, 7, code))).params == params


@pytest.mark.parametrize("file", ["dat_small", "dat_base"])
@pytest.mark.parametrize(("size", "window"), [(256, 8), (768, 12)])
def test_larger_models_of_june_2022(tmp_path: Path, file: str, size: int, window: int) -> None:
    """Against the published architecture as `benchmarks/published_way` writes it."""
    config = replace(VARIANTS[REGISTERED[file]], image_size=size, window=window)
    with torch.device("meta"):
        published = build_dat2022(config)
    expected = sum(parameter.numel() for parameter in published.parameters())
    model = _built(_sized(tmp_path, size, window, file=file))
    assert datbench.parameters(model).params == expected


@pytest.mark.parametrize(
    ("size", "window", "january"),
    [(224, 7, (5, 3)), (384, 12, (5, 3)), (448, 7, (7, 5)), (768, 12, (7, 5)), (896, 7, (9, 7))],
)
def test_offset_kernels_by_stage_or_by_map(
    tmp_path: Path, size: int, window: int, january: tuple[int, int]
) -> None:
    def kernels(code: Code | None) -> tuple[int, ...]:
        stages = _sized(tmp_path, size, window, code).stages[2:]
        return tuple(stage.blocks[-1].kernel for stage in stages)  # type: ignore[union-attr]

    assert kernels(None) == kernels("2022-06") == (5, 3)
    assert kernels("2022-01") == january


@pytest.mark.parametrize(
    ("file", "change", "code", "message"),
    [
        *(
            ("dat_tiny", f"img_size: {size}", "2022-01", f"img_size: stage 3: .*January.* {side},")
            for size, side in ((256, 16), (320, 20), (512, 32))
        ),
        ("datpp_tiny", "img_size: 224", "2022-06", r"ksizes: only the code of 2023 .*=2022-06\.$"),
        (
            "dat_tiny",
            "stage_spec: [[N, N], [L, S], [L, D, L, D, L, D], [L, D]]",
            "2022-01",
            "stage_spec: only the code of 2023",
        ),
    ],
)
def test_a_code_that_does_not_fit(
    tmp_path: Path, file: str, change: str, code: Code, message: str
) -> None:
    with pytest.raises(UsageError, match=rf"DAT\.{message}"):
        _read(tmp_path, _with(file, "MODEL.DAT", change), code)


@pytest.mark.parametrize("file", ["a.yaml", "a,b.yaml", "a,code=2022-01", "x,y=1/a.yaml"])
def test_a_name_says_the_code(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    content = _content("dat_tiny")
    content["MODEL"]["DAT"]["img_size"] = 448
    path.write_text(yaml.safe_dump(content))
    for name, kernel in ((f"config:{path}", 5), (f"config:{path},code=2022-01", 7)):
        spec = resolve(name)
        assert isinstance(spec, ModelSpec)
        assert spec.name == name
        assert spec.config.stages[2].blocks[1].kernel == kernel  # type: ignore[union-attr]
        assert resolve(f"{name}+retinanet").name == f"{name}+retinanet"
    spec = resolve(f"config:{path},code=2023")
    assert isinstance(spec, ModelSpec)
    assert spec.config.stages[2].blocks[1].code == 2023  # type: ignore[union-attr]
    for option, message in (
        ("code=2022", "unknown code '2022'; did you mean 20"),
        ("kode=2023", "unknown option 'kode'; did you mean code?"),
    ):
        with pytest.raises(UnknownNameError, match=re.escape(message)):
            resolve(f"config:{path},{option}")


# --- Detection and segmentation ------------------------------------------------------------------

DENSE = """
# As in DAT-Detection and DAT-Segmentation, configs/dat.
pretrained = '<path-to-pretrained-model>'
pair = ["N", "D"]

model = dict(
    backbone=dict(
        type='DAT',
        dim_stem=64,
        dims=[64, 128, 256, 512],
        depths=[2, 4, 18, 2],
        stage_spec=[["N", "D"], pair * 2, ["N", "D"] * 9, ["D", "D"]],
        heads=(2, 4, 8, 16),
        groups=[1, 2, 4, 8],
        use_pes=[True, True, True, True],
        strides=[8, 4, 2, 1],
        offset_range_factor=[-1, -1, -1, -1],
        use_dwc_mlps=[True] * 4,
        use_lpus=[True, True, True, True],
        use_conv_patches=True,
        ksizes=[9, 7, 5, 3],
        nat_ksizes=[7, 7, 7, 7],
        drop_path_rate=0.0,
        # Of other published configurations.
        heads_q=[6, 12, 24, 48],
        local_orf=[-1] * 4,
        local_kv_sizes=[-1] * 4,
        offset_pes=[False] * 4,
        deform_groups=[0] * 4,
        use_cmt_mlps=[False] * 4,
        out_indices=[1, 2, 3],
        use_checkpoint=True,
        lower_lr_kvs={},
        init_cfg={'type': 'Pretrained', 'checkpoint': pretrained, **{'x': {}}}
    ),
    neck={'in_channels': [64, 128, 256, 512]}
)
data = dict(train=make(**model_free), iters=80000 // 2)
"""


def _dense() -> dict[str, Any]:
    """The keys of `DENSE`'s backbone, as somebody writes them into a YAML file."""
    names: dict[str, Any] = {}
    exec(DENSE.partition("data =")[0], names)
    backbone: dict[str, Any] = names["model"]["backbone"]
    return backbone | {"heads": [2, 4, 8, 16]}


@pytest.mark.parametrize("place", ["", "backbone", "model.backbone"])
def test_the_keys_of_a_dense_backbone(tmp_path: Path, place: str) -> None:
    def placed(content: dict[str, Any]) -> dict[str, Any]:
        for name in reversed(place.split(".") if place else []):
            content = {name: content, "neck": {"type": "FPN"}}
        return content

    spec = _read(tmp_path, placed(_dense()))
    assert spec.config == REGISTRY.get("datpp_t").config
    assert (spec.resolution.width, spec.summary) == (224, "model")  # the constructor's img_size
    message = _refusal(tmp_path, yaml.safe_dump(placed(_dense() | {"dims": 3, "heads": 0})))
    assert f"model.yaml: {place or 'backbone'}.dims: must be a list" in message


def test_a_dense_backbone_of_2022(tmp_path: Path) -> None:
    backbone = _content("dat_tiny")["MODEL"]["DAT"] | {"type": "DAT", "init_cfg": None}
    config = _read(tmp_path, {"backbone": backbone}).config
    assert replace(config, drop_path=0.0) == REGISTRY.get("dat_t").config


def test_tuples_as_mmcv_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(yaml.dump({"backbone": _dense() | {"dims": (64, 128, 256, 512)}}))
    assert "python/tuple" in path.read_text()
    assert read_config(path).config == REGISTRY.get("datpp_t").config


def test_all_unknown_keys_are_named_at_once(tmp_path: Path) -> None:
    content = _with("dat_tiny", "MODEL.DAT", "{dim: 3, foo: 4}") | {"TRIAN": {}}
    content["MODEL"]["NAMES"], content["DATA"]["SIZE"] = "x", 3
    message = _refusal(tmp_path, yaml.safe_dump(content))
    for place, keys in (
        ("top level", ["TRIAN"]),
        ("MODEL", ["NAMES"]),
        ("DATA", ["SIZE"]),
        ("MODEL.DAT", ["dim", "foo"]),
    ):
        assert all(f"{place}: unknown key {key!r}" in message for key in keys)
    backbone = _dense() | {"norm_eval": True, "frozen_stages": 1}
    message = _refusal(tmp_path, yaml.safe_dump({"model": {"backbone": backbone}}))
    for key in ("norm_eval", "frozen_stages"):
        assert f"model.backbone: unknown key {key!r}" in message


def _read_python(tmp_path: Path, text: str) -> ModelSpec:
    path = tmp_path / "configs" / "dat" / "mine.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return read_config(path)


BASES = "_base_ = ['../_base_/model.py', '../_base_/default_runtime.py']\n"


def test_a_python_configuration_is_read_and_not_run(tmp_path: Path) -> None:
    spec = _read_python(tmp_path, f"import os\n{BASES}{DENSE}raise SystemExit\n")  # no base there
    assert spec.config == REGISTRY.get("datpp_t").config
    assert (spec.summary, spec.name[-7:]) == ("mine", "mine.py")
    own = "model = dict(backbone=dict(drop_path_rate=0.5, ksizes=[9, 7, 7, 3]))"
    base = tmp_path / "configs" / "_base_" / "model.py"
    base.parent.mkdir()
    base.write_text(DENSE)
    config = _read_python(tmp_path, BASES + own).config
    assert (config.drop_path, config.stem_dim, config.lpu) == (0.5, None, True)
    assert config.stages[2].blocks[1].kernel == 7  # type: ignore[union-attr]
    text = DENSE.replace("backbone=dict(", "backbone=dict(_delete_=True,").replace("64", "32")
    with pytest.raises(UsageError, match="dims: stage 2: 128 is not twice 32"):
        _read_python(tmp_path, BASES + text)


CHANGED = [  # in `DENSE`: what stands in the place of what, and what is said of it
    ("model = ", "model.update(x=3)\nmodel = ", "makes or changes the model by code, which is not"),
    ("data =", "model['backbone']['depths'] = 3\ndata =", "makes or changes the model by code"),
    ('["N", "D"], pair', "spec(0), pair", "stage_spec[1]: must be a list, not 'spec(0)'."),
    ("model = ", "pair.append('D')\nmodel = ", "stage_spec[2]: must be a list, not 'pair * 2'."),
    ("'DAT'", "'ResNet'", "model.backbone.type: datbench reads models"),
    ("dims=", "dim=", "model.backbone: unknown key 'dim'; did you mean dims"),
    ("[1, 2, 3]", "[3]", "out_indices: write [0, 1, 2, 3]"),
    ("[True] * 4", "[True] * 10 ** 9", "must be a list, not '[True] * 10 **"),
    ("mlps=[False]", "mlps=[True]", "use_cmt_mlps: the feed-forwar"),
]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.py holds no DAT: its keys stand in MODEL.DAT, model.backbone or backbone, or "),
        ("model = Detector(3)", "mine.py: model: must be an object, not 'Detector(3)'."),
        ("model = (", "mine.py cannot be read as Python: '(' was never closed"),
        ("model = dict()\0", "mine.py cannot be read as Python: source code string cannot contain"),
        (f"model = {'-' * 100_000}1", "mine.py cannot be read as Python: "),
        ("_base_ = '../dat/mine.py'", "mine.py cannot be read as Python: maximum recursion depth"),
        (
            "model = dict(backbone=dict(type='DAT'))",
            "backbone.groups: stage 1: -1 lies outside 1 to 3 (groups is absent",
        ),
        ("model = dict(backbone=3)", "model.backbone: must be an object, not 3."),
        *((DENSE.replace(old, new, 1), message) for old, new, message in CHANGED),
    ],
    ids=lambda value: str(value)[:20],
)
def test_python_configurations_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        _read_python(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_offset_ranges(tmp_path: Path) -> None:
    def ranges(file: str, factor: list[object]) -> list[object]:
        config = _changed(tmp_path, file, offset_range_factor=factor)
        return [stage.blocks[-1].offset_range for stage in config.stages[2:]]  # type: ignore[union-attr]

    assert ranges("dat_tiny", [-1, -1, -1, 0.5]) == [None, 0.5]
    assert ranges("datpp_tiny", [0, 0, 0, 4]) == [0.0, 4.0]  # 2023: no offset, not unbounded
    with pytest.raises(UsageError, match=r"offset_range_factor: stage 4: 0 leaves"):
        ranges("dat_tiny", [-1, -1, 2, 0])


def test_layer_scale(tmp_path: Path) -> None:
    assert _changed(tmp_path, "datpp_tiny", layer_scale_values=[-1, 0, -1, 0]).layer_scale is None
    assert _changed(tmp_path, "datpp_tiny", layer_scale_values=[1e-5] * 4).layer_scale == 1e-5
    with pytest.raises(UsageError, match=r"layer_scale_values: one value for all stages"):
        _changed(tmp_path, "datpp_tiny", layer_scale_values=[-1, -1, 1e-5, 1e-5])


# --- A stem of another width ---------------------------------------------------------------------


def test_stem_projection_is_counted_as_the_published_convolution() -> None:
    narrow = read_config(CONFIGS / "dat_t_ss_ld.yaml").config
    assert narrow.stem_dim == 64
    models = [_built(config) for config in (narrow, replace(narrow, stem_dim=None))]
    params = [datbench.parameters(model).params for model in models]
    # A 1x1 convolution 64 -> 96 with bias; the stem's 4x4x3 patches, bias and norm shrink.
    assert params[0] - params[1] == (64 * 96 + 96) - 32 * (4 * 4 * 3 + 1 + 2)
    pixels = 56 * 56
    expected = {
        "fvcore": pixels * (64 * 96 - 32 * 48 - 32 * 5),  # no bias, norms five times
        "mmdet": pixels * (64 * 96 + 96 - 32 * (48 + 1) - 32 * 2),  # bias, norms twice
    }
    counts = [_counted(config) for config in (narrow, replace(narrow, stem_dim=96))]
    for name, difference in expected.items():
        first, second = (count.total(CONVENTIONS[name]) for count in counts)
        assert first - second == difference, name


def test_stem_projection_loads_and_computes_as_published(tmp_path: Path) -> None:
    spec = read_config(CONFIGS / "dat_t_ss_ld.yaml")
    model = datbench.create_model(spec).eval()
    weights = datbench.create_model(spec).state_dict()
    weight = weights.pop("stages.0.projection.weight")
    bias = weights.pop("stages.0.projection.bias").normal_()
    published = {"stages.0.proj.weight": weight[:, :, None, None], "stages.0.proj.bias": bias}
    torch.save({"model": weights | published}, tmp_path / "published.pth")
    datbench.load_checkpoint(model, tmp_path / "published.pth")
    assert torch.equal(model.stages[0].projection.bias, bias)
    seen: dict[str, torch.Tensor] = {}
    model.stem.register_forward_hook(lambda m, x, y: seen.update(stem=y))
    model.stages[0].blocks.register_forward_pre_hook(lambda m, x: seen.update(blocks=x[0]))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 96))
    expected = F.conv2d(seen["stem"].permute(0, 3, 1, 2), weight[:, :, None, None], bias)
    torch.testing.assert_close(seen["blocks"], expected.permute(0, 2, 3, 1))


# --- What is refused -----------------------------------------------------------------------------


# By file and place: what is changed there, and what is said of it after the place.
REFUSED = {
    ("dat_tiny", "MODEL.DAT"): {
        "heads: [3, 6, 12]": ".heads: must have 4 elements, not 3.",
        "heads: 3": ".heads: must be a list, not 3.",
        "heads: [3, 6, '12', 24]": ".heads[3]: must be a whole number, not '12'.",
        "heads: [3, 6, yes, 24]": ".heads[3]: must be a whole number, not True.",
        "heads: [3, 5, 12, 24]": ".heads: stage 2: width 192 is not a multiple of 5 heads.",
        "heads: [3, 0, 12, 24]": ".heads[2]: must be a number from 1, not 0.",
        "dims: [96, 192, 384, 512]": ".dims: stage 4: 512 is not twice 384.",
        "depths: [2, 2, 8, 2]": ".stage_spec: stage 3: it has 6 letters for depth 8.",
        "stage_spec: LD": ".stage_spec: must be a list, not 'LD'.",
        "stage_spec: [[L, 1], [], [], []]": ".stage_spec[1][2]: must be text, not 1.",
        "patch_size: 2": ".patch_size: only patches of 4 are built.",
        "patch_size: 4.0": ".patch_size: must be a whole number, not 4.0.",
        "drop_rate: 0.1": ".drop_rate: no dropout is built; write 0.0.",
        "attn_drop_rate: 0.1": ".attn_drop_rate: no dropout is built; write 0.0.",
        "drop_path_rate: 1": ".drop_path_rate: write a rate from 0 to below 1.",
        "drop_path_rate: .nan": ".drop_path_rate: must be a finite number, not nan.",
        "img_size: 31": ".img_size: must be a number from 32, not 31.",
        "groups: [-1, -1, 5, 6]": ".groups: stage 3: 12 heads are no multiple of 5 groups.",
        "strides": ".strides: stage 3: -1 lies outside 1 to 14 (strides is absent: this is its "
        "published default).",
        "use_dwc_mlps: [yes, yes, yes, no]": ".use_dwc_mlps: one value for all stages is built; "
        "write the same four times.",
        "{no_offs: [yes, yes, yes, yes], strides: [-1, -1, 2, 1]}": ".no_offs: stage 3: without "
        "offsets only a stride of 1 is built.",
        "{fixed_pes: [yes, yes, yes, yes], strides: [-1, -1, 2, 1]}": ".fixed_pes: stage 3: its "
        "table is for 14x14 keys, not 7x7.",
        # A stage that reads none of it may say -1, but must say it four times.
        "sr_ratios: [-1, -1, -1]": ".sr_ratios: must have 4 elements, not 3.",
        "use_pes: [no, no, yes, 1]": ".use_pes[4]: must be true or false, not 1.",
        "window_size: 7": ": unknown key 'window_size'; did you mean window_sizes",
        "group: [1, 1, 1, 1]": ": unknown key 'group'; did you mean groups",
        "3: 7": ": unknown key '3'",
    },
    ("datpp_tiny", "MODEL.DAT"): {
        "use_lpus: [yes, yes, yes, no]": ".use_lpus: one value for all stages is built; write the "
        "same four times.",
        "log_cpb: [yes, yes, yes, yes]": ".log_cpb: the continuous position bias is not built; "
        "write False.",
        "no_offs: [yes, yes, yes, yes]": ".no_offs: stage 1: it is built for the code of 2022 "
        "only.",
        "nat_ksizes: [7, 7, 6, 7]": ".nat_ksizes: stage 3: 6 is even; write an odd",
    },
    ("dat_tiny", ""): {
        "MODELS: 7": "top level: unknown key 'MODELS'; did you mean MODEL",
        "nonsense: 7": "top level: unknown key 'nonsense'",
        "BASE: [other.yaml]": "BASE: it names other files; write one file that holds",
        "MODEL: null": "MODEL: must be an object, not null",
        "MODEL: {TYPE: dat}": "MODEL.DAT: is missing",
        "MODEL: {TYPE: swin, DAT: {}}": "MODEL.TYPE: datbench reads models of type dat",
        "MODEL: {NAME: 7, DAT: {}}": "MODEL.NAME: must be text, not 7",
        "MODEL: [1]": "MODEL: must be an object, not a list",
        "DATA: {IMG_SIZE: '224'}": "DATA.IMG_SIZE: must be a whole number, not '224'",
        "DATA: 224": "DATA: must be an object, not 224",
    },
    ("dat_tiny", "MODEL"): {"Name: x": ": unknown key 'Name'; did you mean NAME"},
    ("dat_tiny", "DATA"): {"IMAGE_SIZE: 7": ": unknown key 'IMAGE_SIZE'; did you mean IMG_SIZE"},
}


@pytest.mark.parametrize(
    ("file", "place", "change", "message"),
    [(*where, *row) for where, rows in REFUSED.items() for row in rows.items()],
)
def test_what_is_refused_is_one_line_that_names_the_key(
    tmp_path: Path, file: str, place: str, change: str, message: str
) -> None:
    text = yaml.safe_dump(_with(file, place, change))
    assert _refusal(tmp_path, text).startswith(f"model.yaml: {place}{message}")


@pytest.mark.parametrize("letter", ["F", "Q", "X", "E", "C", "d", ""])
def test_blocks_that_are_not_built(tmp_path: Path, letter: str) -> None:
    content = _content("datpp_tiny")
    content["MODEL"]["DAT"]["stage_spec"][1][2] = letter
    assert _refusal(tmp_path, yaml.safe_dump(content)) == (
        f"model.yaml: MODEL.DAT.stage_spec: block {letter!r} is not built; choose L, S, N, P, D."
    )


def test_what_the_published_files_leave_open(tmp_path: Path) -> None:
    content = _content("dat_tiny") | {"BASE": [""], "DATA": None, "OUTPUT": "x", "SEED": 1}
    del content["MODEL"]["NAME"], content["MODEL"]["TYPE"]
    spec = _read(tmp_path, content)
    assert spec.summary == "model"
    assert spec.evaluated_at is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "model.yaml is empty; a configuration has a MODEL section."),
        ("# nothing\n", "model.yaml is empty; a configuration has a MODEL section."),
        ("- MODEL\n", "model.yaml holds a list, not the sections of a configuration."),
        ("MODEL:\n  DAT: [1, 2\n", "model.yaml: line 3, column 1: "),
        ("MODEL:\n\tDAT: 1\n", "model.yaml: line 2, column 1: "),
        (
            "MODEL: 1\nA: \x07\n",
            "model.yaml: line 2, column 4: special characters are not allowed.",
        ),
        ("MODEL: *gone\n", "model.yaml: line 1, column 8: found undefined alias 'gone'."),
        ("MODEL: !!python/name:os.system\n", "model.yaml: line 1, column 8: could not determine"),
        ("MODEL: !!timestamp x\n", "model.yaml: a value cannot be read as YAML (AttributeError)."),
        ("[" * 1500, "model.yaml: a value cannot be read as YAML (RecursionError)."),
        (
            f"MODEL: {{DAT: {{img_size: 0x{'f' * 5000}}}}}",  # Python prints no such number
            "model.yaml: MODEL.DAT.img_size: must be a number below 1e+30",
        ),
        (b"MODEL: \xff\n", "model.yaml is not UTF-8 text (byte 7)."),
        ("#" * ((1 << 20) + 1), "model.yaml is larger than 1.0 MiB, the most that is read."),
    ],
    ids=lambda value: str(value)[:20],
)
def test_malformed_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert _refusal(tmp_path, text).startswith(message)


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "gone.yaml", "there is no file {}."),
        (tmp_path, "{} is a directory; name a file."),
        (Path("/dev/null"), "{} is a device; name a file."),
        (tmp_path / ("x" * 300), "{}: File name too long."),
    ):
        with pytest.raises(UsageError) as caught:
            read_config(path)
        assert str(caught.value) == message.format(path)


def test_nested_aliases_are_not_printed(tmp_path: Path) -> None:
    """Ten lists of ten aliases each would be a text of ten gigabytes."""
    lines = ["A0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"A{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    text = "\n".join(["MODEL:", *(f"  {line}" for line in lines), "  DAT: *a9"])
    said = "model.yaml holds more than 10000 values, aliases included."
    assert _refusal(tmp_path, text) == said
    cyclic = "MODEL:\n  DAT: {heads: &h [*h, *h, *h, *h]}\n"
    assert _refusal(tmp_path, cyclic) == said


# --- Whatever else a file may say ----------------------------------------------------------------

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "L", "D", "x", "dat", "224", "\x1b[2J"]),
    st.lists(st.one_of(st.integers(-2, 9), st.booleans(), st.text(max_size=2)), max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.dates(),
)


def _mutate(data: st.DataObject, content: Any) -> None:
    """One change somewhere in nested mappings and lists, in place."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if isinstance(content[key], (dict, list)) and data.draw(st.integers(0, 5)):
            content = content[key]
            continue
        match data.draw(st.sampled_from(["replace", "remove", "double", "near"])):
            case "remove":
                del content[key]
            case "double" if isinstance(content, list):
                content.append(content[key])
            case "near" if isinstance(content[key], int):
                content[key] = content[key] + data.draw(st.integers(-4, 12))
            case _:
                content[key] = data.draw(JUNK)
        return


def _outcome(path: Path) -> ModelSpec | DatbenchError:
    try:
        return read_config(path)
    except DatbenchError as error:
        return error


RELAXED = settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@RELAXED
@given(data=st.data())
def test_a_changed_configuration_is_read_or_refused_in_one_line(
    tmp_path: Path, data: st.DataObject
) -> None:
    content = copy.deepcopy(_BASES[data.draw(st.sampled_from(sorted(_BASES)))])
    for _ in range(data.draw(st.integers(1, 3))):
        _mutate(data, content)
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    spec = _outcome(path)
    if isinstance(spec, DatbenchError):
        assert str(spec).startswith(str(path))
        assert spec.exit_code == 2
        return
    assert spec.resolution.width >= 32
    if len(_BUILT) < 12:  # what is read can be built
        _BUILT.append(datbench.create_model(spec, device="meta").config)


@RELAXED
@given(
    at=st.integers(0, 900),
    gone=st.integers(0, 30),
    text=st.text(st.sampled_from("\t\n :[]{}&*!|>'\"%@#-?,01aé\x00\u2028"), max_size=6),
)
def test_a_changed_text_is_read_or_refused(tmp_path: Path, at: int, gone: int, text: str) -> None:
    path, before = (tmp_path / "a.yaml", _TEXT) if at % 2 else (tmp_path / "a.py", DENSE)
    path.write_text(before[:at] + text + before[at + gone :], encoding="utf-8")
    spec = _outcome(path)
    assert isinstance(spec, ModelSpec) or str(spec).startswith(str(path))


_BASES = {name: _content(name) for name in ("dat_tiny", "datpp_tiny", "dat_t_ss_ld")}
_BASES["dense"] = {"model": {"backbone": _content("datpp_tiny")["MODEL"]["DAT"]}}
_TEXT = (CONFIGS / "dat_tiny.yaml").read_text()
_BUILT: list[Pyramid] = []
