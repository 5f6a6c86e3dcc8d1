"""`datbench points`: pictures, coordinates, and what is refused."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import datbench
from datbench.models.dat import REGISTRY
from tests.nets import narrow

from .runner import Run

pytest.importorskip("PIL", reason="needs datbench[plots]")
pytest.importorskip("vl_convert", reason="needs datbench[plots]")

from PIL import Image, ImageDraw

SAID = "datbench: {} has random weights; give --checkpoint for what it learned.\n"
QUICK = ("--res", "64x64")


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow models are made and run at once, and have as many stages, groups and heads."""
    for name in ("dat_t", "datpp_t", "dat_t_ddetr_16_16"):
        monkeypatch.setitem(REGISTRY, name, narrow(name))


@pytest.fixture(autouse=True)
def _shapes(tmp_path: Path) -> None:
    image = Image.new("RGB", (80, 60), "skyblue")
    ImageDraw.Draw(image).ellipse((40, 10, 70, 40), fill="firebrick")
    image.save(tmp_path / "shapes.png")


def points(run: Run, *arguments: str) -> dict[str, Any]:
    result = run("points", *arguments, "--format", "json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert document["kind"] == "points"
    (row,) = document["rows"]
    return row


@pytest.mark.parametrize("style", ["propagated", "groups", "query"])
@pytest.mark.parametrize("model", ["dat_t", "datpp_t", "dat_t_ddetr_16_16"])
def test_every_style_of_every_kind(run: Run, tmp_path: Path, model: str, style: str) -> None:
    """A PNG is drawn from the SVG, in seconds where there are many points."""
    out = tmp_path / ("picture.png" if model == "dat_t" else "picture.svg")
    result = run("points", style, model, "shapes.png", "--out", str(out), *QUICK)
    assert result.code == 0, result.err
    assert result.out == ""
    assert result.err == SAID.format(model)
    if out.suffix == ".svg":
        width, height = re.findall(r'(?:width|height)="(\d+)"', out.read_text())[:2]
        assert min(int(width), int(height)) > 150
        return
    with Image.open(out) as picture:
        assert min(picture.size) > 300
        colours = {colour[:3] for _, colour in picture.getcolors(1 << 24)}  # type: ignore
    orange = any(r > 220 and 90 < g < 190 and b < 90 for r, g, b in colours)
    assert orange == (style != "groups")


def test_groups_of_each_stage(run: Run) -> None:
    row = points(run, "groups", "dat_t", "shapes.png", *QUICK)
    assert (row["style"], row["width"], row["height"], row["checkpoint"]) == (
        "groups",
        80,
        60,
        None,
    )
    assert (row["setting"]["width"], row["setting"]["height"]) == (64, 64)
    found: dict[tuple[int, int], int] = {}
    for point in row["points"]:
        key = (point["stage"], point["group"])
        found[key] = found.get(key, 0) + 1
        assert point["weight"] is None
    assert found == {**{(3, g): 16 for g in (1, 2, 3)}, **{(4, g): 4 for g in range(1, 7)}}
    words = "groups dat_t shapes.png --stage 3 --group 2"
    one = points(run, *words.split(), *QUICK)
    assert {(p["stage"], p["group"]) for p in one["points"]} == {(3, 2)}
    assert [p for p in row["points"] if (p["stage"], p["group"]) == (3, 2)] == one["points"]


def test_all_keys_of_a_query_add_up_to_one_in_every_group(run: Run) -> None:
    row = points(run, "query", "dat_t", "shapes.png", "55,25", "--top", "1000", *QUICK)
    assert row["query"] == [55.0, 25.0]
    sums: dict[int, float] = {}
    for point in row["points"]:
        sums[point["group"]] = sums.get(point["group"], 0) + point["weight"]
    assert sums == {group: pytest.approx(1.0, abs=1e-5) for group in range(1, 7)}
    weights = [point["weight"] for point in row["points"]]
    assert weights == sorted(weights, reverse=True)


def test_a_result_file_and_csv_have_every_point(run: Run) -> None:
    words = ("points", "dat_t", "shapes.png", "--top", "3", *QUICK)
    shown = run(*words)
    assert run(*words, "--out", "points.json").code == 0
    assert run("results", "show", "points.json").text == shown.out
    rows = run("results", "show", "points.json", "--format", "csv").lines
    assert [(r["stage"], r["block"]) for r in rows[::3]] == [
        ("3", "2"),
        ("3", "4"),
        ("3", "6"),
        ("4", "2"),
    ]
    assert all(float(row["weight"]) > 0 for row in rows)


def test_weights_of_a_checkpoint_are_used_and_named(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = datbench.create_model("dat_t")
    weights = {**model.state_dict(), "head.linear.weight": torch.ones(7, 768)}
    weights["head.linear.bias"] = torch.ones(7)  # points need no classifier
    average = {key: value + 1 for key, value in weights.items()}
    torch.save({"model_ema": average, "model": weights}, tmp_path / "mine.pth")
    arguments = ("groups", "dat_t", "shapes.png", *QUICK)
    result = run("points", *arguments, "--checkpoint", "mine.pth", "--format", "json")
    assert "of several weights model are read, not model_ema" in result.err
    (row,) = json.loads(result.out)["rows"]
    assert (row["checkpoint"], row["weights"]) == ("mine.pth", "model")
    random = points(run, *arguments)
    assert (row["random"], random["random"]) == (False, True)
    assert row["points"] != random["points"]
    for name in ("a.svg", "b.svg"):
        assert run("points", *arguments, "--out", name).code == 0
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()
    assert "random weights" in Path("a.svg").read_text()
    run("points", *arguments, "--checkpoint", "mine.pth", "--out", "c.svg")
    text = Path("c.svg").read_text()
    assert "mine.pth (model)" in text
    assert "random" not in text


def test_images_of_every_kind(run: Run) -> None:
    """Greyscale, transparent, sixteen bits and turned ones, all to the same points."""
    grey = Image.linear_gradient("L").resize((80, 60))
    grey.save("grey.png")
    clear = Image.merge("LA", (grey, Image.new("L", grey.size, 255)))
    clear.save("clear.png")
    deep = Image.new("I;16", grey.size)
    deep.putdata([value * 257 for value in grey.tobytes()])
    deep.save("deep.png")
    turned = grey.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it
    turned.save("turned.png", exif=exif)
    rows = [
        points(run, "groups", "dat_t", f"{name}.png", *QUICK)
        for name in ("grey", "clear", "deep", "turned")
    ]
    for row in rows:
        assert (row["width"], row["height"]) == (80, 60)
        assert row["points"] == rows[0]["points"]


def test_a_huge_image_is_resized_and_keeps_its_own_pixels(run: Run) -> None:
    with Image.open("shapes.png") as image:
        image.resize((4000, 3000), Image.Resampling.NEAREST).save("huge.png")
    row = points(run, "groups", "dat_t", "huge.png", *QUICK)
    assert row["width"] == 4000
    assert max(point["x"] for point in row["points"]) > 2000
    result = run("points", "dat_t", "huge.png", "--out", "huge.svg", *QUICK)
    assert result.code == 0
    assert Path("huge.svg").stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dat_t"], "name the model and the image: datbench points MODEL IMAGE."),
        ([], "name the model and the image"),
        (["dat_t", "none.png"], "there is no image none.png"),
        (["dat_t", "text.png"], "text.png is not an image that Pillow can read"),
        (["dat_t", "cut.png"], "could not be read"),
        (["dat_t", "."], "is a directory"),
        (["query", "dat_t", "shapes.png", "80,10"], "80 wide and 60 high"),
        (["query", "dat_t", "shapes.png", "80,-1"], "lies outside"),
        (["query", "dat_t", "shapes.png", "here"], "write X,Y"),
        (["dat_t", "shapes.png", "--stage", "1"], "in stage 3 and 4"),
        (["dat_t", "shapes.png", "--block", "1"], "3.2, 3.4, 3.6, 4.2"),
        (["groups", "dat_t", "shapes.png", "--group", "7"], "there are 6"),
        (["dat_t", "shapes.png", "--group", "x"], "a number from 1, or all"),
        (["dat_t", "shapes.png", "--head", "25"], "there are 24"),
        (["dat_t", "shapes.png", "--head", "9", "--group", "1", "--stage", "3"], "another"),
        (["groups", "dat_t", "shapes.png", "--top", "2"], "No such option: --top"),
        (["groups", "dat_t", "shapes.png", "10,10"], "share their points"),
        (["dat_t", "shapes.png", "--out", "a.jpeg"], "the suffix .jpeg"),
        (["dat_t", "shapes.png", "--out", "no/a.png"], "there is no directory"),
        (["dat_t_no_offsets", "shapes.png"], "no deformable attention that samples"),
        (["ceit_s", "shapes.png"], "no deformable attention that samples"),
        (["torchvision:resnet18", "shapes.png"], "has no deformable attention"),
        (["dat_t", "shapes.png", "--checkpoint", "no.pth"], "no.pth"),
        (["dat_t", "shapes.png", "--checkpoint", "tiny.pth"], "no weights of such a model"),
    ],
)
def test_what_is_refused(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    Path("text.png").write_text("no image")
    Path("cut.png").write_bytes(Path("shapes.png").read_bytes()[:150])
    torch.save({"model": {"head.weight": torch.zeros(3)}}, "tiny.pth")
    before = sorted(tmp_path.iterdir())
    assert said in run("points", *arguments, *QUICK).complaint()
    assert sorted(tmp_path.iterdir()) == before


def test_groups_of_one_query_where_it_has_its_own_points(run: Run) -> None:
    words = ("groups", "dat_t_ddetr_16_16", "shapes.png")
    here, there = points(run, *words, "10,10", *QUICK), points(run, *words, "70,50", *QUICK)
    assert here["query"] == [10.0, 10.0]
    assert here["points"] != there["points"]


def test_more_than_the_free_memory_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from datbench.points import rows

    free = 1_500 * 2**20
    monkeypatch.setattr(rows, "available_bytes", lambda device: free)
    words = ("points", "dat_s", "shapes.png", "--res", "1280x800")
    monkeypatch.setattr(rows, "layers", lambda *_: pytest.fail("it ran"))
    said = run(*words, "--out", "big.png").complaint(5)
    assert re.fullmatch(
        r"dat_s at 1280x800: this takes [78]\.\d GiB, 1\.5 GiB are free; give a smaller --res, or "
        r"draw groups, which keep no attention\.",
        said,
    ), said
    assert not Path("big.png").exists()
    free = 2**20
    said = run("points", "groups", *words[1:]).complaint(5)
    assert said.endswith("1.0 MiB are free; give a smaller --res."), said


@pytest.mark.parametrize(
    ("size", "apart"),
    [
        *(((500, 3), True), ((3, 500), True)),
        *(((60, 10), True), ((50, 10), False), ((10, 51), True)),
    ],
)
def test_an_extreme_image_is_not_a_line_and_says_so(
    run: Run, size: tuple[int, int], apart: bool
) -> None:
    Image.new("RGB", size, "firebrick").save("long.png")
    run("points", "groups", "dat_t", "long.png", "--out", "long.svg", *QUICK)
    assert ("(not to scale)" in Path("long.svg").read_text()) == apart
    if max(size) == 500:
        assert run("points", "dat_t", "long.png", "--out", "out.png", *QUICK).code == 0
        with Image.open("out.png") as picture:
            colours = picture.convert("RGB").getcolors(1 << 24) or []
            width, height = picture.size
        red = sum(n for n, colour in colours if colour == (178, 34, 34))  # firebrick
        assert red > width * height / 4


def test_without_pillow(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    said = run("points", "dat_t", "shapes.png", *QUICK).complaint(5)
    assert said == "reading images needs Pillow: pip install pillow."


def test_a_factory_of_the_user_brings_its_own_weights(run: Run) -> None:
    Path("own_points.py").write_text(
        "import torch, datbench\n"
        "def wrapped(): return torch.nn.Sequential(datbench.create_model('dat_t'))\n"
    )
    result = run("points", "groups", "own_points:wrapped", "shapes.png", *QUICK)
    assert "own_points:wrapped at 64x64, weights as built: where each group samples" in result.text


def test_the_smallest_input_and_a_detector(run: Run) -> None:
    row = points(run, "groups", "datpp_t", "shapes.png", "--res", "32")
    last = [p for p in row["points"] if p["stage"] == 4]
    assert len(last) == 8  # one point for each group, in the only cell
    assert {(p["x"], p["y"]) for p in last} == {(39.5, 29.5)}
    inside = points(run, "groups", "dat_t+retinanet", "shapes.png", *QUICK)
    assert {p["stage"] for p in inside["points"]} == {3, 4}
