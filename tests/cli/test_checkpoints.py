"""Checkpoints that must load: every published layout, whole, and into the right places."""

import json
import re
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import datbench
from benchmarks.published_way.recipe import recipe_input
from datbench.errors import CheckpointError, DatbenchWarning, UsageError, listening
from datbench.models.checkpoints import match_checkpoint
from datbench.models.config import Pyramid, Stage, Window
from datbench.models.dat import DAT_T, REGISTRY
from datbench.models.pyramid import PyramidBackbone
from datbench.models.records import CheckpointReport
from datbench.models.spec import ModelSpec

from .published import DAT, DATPP, LAYOUTS, Pair, Weights, detector, shapes
from .runner import Run

FILE = Path("weights.pth")
PAIRS = pytest.mark.parametrize("pair", LAYOUTS.values(), ids=LAYOUTS)
YEARS = pytest.mark.parametrize("pair", [DAT, DATPP], ids=["2022", "2023"])
COMPUTED = ("relative_position_index", "attn_mask", "q_grid", "reference")


def save(content: object) -> Path:
    torch.save(content, FILE)
    return FILE


def build(pair: Pair, **options: object) -> PyramidBackbone:
    return datbench.create_model(pair.spec, **options).eval()


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(recipe_input(2, 64, 64))
    return found


def loaded(model: PyramidBackbone, weights: Weights, content: object = None) -> CheckpointReport:
    """What is loaded of a file with these weights in the content, or alone.

    Every parameter of ours and every key of the file is accounted for once.
    """
    report = datbench.load_checkpoint(model, save(content or {"model": weights}))
    ours = [*report.matched, *(r.name for r in report.resized), *report.initialised]
    assert sorted(ours) == sorted(model.state_dict())
    assert set(report.ignored) <= set(weights)
    assert len(set(report.ignored)) == len(report.ignored)
    assert len(weights) == len(report.matched) + len(report.resized) + len(report.ignored)
    return report


@PAIRS
def test_a_classification_file_makes_the_same_model(pair: Pair) -> None:
    theirs = pair.build_theirs()
    weights = theirs.state_dict()
    model = build(pair)
    content = {"model": weights, "epoch": 299, "optimizer": {"lr": 1e-3}}
    report = loaded(model, weights, content)
    assert not report.resized + report.initialised
    assert all(key.endswith(COMPUTED) for key in report.ignored)
    torch.testing.assert_close(logits(model), logits(theirs), atol=1e-4, rtol=1e-4)


@YEARS
def test_classifiers_and_detectors_read_each_others_files(pair: Pair) -> None:
    weights = pair.build_theirs().state_dict()
    content = detector(weights, tuple(stage.dim for stage in pair.config.stages))
    state = content["state_dict"]
    assert isinstance(state, dict)
    whole, backbone = build(pair), build(pair, features_only=True)
    before = backbone.norms[0].weight.clone()
    report = loaded(backbone, weights)
    norms = {f"norms.{i}.{part}" for i in range(4) for part in ("weight", "bias")}
    assert set(report.initialised) == norms
    assert {key for key in weights if key.startswith("cls_")} <= set(report.ignored)
    assert torch.equal(backbone.norms[0].weight, before)
    report = loaded(whole, state, content)
    assert {name.partition(".")[0] for name in report.initialised} == {"head"}
    assert "backbone.norms.0.norm.weight" in report.ignored
    report = loaded(backbone, state, content)
    assert not report.resized + report.initialised
    outside = {"neck.lateral_convs.0.conv.weight", "roi_head.bbox_head.fc_cls.bias"}
    assert outside <= set(report.ignored)
    assert torch.equal(backbone.norms[2].bias, state["backbone.norms.2.norm.bias"])
    loaded(whole, weights)
    ours, theirs = backbone.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours if not k.startswith("norms."))


