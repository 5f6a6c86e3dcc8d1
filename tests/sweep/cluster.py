"""A Slurm of one controller and two nodes on this machine, for tests: own ports, key and folder.

The GPUs are fake: their files are links to /dev/null. It takes root, and no systemd. Without an
accounting database, as on many small clusters.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "munge", "slurm-client")

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")

NODES = ("n0", "n1")

CONF = """\
ClusterName=sweeps
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
# A container has no control groups that it may write to.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
DefMemPerCPU=100
MaxArraySize={max_array}
MinJobAge=10
ReturnToService=2
# More processors than there are.
SlurmdParameters=config_overrides
MailProg=/bin/true
KillWait=5
SlurmdTimeout=10
SchedulerParameters=sched_interval=1,sched_min_interval=50000,bf_interval=1,defer
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=test Nodes={nodes} Default=YES MaxTime=INFINITE PriorityTier=1
PartitionName=high Nodes={nodes} MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
{lines}"""


class Unavailable(Exception):
    """Why there can be no Slurm here."""


def install() -> None:
    """Install Debian's Slurm, unless it is there.

    Raises:
        Unavailable: this is not root, or not a Debian with packages.
    """
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.geteuid() != 0:
        raise Unavailable("it takes root")
    if all(map(shutil.which, PROGRAMS)):
        return
    if shutil.which("apt-get") is None:
        raise Unavailable("there is no apt-get to install it")
    # Without this the packages' scripts try to start services.
    policy = Path("/usr/sbin/policy-rc.d")
    mine = not policy.exists()
    if mine:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    # Another apt-get may be at work: wait for its lock.
    apt = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "-y", "-qq", "--no-install-recommends")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in ((*apt, "install", *PACKAGES), (*apt, "update")) * 2:
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode == 0 and "install" in command:
                return
    finally:
        if mine:
            policy.unlink()
    raise Unavailable(f"apt-get does not install it: {done.stderr.strip()[-200:]}")


def wait(what: Callable[[], object], seconds: float, why: str) -> None:
    """Until something is true.

    Raises:
        AssertionError: it is not in time.
    """
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds:g} s: {why}"
        time.sleep(0.1)


class LocalSlurm:
    """A cluster that runs until `stop`.

    Args:
        folder: of its own; the path must be short, for it holds a socket.
    """

    def __init__(self, folder: Path, max_array: int = 101) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.conf)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        folder.chmod(0o755)  # munged refuses a socket that nobody else reaches
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir()
        # slurmd wants a character device; a link to one is one.
        for number in range(2):
            (folder / f"gpu{number}").symlink_to("/dev/null")
        (folder / "gres.conf").write_text(f"Name=gpu Type=fake File={folder}/gpu[0-1]\n")
        # slurmd loads such a plugin even if nothing uses it; 22.05 does not know `disabled`.
        version = subprocess.run(["slurmd", "-V"], capture_output=True, text=True).stdout
        new = tuple(map(int, re.findall(r"\d+", version)[:2])) >= (23, 2)
        (folder / "cgroup.conf").write_text(f"CgroupPlugin={'disabled' if new else 'cgroup/v1'}\n")
        ports = [_port() for _ in range(3)]
        lines = "".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=2 "
            "RealMemory=1000 Gres=gpu:fake:2\n"
            for node, port in zip(NODES, ports[1:], strict=True)
        )
        self.conf.write_text(
            CONF.format(
                port=ports[0],
                folder=folder,
                max_array=max_array,
                nodes=",".join(NODES),
                lines=lines,
            )
        )

    def start(self) -> None:
        """Start everything; wait until both nodes take jobs."""
        own = self.folder
        self._start(
            "munged",
            "--foreground",
            f"--key-file={own}/munge.key",
            f"--socket={own}/munge.socket",
            f"--pid-file={own}/munged.pid",
            f"--log-file={own}/munged.log",
            f"--seed-file={own}/munge.seed",
        )
        wait((own / "munge.socket").exists, 10, "munged")
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        idle = ("sinfo", "-h", "-N", "-p", "test", "-t", "idle", "-o", "%N")
        wait(lambda: self.ask(*idle).count("n") == 2, 30, "nodes")

    def start_controller(self) -> None:
        """Start slurmctld, again too."""
        self._start("slurmctld", "-D", "-f", str(self.conf))

    def start_node(self, name: str) -> None:
        """Start a node's slurmd, again too."""
        self._start("slurmd", "-D", "-f", str(self.conf), "-N", name, name=name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End ``slurmctld``, or the slurmd of a node."""
        daemon = self._daemons.pop(name)
        daemon.send_signal(number)
        daemon.wait(10)

    def ask(self, *command: str) -> str:
        """What a command of Slurm's prints."""
        here = {**os.environ, **self.environment}
        done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def processes(self) -> dict[int, str]:
        """The command lines of processes that this cluster's daemons and jobs started."""
        found = {}
        mark = f"SLURM_CONF={self.conf}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    said = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(path.name)] = said.strip()
        return found

    def cancel_all(self) -> None:
        """End all jobs, and wait until they are gone."""
        self.ask("scancel", "--full", "--user=root")
        wait(lambda: not self.ask("squeue", "-h"), 30, "jobs end")

    def stop(self) -> None:
        """End everything that is left."""
        for name in reversed(list(self._daemons)):
            with suppress(subprocess.TimeoutExpired):
                self.kill(name, signal.SIGTERM)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _start(self, *command: str, name: str = "") -> None:
        with (self.folder / f"{name or command[0]}.out").open("ab") as log:
            self._daemons[name or command[0]] = subprocess.Popen(
                command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _port() -> int:
    """A free one."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
