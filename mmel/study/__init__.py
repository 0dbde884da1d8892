"""The study: everything that reproduces the paper. Nothing of the library imports it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

if not (3, 11) <= sys.version_info[:2] < (3, 14):
    raise ImportError(f"mmel.study needs Python 3.11 to 3.13, got {sys.version.split()[0]}")


def code_version() -> dict[str, Any]:
    """Git commit of the code that runs and whether it was changed since; MMEL_COMMIT without a checkout."""
    if named := os.environ.get("MMEL_COMMIT"):
        return {"commit": named, "dirty": None}
    here = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie within a repository that is another project's, and does not track it.
        git("ls-files", "--error-unmatch", "mmel/__init__.py")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "mmel", "notebooks")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
