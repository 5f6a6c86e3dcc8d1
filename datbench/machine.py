"""What figures were measured on."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import LibraryError, UsageError, warn
from .units import printable
from .version import __version__

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "torchvision", "timm", "fvcore", "numpy", "pandas", "nvidia-ml-py")


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def summary() -> dict[str, Any]:
    """Versions alone: enough for a count, and quick (torch is not imported for it)."""
    torch = sys.modules.get("torch")
    return {
        "datbench": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__) if torch is not None else _version("torch"),
        "platform": platform.platform(terse=True),
    }


def environment() -> dict[str, Any]:
    """Versions, processor, memory and GPUs. A value that cannot be had is None."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        memory = None
    return {
        **summary(),
        "packages": {package: _version(package) for package in PACKAGES},
        "processor": _proc("/proc/cpuinfo", "model name") or platform.processor() or None,
        "cpus": os.cpu_count(),
        "usable_cpus": usable_cores() if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": memory,
        **_torch_settings(),
    }


COMMAND: ContextVar[Sequence[str]] = ContextVar("command", default=())
"""The arguments of the program that runs; none where it is a library."""

LOADED = 0.8
"""The load average of a core above which other work is likely to disturb a time."""


def warn_if_loaded() -> None:
    """Say that the machine is at work, before anything is timed on it."""
    cores = usable_cores()
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # as on Windows
        return
    if load > LOADED * cores:
        warn(
            f"the machine is loaded: {load:.1f} processes wanted its {cores} cores in the last "
            "minute, and times may be too long; measure when nothing else runs."
        )


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _proc(path: str, key: str) -> str | None:
    """The first line of this key in a file of Linux's; None elsewhere."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return None


def proc_bytes(path: str, key: str) -> int | None:
    """The bytes that a line such as ``MemAvailable:  1024 kB`` says; None without such a line."""
    value = _proc(path, key)
    return None if value is None else int(value.split()[0]) * 1024


# The memory of this process that lies in the machine's memory.


def resident() -> int | None:
    """Its bytes now; None where the system does not say."""
    return proc_bytes("/proc/self/status", "VmRSS")


def peak_resident() -> int | None:
    """Its most bytes at any one time; None where the system does not say."""
    found = proc_bytes("/proc/self/status", "VmHWM")
    if found is not None:
        return found
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_peak() -> bool:
    """Let the peak begin anew; whether the system can (Linux does)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _torch_settings() -> dict[str, Any]:
    """What torch itself says of the machine."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "gpus": [
            {
                "name": properties.name,
                "memory_bytes": properties.total_memory,
                "capability": f"{properties.major}.{properties.minor}",
            }
            for properties in map(torch.cuda.get_device_properties, range(count))
        ],
    }


# Whether a device is there, and who measures on it.


def has_gpu() -> bool:
    """Whether a GPU of NVIDIA's is here, as far as can be told without torch."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shown != "" and Path("/dev/nvidiactl").exists()


def visible_gpus() -> list[str]:
    """What names each GPU that this process may use: its UUID where NVML tells it."""
    every = []
    with contextlib.suppress(LibraryError), _library() as library:
        for index in range(library.nvmlDeviceGetCount()):
            uuid = library.nvmlDeviceGetUUID(library.nvmlDeviceGetHandleByIndex(index))
            every.append(uuid if isinstance(uuid, str) else uuid.decode())
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return every or (["0"] if has_gpu() else [])
    names = filter(None, map(str.strip, shown.split(",")))
    # CUDA counts as NVML does only in the order of the bus; a number stays one otherwise.
    by_bus = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(every) == 1
    return [
        every[int(name)] if by_bus and name.isdecimal() and int(name) < len(every) else name
        for name in names
    ]


LOCKS = "DATBENCH_LOCKS"
"""The variable that names the folder of the locks below; by default in the machine's ``/tmp``."""


