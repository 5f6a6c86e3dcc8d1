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
SIX = ("dat_t", "dat_s", "dat_b", "datpp_t", "datpp_s", "datpp_b")
TWENTY = ",".join(map(str, range(64, 704, 32)))
GRIDS = {
    "torch": ["-c", "import torch"],
    "six": ["-m", "datbench", "flops", *SIX],
    "grid": ["-m", "datbench", "flops", *SIX, "--res", TWENTY],
    "largest": ["-m", "datbench", "memory", "largest", "dat_t", "--memory", "16GiB"],
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


def test_grids(benchmark: Any) -> None:
    """Six models at 20 sizes, and the largest batch, against `import torch`."""
    runs = benchmark.pedantic(interleaved, (GRIDS, 5), rounds=1)
    assert runs["grid"].output.count("dat") >= 120
    ratios = {name: run.seconds / runs["torch"].seconds for name, run in runs.items()}
    benchmark.extra_info.update(ratios, torch_seconds=runs["torch"].seconds)
    print(ratios)
    assert ratios["six"] <= 1.8
    assert ratios["grid"] <= 3.5
    assert ratios["largest"] <= 1.4


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
    assert ratios["tables_seconds"] <= 5
