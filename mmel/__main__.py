"""`python -m mmel`."""

import sys

from mmel.cli import main

sys.exit(main())