def _behind(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{key}": value for key, value in weights.items()}


def _by_stage(weights: Weights) -> Weights:
    return {re.sub(r"^stages\.\d\.", r"\g<0>_orig_mod.", key): w for key, w in weights.items()}


MOMENTS = {"state": {0: {"step": torch.ones(1)}}, "exp_avg": {"stages.0.x.weight": torch.ones(2)}}

PLACES: dict[str, tuple[Callable[[Weights, Weights], object], str, str]] = {
    "bare": (lambda w, _: w, "", ""),
    "a counter": (lambda w, _: {**_behind("module.", w), "n": torch.ones(1)}, "module", ""),
    "numbers beside them": (lambda w, _: {**w, "epoch": torch.tensor(3), "lr": 0.1}, "", ""),
    "published": (lambda w, _: {"model": w, "optimizer": MOMENTS, "epoch": 3}, "model", ""),
    "optimizer first": (lambda w, _: {"optimizer_states": [MOMENTS], "net": w}, "net", ""),
    "an odd word": (lambda w, _: {"optimized_network": w}, "optimized_network", ""),
    "nested": (lambda w, _: {"model": {"state_dict": w}}, "model.state_dict", ""),
    "a list of one": (lambda w, _: [w], "0", ""),
    "timm": (
        lambda w, e: {"state_dict_ema": e, "state_dict": w, "arch": "dat_t"},
        "state_dict",
        "state_dict_ema",
    ),
    "only averaged": (lambda w, _: {"model_ema": {"module": w}}, "model_ema.module", ""),
    "BasicSR": (lambda w, e: {"params_ema": e, "params": w}, "params", "params_ema"),
    "mmengine": (
        lambda w, e: {"ema_state_dict": e, "state_dict": w},
        "state_dict",
        "ema_state_dict",
    ),
    "DINO": (
        lambda w, e: {"teacher": _behind("backbone.", e), "student": _behind("module.", w)},
        "student.module",
        "teacher",
    ),
    "two in a dictionary": (
        lambda w, e: {"state_dict": {**_behind("ema.module.", e), **_behind("online.net.", w)}},
        "state_dict.online.net",
        "ema.module",
    ),
    "an average inside": (lambda w, e: {**_behind("ema.", e), **w}, "", "ema"),
    "Lightning": (
        lambda w, _: {"state_dict": _behind("model.net.", w)},
        "state_dict.model.net",
        "",
    ),
    "compiled": (lambda w, _: {"model": _behind("_orig_mod.", w)}, "model", ""),
    "compiled in DDP": (lambda w, _: _behind("module._orig_mod.", w), "module", ""),
    "DDP in compiled": (lambda w, _: _behind("_orig_mod.module.model.", w), "module.model", ""),
    "compiled by stages": (lambda w, _: _by_stage(w), "", ""),
    "FSDP": (lambda w, _: _behind("_fsdp_wrapped_module.", w), "", ""),
}
"""A file's content from weights and from an average of them; where each is read."""


@pytest.fixture(scope="module")
def weights() -> Weights:
    return dict(DAT.build_theirs().state_dict())


@pytest.mark.parametrize("layout", PLACES)
def test_weights_are_found_wherever_they_are(weights: Weights, layout: str) -> None:
    write, place, other = PLACES[layout]
    average = {key: value + 1 for key, value in weights.items()}
    model, said = build(DAT, device="meta"), []
    expected, _ = match_checkpoint(model, save(weights))
    path = save(write(weights, average))
    with listening(said.append):
        tensors, report = match_checkpoint(model, path)
        assert report.weights == place
        assert len(report.matched) == len(expected)
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)
        if other:
            assert [(place or "bare ones") in line and other in line for line in said] == [True]
            assert report.notes[0] in said[0]
            tensors, report = match_checkpoint(model, path, other)
            assert f".{other}." in f".{report.weights}."
            assert torch.equal(tensors["stem.0.bias"], expected["stem.0.bias"] + 1)
    assert len(said) == bool(other)
    with pytest.raises(UsageError, match=rf"no weights under 'mine'; it has .*{place}"):
        match_checkpoint(model, path, "mine")