@contextlib.contextmanager
def alone_on(*devices: str) -> Iterator[None]:
    """Have devices to oneself, among the measurements of datbench on this machine.

    Waits, and says so, while another one measures there. A CPU is its usable cores: on other cores
    others may measure. Where locks are not to be had, nothing is waited for.
    """
    try:
        import fcntl

        # In one order: two that want the same two do not wait for each other.
        paths = sorted({_lock_of(device) for device in devices})
        handles = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666) for path in paths]
    except (ImportError, OSError):
        yield
        return
    try:
        for handle in handles:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                warn("another datbench measures on this device; waiting for it.")
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                pass
        yield
    finally:
        for handle in handles:
            os.close(handle)


def _lock_of(device: str) -> Path:
    kind, _, index = device.partition(":")
    name = kind
    if kind == "cuda":
        gpus = visible_gpus()
        place = int(index or 0)
        name = gpus[place] if place < len(gpus) else device
    elif hasattr(os, "sched_getaffinity"):
        name = "cpu-" + ",".join(map(str, sorted(os.sched_getaffinity(0))))[:150]
    folder = Path(os.environ.get(LOCKS, "/tmp/datbench-locks"))
    if not folder.is_dir():
        folder.mkdir()
        folder.chmod(0o1777)  # other people measure on this machine too
    path = folder / f"{name.replace('/', '-').replace(':', '-')}.lock"
    if not path.exists():
        path.touch()
        path.chmod(0o666)
    return path


def device_of(name: str | None, default: str = "auto") -> str:
    """The device; ``auto`` is a GPU where there is one, otherwise the CPU."""
    name = default if name is None else name
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> torch.device:
    """The device called `name`.

    Raises:
        UsageError: torch knows no such device, or this machine has none.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise UsageError(
            f"device {name!r} is not available here; use meta or cpu, or cuda where a GPU is."
        ) from error
    return device


def check_present(name: str) -> None:
    """Whether the device is here and has time and memory of its own to be measured.

    A GPU is asked for its presence alone: `check_device` would open a context in this process,
    which takes memory from the very device that is measured.

    Raises:
        UsageError: it is not here, or has neither.
    """
    import torch

    if torch.cuda.is_available() and name.split(":")[0] == "cuda":
        index = name.partition(":")[2]
        if not index or (index.isdecimal() and int(index) < torch.cuda.device_count()):
            return
    device = check_device(name)
    if device.type not in ("cuda", "cpu"):
        raise UsageError(f"memory is measured on cuda or on cpu, not on {name}.")


# NVML through nvidia-ml-py: starting it, and finding a GPU.
#
# The device is found by its UUID or its place on the bus. An index would not do: CUDA counts the
# devices that CUDA_VISIBLE_DEVICES shows it, NVML counts them all.


REMEDY = "pip install nvidia-ml-py"


@dataclass(frozen=True)
class GpuPlace:
    """Which GPU."""

    uuid: str | None  # as torch gives it, with or without a prefix
    bus: str | None  # ``domain:bus:device.function``, in hexadecimal

    @classmethod
    def of(cls, properties: Any) -> GpuPlace:
        """Read torch's properties of a device; torch 2.6 has no place on the bus."""
        uuid = getattr(properties, "uuid", None)
        names = ("domain", "bus", "device")
        parts: list[Any] = [getattr(properties, f"pci_{name}_id", None) for name in names]
        bus = None if None in parts else "{:08x}:{:02x}:{:02x}.0".format(*parts)
        return cls(None if uuid is None else str(uuid), bus)


@contextlib.contextmanager
def _library() -> Iterator[Any]:
    """NVML at work: nvidia-ml-py's module pynvml.

    Raises:
        LibraryError: nvidia-ml-py is not installed, or NVML refuses, also in the block.
    """
    try:
        library = import_module("pynvml")
    except ImportError as error:
        raise LibraryError(f"nvidia-ml-py is not installed; {REMEDY}.") from error
    needed = ("NVMLError", "nvmlInit", "nvmlDeviceGetHandleByUUID")
    if not all(hasattr(library, name) for name in needed):
        raise LibraryError(f"the module pynvml is not nvidia-ml-py's; {REMEDY}.")
    with contextlib.ExitStack() as stack:
        try:
            library.nvmlInit()
        except Exception as error:  # NVML's, or the system's that finds no driver
            raise LibraryError(nvml_words(error)) from error
        stack.callback(_shut_down, library)
        try:
            yield library
        except library.NVMLError as error:
            raise LibraryError(nvml_words(error)) from error


