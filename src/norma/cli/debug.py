"""Every way a command can end, in one place: exit codes, one-line errors, and tracebacks for those who ask with ``--debug``.

0 fine · 1 a gate failed or something unexpected · 2 wrong input (NormaError, usage) · 130 Ctrl-C · 143 SIGTERM
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from norma.base.errors import NormaError


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised like Ctrl-C so that the work in hand is left in good order."""


def guarded(argv: Sequence[str] | None = None, call: Callable[[list[str]], int] | None = None) -> int:
    """Run ``norma`` with ``argv`` (default: the process's own) and turn every ending into an exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:split]
    arguments = [a for a in arguments[:split] if a != "--debug"] + arguments[split:]
    try:
        _mind_sigterm()
        code = (call or _typer)(arguments)
        sys.stdout.flush()
        return code
    except NormaError as error:
        return _failed(f"error: {error}", error.exit_code, debug)
    except Terminated:
        return _failed("stopped by SIGTERM", 143, debug)
    except KeyboardInterrupt:
        return _failed("stopped", 130, debug)
    except BrokenPipeError:
        # The reader of a pipe (`norma ... | head`) has gone; flushing at exit must not complain about it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # the last resort of the program: one line, never a page of traceback unasked
        text = " ".join(str(error).split())
        return _failed(f"error: {type(error).__name__}: {text}"[:400] + ". To see where, run again with --debug.", 1, debug)


def _typer(arguments: list[str]) -> int:
    from norma.cli.app import invoke

    return invoke(arguments)


def _failed(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(line, file=sys.stderr)
    return code


def _mind_sigterm() -> None:
    def stop(number: int, frame: object) -> None:
        raise Terminated

    try:
        signal.signal(signal.SIGTERM, stop)
    except ValueError:
        return  # not the main thread: whoever started us minds the signals
