"""`python -m tests.ghz`."""

import sys

from tests.ghz.program import main

sys.exit(main())
