"""The machine a run is on: what it is, which code it runs, how much memory it took, how its allocator behaves."""

import contextlib
import ctypes
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor

# As in pyproject.toml.
LEAST = {"torch": "2.11", "torchvision": "0.26", "transformers": "5.17"}
PACKAGES = ("torch", "torchvision", "transformers", "datasets")

# glibc's mallopt parameters, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def pick_device(device: str | None = None) -> torch.device:
    """The device named, else the one in MMEL_DEVICE, else the first GPU, else the CPU.

    Raises:
        ValueError: if the device is not there, or is neither a CPU nor a CUDA GPU.
    """
    device = device or os.environ.get("MMEL_DEVICE")
    if not device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        is_known = chosen.type in ("cpu", "cuda")
        if is_known:
            torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError):
        is_known = False
    if not is_known:
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise ValueError(f"device must be one that this machine has ({', '.join(['cpu', *gpus])}), got {device!r}")
    return chosen


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; a copy from the CPU to a GPU waits for neither, as one from pageable memory would."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, in this process alone.

    By default it hands large blocks back to the kernel when they are freed, so each training step faults all its
    activations in again. Elsewhere than on glibc this does nothing. `python -m benchmarks allocator` measures it.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def ieee_fp32() -> Iterator[None]:
    """Compute what is float32 in float32 on a GPU: by itself PyTorch has cuDNN's convolutions round to TF32."""
    # One of PyTorch's two interfaces, and never the older one (`allow_tf32`) beside it: reading that one is an error
    # while the two disagree.
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def describe_device(device: torch.device) -> dict[str, Any]:
    """All of a device that decides its speed: two CPUs can share a name and differ in their instructions.

    Returns:
        `type`, `name`, `native_bf16` and, for a CPU, `capability` (its instruction set, as PyTorch uses it) and
        `threads`.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return {"type": "cuda", "name": torch.cuda.get_device_name(device), "native_bf16": native}
    return {
        "type": device.type,
        "name": _cpu_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        # By oneDNN's own word, which heeds ONEDNN_MAX_CPU_ISA.
        "native_bf16": torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        "threads": torch.get_num_threads(),
    }


def check_versions() -> None:
    """Refuse a package that is too old, as a machine without an installer may have; a missing one is named in use.

    Raises:
        ImportError: naming the package, its version and the oldest that will do.
    """
    for package, least in LEAST.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            if Version(found := metadata.version(package)) < Version(least):
                raise ImportError(
                    f"{package} must be {least} or newer, got {found}: pip install -U '{package}>={least}'"
                )


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that decide a result."""
    found = {"python": platform.python_version()}
    for package in ("mmel", *PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    # The build says more than the metadata (which CUDA, if any).
    found["torch"] = str(torch.__version__)
    return found


def code_version() -> dict[str, Any]:
    """Git commit of the code that runs and whether it was changed since; MMEL_COMMIT without a checkout."""
    if named := os.environ.get("MMEL_COMMIT"):
        return {"commit": named, "dirty": None}
    here = Path(__file__).resolve().parents[3]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie within a repository that is another project's, and does not track it.
        git("ls-files", "--error-unmatch", "mmel/__init__.py")
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "mmel", "notebooks")
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed)}


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
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
