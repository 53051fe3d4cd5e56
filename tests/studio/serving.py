"""A studio in a process of its own, for tests that kill it or look at it with a browser. Run as: serving.py RUN PORT [accounts]."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    from norma.studio import serving

    serving.serve(
        Path(sys.argv[1]),
        labels=None,
        models=[Path(p) for p in sys.argv[4:]],
        port=int(sys.argv[2]),
        host="127.0.0.1",
        accounts=sys.argv[3] == "accounts",
    )