@pytest.mark.parametrize("content", ["fp16", "safetensors", "module of theirs", "protocol 4"])
def test_other_ways_to_save(weights: Weights, content: str) -> None:
    model = build(DAT)
    expected, _ = match_checkpoint(model, save(weights))
    path, loose = FILE, 0.0
    if content == "fp16":
        loose = 1e-3
        save({key: w.half() if w.is_floating_point() else w for key, w in weights.items()})
    elif content == "safetensors":
        path = Path("weights.safetensors")
        save_file(_behind("module.", weights), path)
    elif content == "protocol 4":
        torch.save(weights, FILE, pickle_protocol=4)
    else:
        theirs = torch.nn.Module()
        theirs.backbone = DAT.build_theirs()
        save({"ema": theirs, "epoch": 3})
    datbench.load_checkpoint(model, path)
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], atol=loose, rtol=loose)


TRAINER = """
import argparse, collections, enum, pathlib
import numpy as np

class Node(dict):
    def __init__(self, *args, **given):
        super().__init__(*args, **given)
        self.frozen = True

    def __setstate__(self, state):
        pathlib.Path("marker").mkdir()

class Slots:
    __slots__ = ("best",)

class Steps(list):
    class Kind:
        pass

class Phase(enum.Enum):
    TRAIN = 1

def metadata():
    slots = Slots()
    slots.best = np.float64(81.6)
    return {
        "args": argparse.Namespace(lr=1e-3, out=pathlib.Path("runs")),
        "config": Node(model=Node(name="dat_t"), steps=Steps([1, 2])),
        "history": {Phase.TRAIN: np.ones(3), "queue": collections.deque([1])},
        "best": [slots, Steps.Kind()],
        "counts": collections.defaultdict(int, a=1),
    }
"""


