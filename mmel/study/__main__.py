"""`python -m mmel.study`."""

import sys

from mmel.study.cli import main

sys.exit(main())
