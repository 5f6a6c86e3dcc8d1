"""`datbench selftest`."""

from __future__ import annotations

from ..errors import CheckFailed
from ..machine import device_of
from .options import DeviceName
from .output import Output


def selftest(output: Output, device: DeviceName = None) -> None:
    """Check that datbench counts, simulates and measures rightly on this machine.

    Counts on meta and on the device, simulated memory beside measured, the modelled allocator
    beside CUDA's, times beside a plain loop, comparisons with and without a difference, interleaved
    processes, what the driver says, and the profile. It takes a minute on a CPU and five on a GPU.
    A check that fails is exit code 1.

    Examples:
    datbench selftest
    datbench selftest --device cuda --out selftest.json
    """
    from ..machine import check_present, environment
    from ..render.terminal import status
    from ..selftest.checks import run_checks
    from ..selftest.view import tables

    where = device_of(device)
    check_present(where)
    with status() as step:
        rows = run_checks(where, step)
    output.write(tables(rows, output.one), "selftest", rows, environment())
    failed = [row for row in rows if row.verdict == "failed"]
    if failed:
        first = f"{failed[0].subject}, {failed[0].check}, on {failed[0].device}"
        raise CheckFailed(f"{len(failed)} of {len(rows)} checks failed; the first is {first}.")