@pytest.mark.parametrize("form", ["zip", "before 1.6", "protocol 4"])
def test_foreign_classes_beside_the_weights_are_not_imported(
    weights: Weights, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("their_trainer")
    monkeypatch.setitem(sys.modules, "their_trainer", module)
    exec(TRAINER, vars(module))
    torch.save(
        {**module.metadata(), "model": module.Node(weights)},
        FILE,
        pickle_protocol=4 if form == "protocol 4" else 2,
        _use_new_zipfile_serialization=form != "before 1.6",
    )
    monkeypatch.delitem(sys.modules, "their_trainer")
    monkeypatch.syspath_prepend(Path.cwd())
    Path("their_trainer.py").write_text("import os\nos.mkdir('imported')\n")
    model = build(DAT)
    report = datbench.load_checkpoint(model, FILE)
    assert report.weights == "model"
    expected, _ = match_checkpoint(model, save(weights))
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert not Path("marker").exists()
    assert not Path("imported").exists()


def test_a_classifier_of_another_size(run: Run, weights: Weights) -> None:
    """It is in the way only where it is needed."""
    with pytest.raises(
        CheckpointError, match=r"\(5, 64\) in .*\(name it as in dat_t,num_classes=10\)"
    ):
        datbench.load_checkpoint(build(DAT, num_classes=5), save(weights))
    model = build(DAT, num_classes=5)
    before = model.head.linear.weight.clone()
    with pytest.warns(DatbenchWarning, match=r"not read: cls_head.weight is \(10, 64\)"):
        report = datbench.load_checkpoint(model, FILE, head=False)
    assert report.initialised == ("head.linear.weight", "head.linear.bias")
    assert torch.equal(model.head.linear.weight, before)
    datbench.load_checkpoint(build(DAT, features_only=True), FILE)
    whole = shapes("dat_t")
    save({**whole, "cls_head.weight": torch.ones(7, 768), "cls_head.bias": torch.ones(7)})
    result = run("show", "dat_t", "--checkpoint", str(FILE))
    assert result.code == 0
    assert "left as initialised        2  head.linear.weight" in result.out
    assert "dat_t,num_classes=7" in result.err
    save({**whole, "patch_proj.0.weight": torch.ones(96, 4, 4, 4)})
    line = run("show", "dat_t", "--checkpoint", str(FILE)).complaint()
    assert line.endswith("(96, 3, 4, 4) in the model (name it as in dat_t,in_chans=4).")


def test_a_classifier_of_mmpretrain_is_read(weights: Weights) -> None:
    head = {f"head.fc.{part}": weights[f"cls_head.{part}"] for part in ("weight", "bias")}
    inside = {key: value for key, value in weights.items() if not key.startswith("cls_head.")}
    expected, _ = match_checkpoint(build(DAT), save(weights))
    path = save({"state_dict": {**_behind("backbone.", inside), **head}})
    tensors, report = match_checkpoint(build(DAT), path)
    assert torch.equal(tensors["head.linear.weight"], expected["head.linear.weight"])
    assert not report.initialised


def test_values_that_are_not_finite_are_a_warning(weights: Weights) -> None:
    odd = {**weights, "cls_head.bias": torch.full((10,), torch.nan)}
    with pytest.warns(
        DatbenchWarning, match=r"head.linear.bias are not finite \(NaN or infinite\)"
    ):
        datbench.load_checkpoint(build(DAT), save(odd))
    odd["cls_norm.norm.weight"] = torch.full((64,), 1e39, dtype=torch.float64)  # inf in float32
    with pytest.warns(DatbenchWarning, match="values of head.norm.weight are not finite"):
        datbench.load_checkpoint(build(DAT), save(odd))


def test_show_takes_the_weights_that_are_named(run: Run) -> None:
    save({"model": shapes("dat_t"), "model_ema": shapes("dat_t")})
    words = ("show", "dat_t", "--checkpoint", str(FILE))
    assert "model are read, not model_ema; choose with --weights KEY" in run(*words).err
    assert "checkpoint weights.pth (model_ema)" in run(*words, "--weights", "model_ema").text
    assert run(*words, "--weights", "ema").complaint() == (
        "weights.pth has no weights under 'ema'; it has model, model_ema."
    )


@YEARS
def test_buffers_that_we_compute_may_be_there_or_not(pair: Pair) -> None:
    weights = pair.build_theirs().state_dict()
    without = {k: v for k, v in weights.items() if not k.endswith(COMPUTED)}
    extra = {f"stages.3.attns.0.{name}": torch.ones(3) for name in COMPUTED}
    model = build(pair)
    for content in (weights, without, {**without, **extra}):
        report = loaded(model, content)
        assert len(report.matched) == len(without)
        assert set(report.ignored) == set(content) - set(without)


@pytest.mark.parametrize("parameter", ["weight", "gamma"])
@YEARS
def test_layer_scale_goes_to_its_block_and_branch(pair: Pair, parameter: str) -> None:
    weights = dict(pair.build_theirs().state_dict())
    for i, stage in enumerate(pair.config.stages):
        for j in range(2 * len(stage.blocks)):
            key = f"stages.{i}.layer_scales.{j}.{parameter}"
            weights[key] = torch.full((stage.dim,), 10.0 * i + j)
    model = build(pair, layer_scale=1e-5)
    loaded(model, weights)
    block = model.stages[2].blocks[1]
    assert torch.equal(block.scale1.weight, torch.full((32,), 22.0))
    assert torch.equal(block.scale2.weight, torch.full((32,), 23.0))
    with pytest.raises(CheckpointError, match=rf"layer_scales\.0\.{parameter} .* not in the model"):
        datbench.load_checkpoint(build(pair), FILE)


def bicubic(table: Tensor, side: int) -> Tensor:
    """(M, s, s) -> (M, side, side)."""
    return F.interpolate(table[None], (side, side), mode="bicubic", align_corners=False)[0]


def _larger(stage: Stage, size: int) -> Stage:
    """The stage with larger windows, shifted by half of them."""
    blocks = [
        replace(mixer, size=size, shift=mixer.shift and size // 2)
        if isinstance(mixer, Window)
        else mixer
        for mixer in stage.blocks
    ]
    return replace(stage, blocks=tuple(blocks))


def _flat(table: Tensor, heads: int) -> Tensor:
    """(49, M) of windows of 4 -> (121, M) of windows of 6, a column a head."""
    return bicubic(table.t().reshape(heads, 7, 7), 11).reshape(heads, 121).t()


_FIRST = DATPP.config.stages[0]
_WIDER = replace(_FIRST, blocks=(replace(_FIRST.blocks[0], size=5), _FIRST.blocks[1]))
_MIXER = "stages.{}.blocks.{}.mixer.bias_table"

RESIZED: dict[str, tuple[Pair, Pyramid, int, dict[str, tuple[str, Callable[..., Tensor]]]]] = {
    # A file of 64 into a model of 96: maps of 4 and 2 become 6 and 3.
    "deformable": (
        DAT,
        replace(DAT.config, image_size=96),
        2,
        {
            _MIXER.format(2, 1): ("stages.2.attns.1.rpe_table", lambda x: bicubic(x, 11)),
            _MIXER.format(3, 1): ("stages.3.attns.1.rpe_table", lambda x: bicubic(x, 5)),
        },
    ),
    "windows": (
        DAT,
        replace(DAT.config, stages=tuple(_larger(stage, 6) for stage in DAT.config.stages)),
        6,
        {
            _MIXER.format(stage, 0): (
                f"stages.{stage}.attns.0.relative_position_bias_table",
                partial(_flat, heads=heads),
            )
            for stage, heads in ((0, 1), (2, 4))
        },
    ),
    "neighbourhoods": (
        DATPP,
        replace(DATPP.config, stages=(_WIDER, *DATPP.config.stages[1:])),
        1,
        {_MIXER.format(0, 0): ("stages.0.attns.0.rpb", lambda x: bicubic(x, 9))},
    ),
}
"""A file's model, the model that reads it, how many tables differ, and what some of them become."""


@pytest.mark.parametrize("kind", RESIZED)
def test_tables_are_resized_bicubically(kind: str) -> None:
    pair, config, number, expected = RESIZED[kind]
    weights = pair.build_theirs().state_dict()
    model = datbench.create_model(ModelSpec("tiny", config, "dat", "a test", "tiny"))
    report = loaded(model, weights)
    assert len(report.resized) == number
    was = {each.name: each.was for each in report.resized}
    for name, (key, resized) in expected.items():
        assert was[name] == weights[key].shape
        assert torch.equal(model.state_dict()[name], resized(weights[key]))
    if kind == "deformable":
        logits(model.eval())


def test_a_file_of_224_fits_a_model_of_384() -> None:
    weights = shapes("dat_t")
    config = replace(DAT_T, image_size=384)
    model = datbench.create_model(
        ModelSpec("dat_t_384", config, "dat", "a test", "DAT-T"), device="meta"
    )
    _, report = match_checkpoint(model, save({"model": weights}))
    assert {(r.was, r.now) for r in report.resized} == {
        ((12, 27, 27), (12, 47, 47)),
        ((24, 13, 13), (24, 23, 23)),
    }


@pytest.mark.parametrize("features", [False, True])
@PAIRS
def test_our_own_weights_go_out_and_in(pair: Pair, features: bool) -> None:
    saved = build(pair, features_only=features, layer_scale=0.5)
    for parameter in saved.parameters():
        torch.nn.init.normal_(parameter)
    model = build(pair, features_only=features, layer_scale=0.5)
    report = datbench.load_checkpoint(model, save(saved.state_dict()))
    assert report.matched == tuple(saved.state_dict())
    assert not report.resized + report.ignored + report.initialised
    assert all(
        torch.equal(a, b) for a, b in zip(saved.parameters(), model.parameters(), strict=True)
    )
    assert str(report) == (
        f"weights.pth: {len(report.matched)} matched, 0 resized, 0 ignored, 0 left as initialised"
    )


def _refusals() -> dict[str, Callable[[Weights], Weights]]:
    last = "stages.3.mlps.1." + "chunk.linear2.bias"

    def without(*keys: str) -> Callable[[Weights], Weights]:
        return lambda weights: {k: v for k, v in weights.items() if k not in keys}

    def changed(key: str, value: Callable[[Tensor], Tensor]) -> Callable[[Weights], Weights]:
        return lambda weights: {**weights, key: value(weights[key])}

    table = "stages.2.attns.1.rpe_table"
    return {
        "a key is missing": without(last),
        "a key is unknown": lambda weights: {**weights, "stages.4.norm.weight": torch.ones(8)},
        "a shape differs": changed("patch_proj.0.bias", lambda x: x.repeat(2)),
        "a table of other heads": changed(table, lambda x: x.repeat(2, 1, 1)),
        "a table that is no square": changed(table, lambda x: x[:, 1:]),
        "integers": changed(last, lambda x: x.to(torch.int64)),
        "complex numbers": changed(last, lambda x: x.to(torch.complex64)),
        "sparse": changed(last, lambda x: x.to_sparse()),
        "without storage": changed(last, lambda x: x.to("meta")),
        "the same parameter twice": lambda weights: {
            **weights,
            "stages.3.blocks.1.ffn.linear2.bias": weights[last],
        },
        "a head of other classes": changed("cls_head.bias", lambda x: x[:5]),
    }


@pytest.mark.parametrize("refusal", _refusals())
def test_a_refused_model_is_unchanged(refusal: str) -> None:
    weights = _refusals()[refusal](dict(DAT.build_theirs().state_dict()))
    model = build(DAT)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        datbench.load_checkpoint(model, save({"model": weights}))
    assert "weights.pth" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_on_meta_cannot_be_loaded_into() -> None:
    model = build(DAT, device="meta")
    path = save({"model": DAT.build_theirs().state_dict()})
    with pytest.raises(UsageError, match="on meta"):
        datbench.load_checkpoint(model, path)
    assert match_checkpoint(model, path)[1].matched


@pytest.mark.parametrize("name", ["dat_t", "datpp_t"])
def test_show_tells_what_matched(run: Run, name: str) -> None:
    weights = shapes(name)
    save({"model": weights})
    text = run("show", name, "--checkpoint", str(FILE)).text
    assert "checkpoint weights.pth" in text
    (row,) = run("show", name, "--checkpoint", str(FILE), "--format", "json").rows
    found = row["checkpoint"]
    assert len(found["matched"]) + len(found["ignored"]) == len(weights)
    assert found["resized"] == found["initialised"] == []
    line = next(line for line in text.splitlines() if line.startswith("matched"))
    assert line.split()[1] == str(len(found["matched"]))
    assert "left as initialised        0" in text


def test_show_names_what_a_detector_file_lacks(run: Run) -> None:
    dims = tuple(stage.dim for stage in REGISTRY.get("dat_t").config.stages)
    save(detector(shapes("dat_t"), dims))
    text = " ".join(run("show", "dat_t", "--checkpoint", str(FILE)).text.split())
    assert "left as initialised 4 head.norm.weight, head.norm.bias, head.linear.weight" in text
    assert "ignored 20 neck.lateral_convs.0.conv.weight, " in text
    assert "and 16 more" in text


def test_names_in_a_file_cannot_steer_the_terminal(run: Run) -> None:
    hostile = "neck.\x1b]0;gone\x07\n"
    weights = {f"backbone.{key}": value for key, value in shapes("dat_t").items()}
    save({**weights, hostile: torch.ones(1)})
    assert run("show", "dat_t", "--checkpoint", str(FILE), "--out", "s.json").text == ""
    for kind in ("table", "md", "latex"):
        assert run("results", "show", "s.json", "--format", kind).text
    (row,) = json.loads(Path("s.json").read_text())["rows"]
    assert hostile in row["checkpoint"]["ignored"]
    save({**shapes("dat_t"), hostile: torch.ones(1)})
    assert r"neck.\x1b]0;gone" in run("show", "dat_t", "--checkpoint", str(FILE)).complaint()


def test_the_frozen_grid_of_deformable_detr_is_loaded_where_it_fits() -> None:
    pair = LAYOUTS["2022, Deformable-DETR"]
    weights = pair.build_theirs().state_dict()
    key, name = "stages.0.attns.1.reference", "stages.0.blocks.1.mixer.reference"
    assert name in loaded(build(pair), weights).matched
    without = {other: value for other, value in weights.items() if other != key}
    assert loaded(build(pair), without).initialised == (name,)
    larger = replace(pair.config, image_size=96)
    model = datbench.create_model(ModelSpec("tiny", larger, "dat", "a test", "tiny"))
    report = loaded(model, weights)
    assert report.initialised == (name,)
    assert key in report.ignored
