"""``python -m norma`` is ``norma``."""

from __future__ import annotations

import sys

from norma.cli import main

sys.exit(main())
