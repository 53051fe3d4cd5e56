"""Listening: a socket on this machine's loopback address, handed to uvicorn. Ends with Ctrl-C or SIGTERM."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from norma.base.errors import NormaError
from norma.serve.app import build_app
from norma.serve.author import Author

if TYPE_CHECKING:
    from norma.spec import Spec

HOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """A bound socket; port 0 takes any free one."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise NormaError(f"port {port} is taken", mend="Choose another with --port, or 0 for any free one") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise NormaError(f"port {port} may not be opened", mend="Choose one above 1023 with --port") from None
        raise
    except OverflowError:
        bound.close()
        raise NormaError(f"{port} is not a port", mend="Ports are 0 to 65535") from None
    return bound


def run_server(
    author: Author, spec: Spec | None = None, *, port: int = 8000, waiting: int = 64, ready: Callable[[str], None] = lambda url: None
) -> None:
    """Serve until stopped; ``ready`` gets the base address, for example ``http://127.0.0.1:8000/v1``, once the socket is bound."""
    bound = listen(port)
    config = uvicorn.Config(
        build_app(author, spec, waiting=waiting), log_level="warning", access_log=False, timeout_graceful_shutdown=3, lifespan="on"
    )
    with bound:
        bound.listen(128)  # from here on connections are taken; they are answered once uvicorn runs
        ready(f"http://{HOST}:{bound.getsockname()[1]}/v1")
        uvicorn.Server(config).run(sockets=[bound])
