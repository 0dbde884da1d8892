"""Runs as executed notebooks: papermill on one warm kernel.

Starting a kernel and importing torch takes longer than a small run. The kernel is therefore started once and its
namespace cleared between notebooks; a run depends on its configuration alone (every random draw is seeded from it),
so this changes no result.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import papermill
import papermill.engines
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.exceptions import PapermillExecutionError

from mmel.study.config import Run
from mmel.study.records import Store
from mmel.study.sweep import NotebookError

NOTEBOOKS = Path("notebooks")
KERNEL = "python3"
# A kernel that has run this many notebooks is replaced, so that nothing it leaks can add up.
NOTEBOOKS_PER_KERNEL = 100
# What `%reset -f` does to names and outputs, less its garbage collection, which takes half a second beside torch.
FORGET = """
get_ipython().user_ns["Out"].clear()
for _name in set(get_ipython().user_ns) - set(get_ipython().user_ns_hidden):
    del get_ipython().user_ns[_name]
"""


class _WarmEngine(papermill.engines.Engine):
    """A papermill engine that executes in a kernel it is given, and leaves that kernel running."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *, km: Any, kc: Any, **_: Any) -> None:
        client = PapermillNotebookClient(nb_man, km=km, kernel_name=kernel_name, timeout=None)
        client.kc = kc
        client.execute()


papermill.engines.papermill_engines.register("mmel-warm", _WarmEngine)


class WarmKernel:
    """A Jupyter kernel that executes one notebook after another, over ipc sockets of its own.

    Args:
        environment: variables the kernel sees beside this process' own.
    """

    def __init__(self, environment: dict[str, str]):
        self._environment = os.environ | environment
        self._executed = 0
        self._manager: AsyncKernelManager | None = None

    def execute(self, notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
        """Execute a notebook and write it, with outputs, to `output`; the write is atomic.

        Raises:
            NotebookError: if the notebook has no such parameter, or a cell fails.
        """
        check_parameters(notebook, parameters)
        if self._executed == NOTEBOOKS_PER_KERNEL:
            self.close()
        if self._manager is None:
            self._start()
        output.parent.mkdir(parents=True, exist_ok=True)
        # papermill saves while it goes; only a whole notebook gets the final name.
        partial = output.with_suffix(".partial.ipynb")
        try:
            papermill.execute_notebook(
                notebook,
                partial,
                parameters,
                engine_name="mmel-warm",
                kernel_name=KERNEL,
                progress_bar=False,
                km=self._manager,
                kc=self._client,
            )
        except PapermillExecutionError as error:
            raise NotebookError(f"{error.ename}: {error.evalue} (see {partial})", error.ename) from error
        except DeadKernelError as error:
            # Out of memory, most often: the kernel was killed from outside and left no traceback.
            raise NotebookError(f"the kernel died (see {partial})", DeadKernelError.__name__) from error
        finally:
            self._executed += 1
            if self._manager is not None and run_sync(self._manager.is_alive)():
                # Runs before whatever the next notebook sends: the kernel takes requests in order.
                self._client.execute(FORGET, silent=True, store_history=False)
            else:
                self.close()
        partial.replace(output)

    def close(self) -> None:
        """Stop the kernel and every process it started."""
        if self._manager is None:
            return
        manager, self._manager, self._executed = self._manager, None, 0
        # The kernel leads its own process group; data-loading children of a dead kernel would outlive it.
        group = getattr(manager.provisioner, "pgid", None)
        self._client.stop_channels()
        run_sync(manager.shutdown_kernel)(now=True)
        _kill_group(group)
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """Kill the kernel's processes, from any thread; a notebook under way then fails."""
        if self._manager is not None:
            _kill_group(getattr(self._manager.provisioner, "pgid", None))

    def _start(self) -> None:
        _clear_folders()
        # Sockets in a folder of their own: parallel starts cannot race for ports. Its path must be short, since a
        # socket's path has about a hundred characters.
        self._folder = Path(tempfile.mkdtemp(prefix=f"mmel-{os.getpid()}-", dir="/tmp"))
        self._manager = AsyncKernelManager(
            kernel_name=KERNEL, transport="ipc", connection_file=str(self._folder / "k.json")
        )
        run_sync(self._manager.start_kernel)(env=self._environment)
        self._client = self._manager.client()
        self._client.start_channels()
        run_sync(self._client.wait_for_ready)(timeout=120)
        self._client.allow_stdin = False


def kernel_environment(store: Store, data_root: str | None = None, device: str | None = None) -> dict[str, str]:
    """Variables that tell a kernel's notebooks the results folder, data folder and device."""
    environment = {"MMEL_RESULTS": str(store.root.resolve()), "MMEL_HEADLESS": "1"}
    if data_root:
        environment["MMEL_DATA"] = str(Path(data_root).resolve())
    if device:
        environment["MMEL_DEVICE"] = device
    return environment


@contextlib.contextmanager
def warm_kernel(store: Store, data_root: str | None = None, device: str | None = None) -> Iterator[WarmKernel]:
    """A kernel whose notebooks use this results folder, data folder and device; closed at the end."""
    kernel = WarmKernel(kernel_environment(store, data_root, device))
    try:
        yield kernel
    finally:
        kernel.close()


def execute_run(kernel: WarmKernel, notebook: Path, config: Run, store: Store) -> None:
    """Train one run through its notebook.

    Raises:
        NotebookError: as `WarmKernel.execute`.
    """
    kernel.execute(notebook, store.notebook_path(config), config.to_dict())


def _clear_folders() -> None:
    """Remove the socket folders that killed processes left."""
    for folder in Path("/tmp").glob("mmel-*-*"):
        owner = folder.name.split("-")[1]
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OverflowError, PermissionError):
            # Not such a folder, or another user's, whose process is alive.
            continue


def _kill_group(group: int | None) -> None:
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """Refuse parameters that the notebook does not have: papermill itself only logs them.

    Raises:
        NotebookError: naming the unknown parameters and the notebook's.
    """
    if not notebook.exists():
        raise NotebookError(f"no notebook at {notebook}; run this in a checkout of the study, or with --no-notebook")
    known = papermill.inspect_notebook(str(notebook))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise NotebookError(f"{notebook} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
