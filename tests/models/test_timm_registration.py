"""Our variants as timm's after `register_timm`, and what timm's tools ask of a model."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import datbench
from datbench.errors import UsageError

NAMES = datbench.list_models()


def _python(code: str, *flags: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run in a fresh interpreter; `path` comes first on its search path."""
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (str(path), environment.get("PYTHONPATH")) if part
        )
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def _printed(code: str, *flags: str, path: Path | None = None) -> str:
    done = _python(code, *flags, path=path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


# --- When it happens: a stand-in for timm, so that nothing heavy is loaded ------------------------

MODELS = """
known = {"dat_b": "timm's own"}
is_model = known.__contains__
def register_model(fn):
    known[fn.__name__] = fn
    return fn
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A directory with a package `timm` that has a registry and nothing else."""
    (tmp_path / "timm" / "models").mkdir(parents=True)
    (tmp_path / "timm" / "__init__.py").write_text("from .models import is_model\n")
    (tmp_path / "timm" / "models" / "__init__.py").write_text(MODELS)
    return tmp_path


def test_an_import_loads_and_changes_nothing() -> None:
    code = (
        "import sys; before = list(sys.meta_path)\n"
        "import datbench, datbench.models\n"
        "print([m for m in ('timm', 'torch') if m in sys.modules], sys.meta_path == before)"
    )
    assert _printed(code) == "[] True"


@pytest.mark.parametrize("imports", ["import datbench, timm", "import timm, datbench"])
def test_timm_gets_them_when_it_is_told(stand_in: Path, imports: str) -> None:
    code = (
        f"{imports}\n"
        "print(timm.is_model('dat_t'))\n"
        "datbench.register_timm(); datbench.register_timm()\n"
        "from timm.models import known\n"
        "ours = [n for n, f in known.items() if getattr(f, '__name__', '') == n]\n"
        "print(sorted(ours), known['dat_b'])"
    )
    ours = sorted(set(NAMES) - {"dat_b"})  # a name that timm has is left alone
    assert _printed(code, "-W", "error", path=stand_in) == f"False\n{ours} timm's own"


def test_a_timm_that_does_not_load_may_load_later(stand_in: Path) -> None:
    models = stand_in / "timm" / "models" / "__init__.py"
    models.write_text("raise ImportError('no torchvision')")
    code = (
        "import datbench, pathlib\n"
        "try:\n    datbench.register_timm()\n"
        "except datbench.DatbenchError as error:\n    print(str(error)[:47])\n"
        f"pathlib.Path({str(models)!r}).write_text({MODELS!r})\n"
        "datbench.register_timm()\n"
        "import timm; print(timm.is_model('dat_t'))"
    )
    assert (
        _printed(code, "-B", path=stand_in)
        == "timm cannot be loaded: no torchvision. Its torc\nTrue"
    )


def test_without_timm_everything_else_works() -> None:
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.partition('.')[0] == 'timm':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import datbench\n"
        "try:\n    datbench.register_timm()\n"
        "except datbench.DatbenchError as error:\n    print(error)\n"
        "print('dat_t' in datbench.list_models())"
    )
    assert _printed(code, "-W", "error") == (
        "this needs timm, and timm is not installed: pip install timm torchvision.\nTrue"
    )


# --- What timm gets ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timm() -> Any:
    found = pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    datbench.register_timm()
    return found


def test_timm_itself_lists_them(timm: Any) -> None:
    code = (
        "import datbench, timm\n"
        "print(timm.list_models('dat*'))\n"
        "datbench.register_timm()\n"
        "print(timm.list_models('dat*'), timm.is_model('davit_tiny'))"
    )
    done = _python(code)
    listed = sorted(NAMES, key=timm.models._registry._natural_key)
    assert done.stdout.strip() == f"[]\n{listed} True", done.stderr


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
    model = timm.create_model("dat_t", num_classes=10, drop_path_rate=0.3, device="meta")
    assert model.num_classes == model.get_classifier().out_features == 10
    assert model.stages[3].blocks[1].drop_path.rate == pytest.approx(0.3)
    model.reset_classifier(7, global_pool="avg")
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 7)
    assert (model.num_classes, model.config.classes) == (7, 7)
    bare = timm.create_model("dat_t", num_classes=0, device="meta", dtype=torch.bfloat16)
    assert bare.num_classes == 0
    pooled = bare(torch.empty(2, 3, 64, 64, device="meta", dtype=torch.bfloat16))
    assert (pooled.shape, pooled.dtype) == ((2, 768), torch.bfloat16)
    assert not any(key.startswith("head.linear") for key in bare.state_dict())


@pytest.mark.parametrize(
    ("out_indices", "stages"),
    [
        (None, (0, 1, 2, 3)),
        ((0, 2), (0, 2)),
        ((-1, 1), (3, 1)),
        (2, (2, 3)),
        ([-4], (0,)),
    ],
)
def test_features(timm: Any, out_indices: Any, stages: tuple[int, ...]) -> None:
    model = timm.create_model(
        "dat_t", features_only=True, out_indices=out_indices, num_classes=0
    ).eval()
    assert model.feature_info.channels() == [96 << i for i in stages]
    assert model.feature_info.reduction() == [4 << i for i in stages]
    assert model.feature_info.module_name() == [f"stages.{i}" for i in stages]
    ours = datbench.create_model("dat_t", features_only=True).eval()
    ours.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps, expected = model(x), ours(x)
    assert len(maps) == len(stages)
    assert all(torch.equal(y, expected[i]) for y, i in zip(maps, stages, strict=True))
    assert "classifier" not in model.pretrained_cfg


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


def test_attention_is_chosen(timm: Any) -> None:
    model = timm.create_model("dat_t", attention="sdpa", device="meta")
    assert model.stages[0].blocks[0].mixer.attention == "sdpa"


@pytest.mark.parametrize("options", [{}, {"num_classes": 0}, {"features_only": True}], ids=str)
def test_published_weights_load(timm: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    """What the file holds for a head that is not there is ignored."""
    from benchmarks.published_way import goldens

    torch.save({"model": goldens.build("dat_t").state_dict()}, tmp_path / "published.pth")
    model = timm.create_model("dat_t", **options)
    report = datbench.load_checkpoint(model, tmp_path / "published.pth")
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
    from datbench.counting.conventions import CONVENTIONS

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
