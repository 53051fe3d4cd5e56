"""Floor 8: ``norma ...``. Thin: a command reads its arguments, calls one room, and prints what comes back.

Command modules import the rooms they call inside the command, so that ``norma --help`` needs neither torch nor a second.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors are one line on stderr."""
    from norma.base.platform import set_cache_limits, tune_allocator
    from norma.cli.debug import guarded

    # Before torch is imported by any command: what both do, and what they are worth, is told by `norma doctor`.
    set_cache_limits()
    tune_allocator()
    return guarded(argv)
