"""The study: everything that reproduces the paper. Nothing of the library imports it."""

import sys

if not (3, 11) <= sys.version_info[:2] < (3, 14):
    raise ImportError(f"mmel.study needs Python 3.11 to 3.13, got {sys.version.split()[0]}")