def _shut_down(library: Any) -> None:
    with contextlib.suppress(library.NVMLError):
        library.nvmlShutdown()


@contextlib.contextmanager
def nvml(place: GpuPlace) -> Iterator[tuple[Any, Any]]:
    """NVML at work, and its handle of a GPU.

    Raises:
        LibraryError: nvidia-ml-py is not installed, or NVML refuses, also in the block.
    """
    with _library() as library:
        yield library, _handle(library, place)


def _handle(library: Any, place: GpuPlace) -> Any:
    """The device, by whichever of its names NVML knows.

    Torch's UUID has no prefix, and is the instance's where the GPU is divided (MIG).
    """
    lookups: list[tuple[Callable[[str], Any], str]] = []
    if place.uuid is not None:
        bare = place.uuid.removeprefix("GPU-").removeprefix("MIG-")
        lookups += [(library.nvmlDeviceGetHandleByUUID, f"{p}-{bare}") for p in ("GPU", "MIG")]
    if place.bus is not None:
        lookups.append((library.nvmlDeviceGetHandleByPciBusId, place.bus))
    refusal: Exception | None = None
    for look_up, name in lookups:
        try:
            return look_up(name)
        except library.NVMLError as error:
            refusal = error
    raise refusal if refusal is not None else library.NVMLError(library.NVML_ERROR_NOT_FOUND)


def nvml_words(error: Exception) -> str:
    """What NVML, or its library, says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return printable(text if isinstance(error, LibraryError) else f"NVML: {text}")


# Environments compared.


HARDWARE = ("processor", "cpus", "usable_cpus", "cpu_capability", "gpus")
"""What makes a machine; memory is left out, since kernels disagree about what they keep of it."""

SOFTWARE = ("torch", "datbench", "python", "platform", "cuda")
"""What may differ on one machine, and is what people compare: noted, not refused."""


def software(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs in versions between the environments of two sides, or within one, in words."""
    said = []
    for name in SOFTWARE:
        one, other = (distinct(each[name] for each in side if name in each) for side in (a, b))
        if one and other and (one != other or len(one) > 1):
            said.append(f"{name} {joined(one)} for A, {joined(other)} for B")
    return said


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in one order; they need not be hashable."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return sorted(found, key=repr)


def joined(values: Sequence[Any]) -> str:
    """Values in words, with commas between them; GPUs by their names."""
    return ", ".join(map(short, values))


def short(value: Any) -> str:
    """A value of an environment in words."""
    if not isinstance(value, list):
        return str(value)
    return ", ".join(str(v.get("name") if isinstance(v, dict) else v) for v in value) or "none"


def place_of(environment: Mapping[str, Any]) -> str:
    """Where something was measured, in words: the processor or GPU, and the versions."""
    return ", ".join(_place(environment)) or "unknown"


def places_apart(environments: Sequence[Mapping[str, Any]]) -> list[str]:
    """A place for each environment, in the words in which they differ."""
    places = [_place(here) for here in environments]
    if len(set(map(tuple, places))) < 2:  # as counts are made, which need no processor's name
        places = [_versions(here, "python", "platform") for here in environments]
    shared = set.intersection(*map(set, places)) if places else set()
    said = [", ".join(part for part in place if part not in shared) for place in places]
    return [name or place_of(here) for name, here in zip(said, environments, strict=True)]


def _place(environment: Mapping[str, Any]) -> list[str]:
    gpus = environment.get("gpus") or []
    names = list(dict.fromkeys(str(gpu.get("name")) for gpu in gpus if isinstance(gpu, Mapping)))
    if processor := environment.get("processor"):
        cores = environment.get("usable_cpus")
        names.append(f"{processor}{f', {cores} cores' if cores else ''}")
    return names + _versions(environment, "torch", "cuda", "datbench")


def _versions(environment: Mapping[str, Any], *names: str) -> list[str]:
    return [f"{name} {environment[name]}" for name in names if environment.get(name)]


def same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether times from both may be put beside each other."""
    names = ("processor", "usable_cpus", "torch", "cuda", "gpus")
    return all(one.get(name) == other.get(name) for name in names)
