"""Models that are not in the registry, on the command line."""

from pathlib import Path

import pytest

from .runner import Run

CONFIGS = Path(__file__).parents[1] / "models" / "configs"

NET = """
from torch import nn

def net(width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.ReLU())

class Halves(nn.Module):
    "Runs at even sizes."

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 3, 2, 2)

    def forward(self, x):
        x = x.clone()
        x += self.up(self.down(x))
        return x

def widths():
    return nn.Sequential(net(), nn.Sequential(nn.Flatten(2), nn.LayerNorm(16)))
"""


@pytest.fixture
def net() -> str:
    Path("net_of_mine.py").write_text(NET)
    return "net_of_mine:net"


@pytest.mark.parametrize(
    ("file", "same"),
    [
        ("dat_tiny.yaml", "dat_t"),
        ("dat_base_384.yaml", "dat_b_384"),
        ("datpp_tiny.yaml", "datpp_t"),
        ("datpp_base_384.yaml", "datpp_b_384"),
    ],
)
def test_a_published_configuration_costs_what_the_variant_does(
    run: Run, file: str, same: str
) -> None:
    ours, theirs = run("flops", same, f"config:{CONFIGS / file!s}", "--format", "json").rows
    assert theirs["model"] == f"config:{CONFIGS / file}"
    for key in ("amount", "params", "buffers", "setting"):
        assert ours[key] == theirs[key]


def test_a_configuration_alone(run: Run) -> None:
    path = str(CONFIGS / "dat_t_ss_ld.yaml")
    assert f"config:{path}: " in run("flops", f"config:{path}").text
    (row,) = run("params", f"config:{path}", "--format", "json").rows
    assert row["params"] > 2e7
    shown = run("show", f"config:{path}").text
    assert "of width 64 (a 1x1 convolution makes it 96)" in shown
    assert run("flops", f"config:{path}", "--format", "csv").text.count("\n") == 2


@pytest.mark.parametrize("command", ["flops", "params", "show"])
def test_a_configuration_that_is_not_there(run: Run, command: str) -> None:
    assert run(command, "config:none.yaml").complaint() == "there is no file none.yaml."


def test_an_unknown_key_is_refused(run: Run, tmp_path: Path) -> None:
    text = (CONFIGS / "dat_tiny.yaml").read_text().replace("dims:", "dim:")
    (tmp_path / "mine.yaml").write_text(text)
    line = run("flops", "config:mine.yaml").complaint()
    assert line == "mine.yaml: MODEL.DAT: unknown key 'dim'; did you mean dims or dim_stem?"


def test_a_factory(run: Run, net: str) -> None:
    rows = run("flops", f"{net},width=16", "dat_t", "--res", "64x32", "--format", "json").rows
    assert rows[0]["amount"] == 16 * 27 * 64 * 32
    text = run("show", net).text
    assert text.startswith("net_of_mine:net at 224x224\n")
    assert [line.split()[0] for line in text.splitlines()[3:5]] == ["0", "total"]
    (row,) = run("params", net, "--format", "json").rows
    assert row["params"] == 8 * 27
    assert "--features is for datbench's" in run("flops", net, "--features").complaint()
    assert "--checkpoint is for" in run("show", net, "--checkpoint", "x.pth").complaint()


def test_a_timm_model(run: Run) -> None:
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    (row,) = run("flops", "timm:swin_tiny_patch4_window7_224", "--format", "json").rows
    assert round(row["amount"] / 1e9, 4) == 4.5092
    assert row["params"] == 28_288_354
    text = run("show", "timm:resnet18").text
    assert "layer4" in text
    assert "ResNet" in text
    assert "did you mean" in run("flops", "timm:resnet19").complaint()


CANNOT_RUN = {
    "Halves": "The size of tensor a (33) must match the size of tensor b (34) at non-singleton "
    "dimension 3 (in Halves)",
    "widths": "Given normalized_shape=[16], expected input with shape [*, 16], but got input of "
    "size[1, 8, 1089] (in 1.1, LayerNorm)",
}


@pytest.mark.parametrize(
    "command",
    [
        "flops MODEL",
        "flops MODEL --device cpu",
        "memory MODEL --mode inference",
        "memory MODEL --mode backward",
        "memory largest MODEL --memory 1GiB",
        "explain MODEL",
        "plot cost MODEL",
        "plot memory MODEL",
        "plot icicle MODEL",
    ],
)
@pytest.mark.parametrize("name", CANNOT_RUN)
def test_a_model_that_cannot_run_has_no_figure(run: Run, net: str, name: str, command: str) -> None:
    model = net.replace(":net", f":{name}")
    line = run(*command.replace("MODEL", model).split(), "--res", "33").complaint(5)
    assert line.startswith(f"{model} at 33x33")
    batch = 2 if "largest" in command else 1  # the first that is simulated
    why = CANNOT_RUN[name].replace("size[1", f"size[{batch}")
    assert line.partition("; if it does not")[0].endswith(why)
    # What no device runs is not run again with real values.
    assert (" on cpu: " if "cpu" in command else " on meta: ") in line


def test_models_are_searched_in_timm_too(run: Run) -> None:
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    rows = run("models", "swin_t", "--format", "json").rows
    names = [row["model"].removeprefix("timm:") for row in rows]
    begun = [name.startswith("swin_t") for name in names]
    assert names[0] == "swin_tiny_patch4_window7_224"
    assert begun == sorted(begun, reverse=True)
    assert rows[0]["resolution"] == "224x224"
    assert "(swin_t)" in rows[0]["summary"]
    assert {row["family"] for row in run("models", "dat++", "--format", "json").rows} == {"dat++"}


def test_the_shell_completes_names_of_libraries_and_papers() -> None:
    from datbench.models.resolve import complete_models

    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    found = {begun: [name for name, _ in complete_models(begun)] for begun in ("ti", "swin_", "t")}
    assert found["ti"] == ["timm:"]
    assert {"swin_t", "swin_b"} <= set(found["swin_"])
    assert "transformers:" in found["t"]
    tiny = [name for name, _ in complete_models("timm:swin_tiny")]
    assert "timm:swin_tiny_patch4_window7_224" in tiny
    assert all(name.startswith("timm:swin_tiny") for name in tiny)
