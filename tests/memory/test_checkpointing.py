"""Blocks that run again in the backward instead of being kept."""

import pytest
import torch
from torch import nn

from datbench import Resolution, Setting, create_model
from datbench.errors import UsageError
from datbench.memory import simulate
from datbench.memory.records import MemoryRow
from datbench.memory.simulation import Trace, checkpointed, memory_row
from datbench.models.resolve import resolve
from datbench.setting import Recipe
from tests.nets import short

BLOCK = Recipe(checkpointing="block")
IMAGE = torch.empty(2, 3, 64, 64, device="meta")


def _row(name: str, recipe: Recipe) -> MemoryRow:
    return memory_row(short(name), Setting(Resolution(224, 224), batch=8), "backward", recipe)


@pytest.mark.parametrize("name", ["dat_t", "datpp_t"])
def test_less_is_kept_and_the_same_is_learnt(name: str) -> None:
    plain, saving = _row(name, Recipe()), _row(name, BLOCK)
    kept, before = saving.line("kept").amount, plain.line("kept").amount
    assert kept < before / 8
    assert saving.peak.amount < plain.peak.amount * 0.6
    for category in ("parameters", "buffers", "gradients", "outputs"):
        assert saving.line(category).amount == plain.line(category).amount
    assert saving.at_end == plain.at_end


def run_again(trace: Trace) -> set[str]:
    """Modules whose GELU ran in the backward."""
    return {b.module for b in trace.blocks if b.phase == "backward" and b.operator == "aten::gelu"}


def test_a_block_keeps_its_input_alone_and_runs_again() -> None:
    """What a block returns is what the next one keeps: a map of (2, H, W, C) for each."""
    with torch.device("meta"):
        model = create_model("dat_t")
    trace = simulate(model, IMAGE, mode="forward", recipe=BLOCK)
    inside = [b for b in trace.blocks if b.category == "kept" and b.module.startswith("stages.2.b")]
    # Six blocks; the last one's is what the down-sampling keeps.
    assert [block.size for block in inside] == [4 * 2 * 4 * 4 * 384] * 6
    again = run_again(simulate(model, IMAGE, mode="backward", recipe=BLOCK))
    assert {"stages.0.blocks.0.ffn.act", "stages.3.blocks.1.ffn.act"} <= again
    assert all("forward" not in stage.blocks.__dict__ for stage in model.stages)


class Other(nn.Linear):
    """Does what it does itself."""

    saving = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.saving = enable


class Refuses(nn.Linear):
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        assert not enable, "gradient checkpointing not supported"


def test_models_of_others() -> None:
    other = Other(4, 4)
    with checkpointed(other, "block"):
        assert other.saving
    assert not other.saving
    for model in (nn.Linear(4, 4), Refuses(4, 4)):
        refused = pytest.raises(UsageError, match="cannot be checkpointed")
        with refused, checkpointed(model, "block"):
            pass
    with pytest.raises(UsageError, match="inference keeps nothing"):
        simulate(nn.Linear(4, 4).to("meta"), IMAGE, mode="inference", recipe=BLOCK)


def test_timms() -> None:
    timm = pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", img_size=64)
    plain = simulate(model, IMAGE, mode="backward")
    saving = simulate(model, IMAGE, mode="backward", recipe=BLOCK)
    assert saving.whole("kept") < plain.whole("kept") / 3
    assert saving.whole("gradients") == plain.whole("gradients")
    assert {"blocks.0.mlp.act", "blocks.11.mlp.act"} <= run_again(saving)
    assert simulate(model, IMAGE, mode="backward") == plain
    model.set_grad_checkpointing()
    assert simulate(model, IMAGE, mode="backward") == saving


def test_timms_under_a_head() -> None:
    """As much less is kept as in the backbone alone: the head is not checkpointed."""
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    saved = []
    for name, features in (("timm:convnext_atto", True), ("timm:convnext_atto+retinanet", False)):
        setting = Setting(Resolution(128, 128), features=features)
        rows = [memory_row(resolve(name), setting, "backward", r) for r in (Recipe(), BLOCK)]
        saved.append(rows[0].line("kept").amount - rows[1].line("kept").amount)
    assert saved[0] == saved[1] > 0
