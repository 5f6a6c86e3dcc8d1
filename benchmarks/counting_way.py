"""One way of counting DAT-S at 1280x800, timed after its imports: python counting_way.py WAY.

WAY is `datbench` (builds on meta and counts), `fvcore` (traces a forward of real tensors; the
model, which is datbench's own, is built before the clock starts) or `torch` (imports it, no more).
Prints {"seconds", "macs"}.
"""

import json
import logging
import sys
import time
import warnings


def count_with_datbench() -> tuple[float, int]:
    import datbench
    from datbench.counting.conventions import CONVENTIONS

    setting = datbench.Setting(datbench.Resolution(1280, 800))
    count_model = datbench.count_model  # imported on first use
    begin = time.perf_counter()
    macs = count_model("dat_s", setting).total(CONVENTIONS["fvcore"])
    return time.perf_counter() - begin, macs


def count_with_fvcore() -> tuple[float, int]:
    warnings.filterwarnings("ignore", message=".*torch.jit.*")  # fvcore's use of it
    import torch
    from fvcore.nn import FlopCountAnalysis

    import datbench

    for name in ("fvcore.nn.jit_analysis", "fvcore.nn.jit_handles"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what it does not count
    model = datbench.create_model("dat_s", attention="eager").eval()
    image = torch.zeros(1, 3, 800, 1280)
    begin = time.perf_counter()
    with torch.no_grad():  # fvcore does not say so itself; with a graph it takes 16 GB
        macs = int(FlopCountAnalysis(model, image).total())
    return time.perf_counter() - begin, macs


def import_torch() -> tuple[float, int]:
    begin = time.perf_counter()
    import torch  # noqa: F401

    return time.perf_counter() - begin, 0


WAYS = {"datbench": count_with_datbench, "fvcore": count_with_fvcore, "torch": import_torch}

if __name__ == "__main__":
    seconds, macs = WAYS[sys.argv[1]]()
    print(json.dumps({"seconds": seconds, "macs": macs}))
