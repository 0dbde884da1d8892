"""The machine that a run is on: packages, device, memory."""

import contextlib
import ctypes
import os
import platform
import re
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor

# As in pyproject.toml.
LEAST = {"torch": "2.11", "torchvision": "0.26", "transformers": "5.17"}

# glibc's mallopt parameters, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that decide a result."""
    found = {"python": platform.python_version()}
    for package in ("mmel", *LEAST, "datasets"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    # The build says more than the metadata (which CUDA, if any).
    return found | {"torch": str(torch.__version__)}


def check_versions() -> None:
    """Raise an ImportError if a package is too old, as on a machine without an installer."""
    found = versions()
    for package, least in LEAST.items():
        if package in found and Version(found[package]) < Version(least):
            raise ImportError(
                f"{package} must be {least} or newer, got {found[package]}: pip install -U '{package}>={least}'"
            )


def pick_device(device: str | None = None) -> torch.device:
    """The device named, else the one in MMEL_DEVICE, else the first GPU, else the CPU.

    Raises:
        ValueError: if the device is not there, or is neither a CPU nor a CUDA GPU.
    """
    device = device or os.environ.get("MMEL_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    known = ["cpu", "cuda", *gpus] if gpus else ["cpu"]
    if device not in known:
        raise ValueError(f"device must be one that this machine has ({', '.join(known)}), got {device!r}")
    return torch.device(device)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; a copy from the CPU to a GPU waits for neither, as one from pageable memory would."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, in this process alone; without glibc do nothing.

    By default it hands large blocks back to the kernel, so each training step faults all its activations in again.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def describe_device(device: torch.device) -> dict[str, Any]:
    """The `type` and `name` of a device and, of a CPU, `threads` and `capability`, the instructions that torch uses."""
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device)}
    # Two CPUs can share a name and differ in their instructions.
    capability = torch.backends.cpu.get_cpu_capability()
    return {"type": "cpu", "name": _cpu_name(), "capability": capability, "threads": torch.get_num_threads()}


def reset_peak_memory(device: torch.device) -> None:
    """Start counting peak memory anew, where the machine can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Linux resets the high-water mark of a process on this write (proc(5)); a warm kernel trains many runs.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory in use since the last reset: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        # Linux: getrusage would begin at the peak of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*: (.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine()
