"""Option groups, and options that several commands share: each name is declared once, here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from ..counting.conventions import CONVENTIONS
from ..errors import UsageError
from ..files import complete_files
from ..inputs import checked
from ..models.resolve import Spec, check_size, complete_models, resolve
from ..setting import (
    ATTENTIONS,
    PRECISIONS,
    Name,
    Resolution,
    Setting,
    batch_of,
    one_of,
    precision_of,
)
from .command import HOW, OUTPUT, RESULT, WHAT, argument, option


def file_option(section: str, spelling: str, help: str) -> Any:
    """An option that names a file; its reader or writer says what is wrong with it."""
    return option(section, spelling, help, readable=False, complete_with=complete_files)


Names = Annotated[
    list[str] | None,
    argument(
        "Models: names that `datbench models` lists or papers use (swin_t), timm:NAME, "
        "torchvision:NAME, transformers:NAME, config:FILE (a YAML configuration of the DAT "
        "repositories), package.module:factory or file.py:factory. MODEL+HEAD puts a detector or "
        "segmentor on a model.",
        "MODEL",
        complete_models,
    ),
]

Sizes = Annotated[
    list[str] | None,
    option(
        WHAT,
        "--res SIZE",
        "Input size, WIDTHxHEIGHT or one number for a square; repeat it or use commas for "
        "several. Default: the size of the model's published results.",
    ),
]

Batches = Annotated[
    list[str] | None,
    option(
        WHAT, "--batch N", "Images in a batch; repeat it or use commas for several. Default: 1."
    ),
]

FeaturesFlag = Annotated[
    bool,
    option(
        WHAT, "--features", "Run the backbone alone: four feature maps with a norm each, no head."
    ),
]

Dtype = Annotated[
    str,
    option(
        WHAT,
        "--dtype DTYPE",
        "Data type of the model and its input: float32 (fp32), float64, bfloat16 (bf16) or float16 "
        "(fp16, half); amp-bfloat16 or amp-float16: a float32 model under autocast.",
        default=True,
        names=PRECISIONS,
    ),
]

AttentionName = Annotated[
    str,
    option(
        WHAT,
        "--attention NAME",
        "How attention is computed: eager (the tensors of the published code), sdpa (fused) or "
        "chunked (fused, in chunks of queries: for large inputs).",
        default=True,
        names=ATTENTIONS,
    ),
]

Given = Annotated[
    list[str] | None,
    option(
        WHAT,
        "--input [NAME=]VALUE",
        "What the model takes in place of an image; may be repeated. A tensor is DTYPE:SHAPE with "
        "{B}, {H} and {W} for batch and size: image=float:{B}x1x{H}x{W}, ids=int64:{B}x77:0..999, "
        "mask=bool:1x64:ones. Also lists [...], a file (.npy, .pt, a picture) or a number.",
    ),
]

DeviceName = Annotated[
    str | None,
    option(
        WHAT,
        "--device DEVICE",
        "Where it runs: cpu, cuda, auto (cuda if there is a GPU, otherwise cpu) or meta "
        "(tensors without values: needs neither memory nor time). Default: meta for counts, "
        "auto for measurements.",
        names=("auto", "cpu", "cuda", "meta"),
    ),
]

ModeName = Annotated[
    str | None,
    option(
        WHAT,
        "--mode MODE",
        "What is run: inference (no gradients), forward (tensors are saved for the "
        "backward), backward (forward and backward) or step (the optimizer's step too). "
        "Default: inference; for memory forward, as the papers measure it; in a gate "
        "backward.",
        names=("inference", "forward", "backward", "step"),
    ),
]

Convention = Annotated[
    str,
    option(
        WHAT,
        "--convention NAME",
        "How work is counted: fvcore (MACs, as papers print them), mmdet (MACs by mmcv's hooks), "
        "torch (FLOPs of products alone) or strict (FLOPs of all that runs).",
        default=True,
        names=CONVENTIONS,
    ),
]

Threads = Annotated[
    int | None,
    option(
        HOW,
        "--threads N",
        "Threads of one operator on a CPU. Default: torch's choice.",
        min=1,
        max=4096,
    ),
]

Budget = Annotated[
    float | None,
    option(
        HOW,
        "--budget SECONDS",
        "Seconds to measure for, warm-up included, in each process. Default: throughput 5, "
        "compare 2, profile 10, eq10 time 45.",
    ),
]

Timeout = Annotated[
    float | None,
    option(
        HOW,
        "--timeout SECONDS",
        "Seconds that one process may take in all. Default: 300; with --compile 1800.",
    ),
]

Processes = Annotated[
    int | None,
    option(
        HOW,
        "--processes N",
        "Fresh processes of each row or side. Default: 1; compare 10.",
        min=1,
        max=1000,
    ),
]

Jobs = Annotated[
    int | None,
    option(
        HOW,
        "--jobs N",
        "Processes at once for what is computed; with --engine slurm: jobs. Default: 1.",
        min=1,
        max=100_000,
    ),
]

ChannelsLast = Annotated[
    bool, option(HOW, "--channels-last", "Keep weights and images in that memory format.")
]

Compile = Annotated[
    bool,
    option(
        HOW, "--compile", "Run the model through torch.compile; no sample contains the compiling."
    ),
]

By = Annotated[
    str | None,
    option(
        RESULT,
        "--by NAME",
        "Break one model down by part (backbone, neck, heads), stage, operator or module; use "
        "commas for several. A file is broken down by one of its lists, such as operators.",
        names=("part", "stage", "operator", "module"),
    ),
]

Depth = Annotated[
    int | None,
    option(
        RESULT, "--depth N", "With --by module: cut the paths of modules to this many names.", min=1
    ),
]

Top = Annotated[
    int | None,
    option(
        RESULT,
        "--top N",
        "Show this many, the largest first. Default: 15 rows of a profile; 20 points of a block.",
        min=1,
    ),
]

Stage = Annotated[int | None, option(WHAT, "--stage N", "Only this stage, from 1.", min=1, max=4)]

Check = Annotated[
    bool, option(RESULT, "--check", "Fail (exit code 1) if a figure is not the expected one.")
]

From = Annotated[
    list[Path] | None,
    file_option(WHAT, "--from FILE", "Use the rows of this result file (JSON); may be repeated."),
]

Baseline = Annotated[
    Path | None,
    file_option(
        WHAT, "--baseline FILE", "The baseline to compare with: a file of `datbench gate update`."
    ),
]

AcrossMachines = Annotated[
    bool, option(RESULT, "--across-machines", "Accept results of different machines.")
]

OutPath = Annotated[
    str | None,  # as a Path, an empty one would be the working directory
    option(
        OUTPUT,
        "--out PATH",
        "Write to this file (a report: to this directory) instead of the terminal.",
        complete_with=complete_files,
    ),
]


@dataclass(frozen=True)
class Loaded:
    """Which weights are loaded."""

    checkpoint: Annotated[
        Path | None,
        file_option(WHAT, "--checkpoint FILE", "Weights to load: .pth or .safetensors."),
    ] = None
    weights: Annotated[
        str | None,
        option(
            WHAT,
            "--weights KEY",
            "Which weights of --checkpoint, by a key or prefix in it such as model_ema. "
            "Default: those that fit best and are not an average (EMA, teacher).",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.weights is not None and self.checkpoint is None:
            raise UsageError("--weights chooses among those of --checkpoint FILE; name the file.")


@dataclass(frozen=True)
class Models:
    """Which models."""

    model: Names = None

    def specs(self) -> list[Spec]:
        """The named models.

        Raises:
            UsageError: there are none, or one does not exist.
        """
        if not self.model:
            raise UsageError("name a model, such as dat_t; `datbench models` lists them all.")
        return [resolve(name) for name in self.model]

    def one(self) -> Spec:
        """The one model.

        Raises:
            UsageError: there is none, or there are several.
        """
        return only(self.specs(), "model")


@dataclass(frozen=True)
class Inputs(Models):
    """Which models at which sizes."""

    res: Sizes = None

    def sizes(self) -> list[Resolution]:
        """The sizes of ``--res``, each once; none where the option is not given."""
        return list(dict.fromkeys(map(Resolution.parse, pieces(self.res))))

    def sized(self, sizes: Sequence[Resolution] = ()) -> list[tuple[Spec, Resolution]]:
        """Every model at every size; without ``--res`` at `sizes`, or else at its own."""
        given = self.sizes() or sizes
        found = [(spec, size) for spec in self.specs() for size in given or [spec.resolution]]
        for spec, size in found:
            check_size(spec, size)
        return found


@dataclass(frozen=True)
class Setup(Inputs):
    """What is run, at a batch that the command finds."""

    dtype: Dtype = "float32"
    attention: AttentionName = "eager"
    features: FeaturesFlag = False
    input: Given = None

    def inputs(self) -> tuple[str, ...]:
        """What ``--input`` says, once it is understood and goes with the other options."""
        return checked(self.input or (), bool(self.res), bool(self.batches()))

    def jobs(
        self,
        device: str = "meta",
        backward: bool = False,
        batches: Sequence[int] = (),
        sizes: Sequence[Resolution] = (),
        casts: bool = False,
    ) -> list[tuple[Spec, Setting]]:
        """Every model at every size and batch.

        Args:
            batches: those that count where ``--batch`` is not given.
            sizes: those that count where ``--res`` is not given.
            casts: whether the command knows autocast.
        """
        dtype, cast = precision_of(self.dtype)
        if cast is not None and not casts:
            raise UsageError(f"--dtype {self.dtype} is for memory, throughput and compare.")
        attention = one_of("attention", self.attention, ATTENTIONS)
        inputs = self.inputs()
        return [
            (spec, Setting(size, images, dtype, device, attention, backward, self.features, inputs))
            for spec, size in self.sized(sizes)
            for images in self.batches() or batches or [1]
        ]

    def batches(self) -> list[int]:
        """The batches of ``--batch``, each once; none where the option is not given."""
        return []


@dataclass(frozen=True)
class Run(Setup):
    """What is run."""

    batch: Batches = None

    def batches(self) -> list[int]:
        """The batches of ``--batch``, each once; none where the option is not given."""
        return list(dict.fromkeys(map(batch_of, pieces(self.batch))))


@dataclass(frozen=True)
class Timing:
    """How a time is measured."""

    budget: Budget = None
    threads: Threads = None
    channels_last: ChannelsLast = False


@dataclass(frozen=True)
class ProcessTiming(Timing):
    """How a time is measured in fresh processes."""

    compile: Compile = False
    processes: Processes = None
    timeout: Timeout = None

    def limits(self, usual_budget: float, compiled: bool = False) -> tuple[float, float]:
        """The seconds of a process's timing, and of the whole process: compiling takes minutes.

        Raises:
            UsageError: they are no seconds, or do not go together.
        """
        budget = seconds("--budget", self.budget, usual_budget)
        timeout = seconds("--timeout", self.timeout, 1800.0 if compiled else 300.0)
        if not budget < timeout <= DAY:
            raise UsageError(
                f"--budget {budget:g} is a part of --timeout {timeout:g}, of a day at most; write "
                "a longer --timeout or a shorter --budget."
            )
        return budget, timeout


DAY = 86_400.0


def pieces(given: Sequence[str] | None) -> list[str]:
    """The values of an option that is repeated, or whose values stand between commas."""
    return [piece.strip() for text in given or () for piece in text.split(",")]


Value = TypeVar("Value")


def only(found: Sequence[Value], what: str, why: str = "this command takes one") -> Value:
    """The one value where one is taken.

    Raises:
        UsageError: there are several.
    """
    if len(found) > 1:
        raise UsageError(f"{why}; name only one {what}.")
    return found[0]


def seconds(flag: str, value: float | None, default: float) -> float:
    """The value of ``--budget`` or ``--timeout``.

    Raises:
        UsageError: it is not a finite number above 0.
    """
    if value is not None and not 0 < value < math.inf:  # nor may it be nan
        raise UsageError(f"{flag} {value:g}: write a number of seconds above 0.")
    return default if value is None else value


def breakdowns(
    by: str | None, known: Sequence[Name], single: bool, depth: int | None = None
) -> list[Name]:
    """The names that ``--by`` gives; none where it is not given.

    Args:
        single: the result is one table, as a CSV file is.
        depth: of ``--depth``.

    Raises:
        UnknownNameError: there is no such breakdown.
        UsageError: there are several, where the result is one table; or none is by ``--depth``.
    """
    found = [one_of("breakdown", text, known) for text in pieces(None if by is None else [by])]
    if len(found) > 1 and single:
        raise UsageError(f"a CSV file holds one table; choose one of --by {', '.join(found)}.")
    if depth is not None and "module" not in found:
        raise UsageError("--depth cuts the paths of modules; add --by module.")
    return found
