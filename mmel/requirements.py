"""The versions that training must run on, checked where no installer has: a source tree on a GPU machine, say."""

import re
import sys
from importlib import metadata

# As in pyproject.toml, which a source tree's Python does not see.
PYTHON = ((3, 11), (3, 14))
LEAST = {"torch": "2.11", "torchvision": "0.26", "transformers": "5.17"}


class VersionError(ImportError):
    """A version of Python or of a package that training does not run on."""


def check_versions() -> None:
    """Refuse an interpreter or an installed package that is too old; one that is missing is named when it is used.

    Raises:
        VersionError: naming what is too old, its version and what it may be.
    """
    least, below = PYTHON
    if not least <= sys.version_info[:2] < below:
        raise VersionError(
            f"Python must be from {_text(least)} to below {_text(below)}, got {_text(sys.version_info[:3])}"
        )
    for package, wanted in LEAST.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        if _numbers(found) < _numbers(wanted):
            raise VersionError(
                f"{package} must be {wanted} or newer, got {found}: pip install -U '{package}>={wanted}'"
            )


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version: (2, 11, 0) of 2.11.0a0+git."""
    return tuple(map(int, re.match(r"\d+(?:\.\d+)*", version)[0].split(".")))


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
