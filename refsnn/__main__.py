"""`python -m refsnn` is the `refsnn` command."""

import sys

from .cli import main

sys.exit(main())
