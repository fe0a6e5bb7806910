"""``python -m glyder``."""

import sys

from glyder.cli import main

sys.exit(main())
