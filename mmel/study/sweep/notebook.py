"""Runs as executed notebooks: papermill on one warm kernel, whose namespace is cleared between notebooks.

Starting a kernel and importing torch takes longer than a small run. A run depends on its configuration alone.
"""

import contextlib
import os
import signal
import tempfile
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
from mmel.study.sweep import Ended, NotebookError, Outcome, ended_by

NOTEBOOKS = Path("notebooks")
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


class WarmKernel(contextlib.AbstractContextManager):
    """A Jupyter kernel that executes one notebook after another; it starts with the first.

    `threads` of a notebook's computations are torch's own choice if None.
    """

    def __init__(self, store: Store, threads: int | None = None):
        self._store = store
        self._environment = os.environ | {"MMEL_RESULTS": str(store.root.resolve()), "MMEL_HEADLESS": "1"}
        if threads is not None:
            self._environment["OMP_NUM_THREADS"] = str(threads)
        self._manager: AsyncKernelManager | None = None

    def train(self, run: Run, table: str) -> Ended:
        """Train a run through its table's notebook."""
        try:
            self.execute(NOTEBOOKS / f"run_{table}.ipynb", self._store.notebook_path(run), run.to_dict())
        except Exception as error:
            return ended_by(error)
        return Ended(Outcome.TRAINED)

    def execute(self, notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
        """Execute a notebook and write it, with outputs, to `output` atomically.

        Raises:
            NotebookError: if there is no such notebook, or a cell fails.
        """
        if not notebook.exists():
            raise NotebookError(f"no notebook at {notebook}; run in a checkout of the study, or with --no-notebook")
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
                kernel_name="python3",
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
            if self._manager is not None and run_sync(self._manager.is_alive)():
                # Runs before whatever the next notebook sends: the kernel takes requests in order.
                self._client.execute(FORGET, silent=True, store_history=False)
            else:
                self.close()
        partial.replace(output)

    def kill(self) -> None:
        """Kill the kernel and every process it started, from any thread; a notebook under way then fails."""
        # The kernel leads its own process group; data-loading children of a dead kernel would outlive it.
        group = self._manager and getattr(self._manager.provisioner, "pgid", None)
        if group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    def close(self) -> None:
        """Stop the kernel and every process it started."""
        if self._manager is not None:
            self._client.stop_channels()
            self.kill()
            run_sync(self._manager.shutdown_kernel)(now=True)
            self._manager = None
            self._folder.cleanup()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        # Sockets in a folder of their own: parallel starts cannot race for ports. Its path must be short, since a
        # socket's path has about a hundred characters.
        self._folder = tempfile.TemporaryDirectory(prefix="mmel-", dir="/tmp", ignore_cleanup_errors=True)
        self._manager = AsyncKernelManager(transport="ipc", connection_file=str(Path(self._folder.name, "k.json")))
        run_sync(self._manager.start_kernel)(env=self._environment)
        self._client = self._manager.client()
        self._client.start_channels()
        run_sync(self._client.wait_for_ready)(timeout=120)
        self._client.allow_stdin = False
