"""`python -m refsnn` is the `refsnn` command."""

import sys

from .commands.cli import main

sys.exit(main())
