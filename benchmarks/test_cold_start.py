"""From the shell to the answer: what `datbench` adds to the `import torch` that it cannot avoid."""

from typing import Any

from benchmarks.measuring import interleaved

COMMANDS = {
    "torch": ["-c", "import torch"],
    "flops": ["-m", "datbench", "flops", "dat_s", "--res", "1280x800"],
    "help": ["-m", "datbench", "--help"],
}
TABLES = {
    "torch": ["-c", "import torch"],
    "timm": ["-c", "import timm"],
    "tables": ["-m", "datbench", "table", "all", "--check"],
}
TIMES = 9


def test_cold_start(benchmark: Any) -> None:
    """The count of DAT-S at 1280x800 and the help text, against `import torch` alone."""
    runs = benchmark.pedantic(interleaved, (COMMANDS, TIMES), rounds=1)
    torch, flops, usage = runs["torch"], runs["flops"], runs["help"]
    assert "301.959" in flops.output
    ratios = {
        "flops_seconds": flops.seconds / torch.seconds,
        "flops_memory": flops.peak_kib / torch.peak_kib,
        "help_seconds": usage.seconds / torch.seconds,
    }
    benchmark.extra_info.update(ratios, torch_seconds=torch.seconds, torch_kib=torch.peak_kib)
    print(ratios)
    assert ratios["flops_seconds"] <= 1.25
    assert ratios["flops_memory"] <= 1.25
    assert ratios["help_seconds"] <= 0.12


def test_all_tables(benchmark: Any) -> None:
    """Every cell of every table, against `import torch`; timm's own import is most of the rest."""
    runs = benchmark.pedantic(interleaved, (TABLES, 5), rounds=1)
    torch, timm, tables = runs["torch"], runs["timm"], runs["tables"]
    assert "Cells by verdict" in tables.output
    ratios = {
        "tables_seconds": tables.seconds / torch.seconds,
        "tables_memory": tables.peak_kib / torch.peak_kib,
        "timm_seconds": timm.seconds / torch.seconds,
    }
    benchmark.extra_info.update(ratios, torch_seconds=torch.seconds)
    print(ratios)
    assert ratios["tables_seconds"] <= 8
