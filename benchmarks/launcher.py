"""Run one command and print its wall time and peak memory: python launcher.py COMMAND [ARG ...].

A process of its own, and a small one: the kernel counts the memory that a child has between fork
and exec as the child's, so a child of pytest could never look smaller than pytest with torch.
"""

import json
import os
import subprocess
import sys
import time


def main(command: list[str]) -> int:
    """Print {"seconds", "peak_kib", "output"}; the command's exit status."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    print(json.dumps({"seconds": seconds, "peak_kib": usage.ru_maxrss, "output": output}))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
