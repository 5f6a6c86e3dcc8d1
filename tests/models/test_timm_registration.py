"""Our variants as timm's after `register_timm`, and what timm's tools ask of a model."""

import copy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import datbench
from benchmarks.published_way import goldens
from datbench.counting.conventions import CONVENTIONS
from datbench.errors import LibraryError, UsageError

NAMES = datbench.list_models()


# --- When it happens: a stand-in for timm, so that nothing heavy is loaded ------------------------


def _stand_in() -> Any:
    """A `timm` that has a registry and nothing else."""
    timm: Any = ModuleType("timm")
    timm.models = ModuleType("timm.models")
    timm.models.known = {"dat_b": "timm's own"}
    timm.models.is_model = timm.models.known.__contains__
    timm.models.register_model = lambda made: timm.models.known.update({made.__name__: made})
    return timm


class Fails:
    """A finder of modules with a timm that does not load."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "timm":
            raise ImportError("no torchvision")


def test_an_import_loads_and_changes_nothing() -> None:
    code = (
        "import sys; before = list(sys.meta_path)\n"
        "import datbench, datbench.models\n"
        "assert not {'timm', 'torch'} & sys.modules.keys() and sys.meta_path == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_timm_gets_them_when_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = _stand_in()
    monkeypatch.setitem(sys.modules, "timm", timm)
    assert not timm.models.is_model("dat_t")
    datbench.register_timm()
    datbench.register_timm()
    assert timm.models.known.pop("dat_b") == "timm's own"  # a name that timm has is left alone
    assert {name: made.__name__ for name, made in timm.models.known.items()} == {
        name: name for name in NAMES if name != "dat_b"
    }


def test_a_timm_that_does_not_load_may_load_later(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = _stand_in()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(LibraryError, match=r"^this needs timm, and timm is not installed: pip in"):
        datbench.register_timm()
    monkeypatch.delitem(sys.modules, "timm")
    monkeypatch.setattr(sys, "meta_path", [Fails(), *sys.meta_path])
    with pytest.raises(LibraryError, match=r"^timm cannot be loaded: no torchvision\. Its torc"):
        datbench.register_timm()
    monkeypatch.setitem(sys.modules, "timm", timm)
    datbench.register_timm()
    assert timm.models.is_model("dat_t")


# --- What timm gets ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timm() -> Any:
    found = pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    datbench.register_timm()
    return found


def test_timm_itself_lists_them(timm: Any) -> None:
    assert timm.list_models("dat*") == sorted(NAMES, key=timm.models._registry._natural_key)
    assert timm.is_model("davit_tiny")


@pytest.mark.parametrize("name", ["dat_t", "datpp_t"])
def test_the_same_model(timm: Any, name: str) -> None:
    theirs = timm.create_model(name).eval()
    ours = datbench.create_model(name).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = ours(x)
        assert torch.equal(theirs(x), expected)
        features = theirs.forward_features(x)
        assert features.shape == (2, theirs.num_features, 2, 3)
        torch.testing.assert_close(theirs.forward_head(features), expected)
        pooled = theirs.forward_head(features, pre_logits=True)
        torch.testing.assert_close(theirs.get_classifier()(pooled), expected)
        theirs.reset_classifier(0)
        torch.testing.assert_close(theirs(x), pooled)
        torch.testing.assert_close(theirs.forward_head(features), pooled)
    assert pooled.shape == (2, theirs.head_hidden_size)


def test_classes(timm: Any) -> None:
    model = timm.create_model(
        "dat_t", num_classes=10, drop_path_rate=0.3, attention="sdpa", device="meta"
    )
    assert model.num_classes == model.get_classifier().out_features == 10
    assert model.stages[3].blocks[1].drop_path.rate == pytest.approx(0.3)
    assert model.stages[0].blocks[0].mixer.attention == "sdpa"
    model.reset_classifier(7, global_pool="avg")
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 7)
    assert (model.num_classes, model.config.classes) == (7, 7)
    bare = timm.create_model("dat_t", num_classes=0, device="meta", dtype=torch.bfloat16)
    assert bare.num_classes == 0
    pooled = bare(torch.empty(2, 3, 64, 64, device="meta", dtype=torch.bfloat16))
    assert (pooled.shape, pooled.dtype) == ((2, 768), torch.bfloat16)
    assert not any(key.startswith("head.linear") for key in bare.state_dict())


def test_features(timm: Any) -> None:
    ours = datbench.create_model("dat_t", features_only=True).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = ours(x)
    for out_indices, stages in (
        (None, (0, 1, 2, 3)),
        ((0, 2), (0, 2)),
        ((-1, 1), (3, 1)),
        (2, (2, 3)),
        ([-4], (0,)),
    ):
        model = timm.create_model(
            "dat_t", features_only=True, out_indices=out_indices, num_classes=0
        ).eval()
        assert model.feature_info.channels() == [96 << i for i in stages]
        assert model.feature_info.reduction() == [4 << i for i in stages]
        assert model.feature_info.module_name() == [f"stages.{i}" for i in stages]
        assert "classifier" not in model.pretrained_cfg
        model.load_state_dict(ours.state_dict())
        with torch.no_grad():
            maps = model(x)
        assert len(maps) == len(stages)
        assert all(torch.equal(y, expected[i]) for y, i in zip(maps, stages, strict=True))


def test_stages_after_the_last_do_not_run(timm: Any) -> None:
    model = timm.create_model("dat_t", features_only=True, out_indices=(1,), device="meta")
    model.stages[2].register_forward_hook(lambda *_: pytest.fail("stage 3 ran"))
    model(torch.empty(1, 3, 64, 64, device="meta"))


def test_description(timm: Any) -> None:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_model_data_config

    model = timm.create_model(
        "datpp_b_384", device="meta", pretrained_cfg_overlay={"crop_pct": 1.0}
    )
    config = resolve_model_data_config(model)
    assert config["input_size"] == (3, 384, 384)
    assert (config["mean"], config["std"]) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    assert config["crop_pct"] == 1.0
    assert model.default_cfg is model.pretrained_cfg
    for key in ("first_conv", "classifier"):
        named = model.get_submodule(model.pretrained_cfg[key])
        assert isinstance(named, torch.nn.Conv2d if key == "first_conv" else torch.nn.Linear)
    assert model.pretrained_cfg["num_classes"] == 1000
    assert (
        timm.create_model("dat_t", pretrained_cfg={"num_classes": 5}, device="meta").num_classes
        == 5
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "published.pth"
    torch.save({"model": goldens.build("dat_t").state_dict()}, path)
    return path


@pytest.mark.parametrize("options", [{}, {"num_classes": 0}, {"features_only": True}], ids=str)
def test_published_weights_load(timm: Any, published: Path, options: dict[str, Any]) -> None:
    """What the file holds for a head that is not there is ignored."""
    report = datbench.load_checkpoint(timm.create_model("dat_t", **options), published)
    assert ("head.linear.weight" in report.matched) == (options == {})
    assert "stages.3.blocks.1.mixer.bias_table" in report.matched
    assert any(key.startswith("cls_head.") for key in report.ignored) == (options != {})


def test_own_weights_load_through_timm(timm: Any, tmp_path: Path) -> None:
    weights = datbench.create_model("dat_t").state_dict()
    torch.save(weights, tmp_path / "own.pth")
    model = timm.create_model("dat_t", checkpoint_path=str(tmp_path / "own.pth"))
    assert torch.equal(model.stem[0].weight, weights["stem.0.weight"])


def test_a_copy_is_a_model_too(timm: Any) -> None:
    model = copy.deepcopy(timm.create_model("dat_t", features_only=True, device="meta"))
    assert len(model(torch.empty(1, 3, 64, 64, device="meta"))) == 4


def test_it_counts_the_same(timm: Any) -> None:
    x = torch.empty(1, 3, 224, 224, device="meta")
    counts = [
        datbench.count(make("dat_t", device="meta").eval(), x)
        for make in (timm.create_model, datbench.create_model)
    ]
    for convention in CONVENTIONS.values():
        assert counts[0].total(convention) == counts[1].total(convention)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": True}, "no weights of dat_t are hosted: .*datbench.load_checkpoint"),
        ({"in_chans": 0}, "in_chans: must be a number from 1"),
        ({"drop_rate": 0.1}, "no dropout"),
        ({"drop_path_rate": 1.0}, "from 0 to below 1"),
        ({"num_classes": -1}, "num_classes: must not be negative"),
        ({"attention": "flash"}, "choose one of eager, sdpa"),
        ({"global_pool": "max"}, "the head averages"),
        ({"img_size": 16}, "at least 32"),
        ({"img_size": (224, 224, 3)}, "one side or"),
        ({"out_indices": (0,)}, "features_only=True"),
        ({"features_only": True, "out_indices": (4,)}, "stages 0 to 3"),
        ({"features_only": True, "out_indices": ()}, "stages 0 to 3"),
        ({"features_only": True, "out_indices": 5}, "stages 0 to 3"),
    ],
    ids=str,
)
def test_what_there_is_not_is_refused(timm: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        timm.create_model("dat_t", **options)


def test_an_unknown_argument_is_refused(timm: Any) -> None:
    with pytest.raises(TypeError, match="window_size"):
        timm.create_model("dat_t", window_size=7)


def test_a_new_head_is_checked(timm: Any) -> None:
    model = timm.create_model("dat_t", device="meta")
    with pytest.raises(UsageError, match="num_classes -2"):
        model.reset_classifier(-2)
    with pytest.raises(UsageError, match="the head averages"):
        model.reset_classifier(10, global_pool="max")
