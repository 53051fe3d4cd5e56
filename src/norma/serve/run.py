"""Listening: a socket handed to uvicorn; on this machine's loopback address unless another is asked for. Ends with Ctrl-C or SIGTERM.

SIGTERM ─→ no new connections ─→ what runs is finished, for at most ``drain`` seconds ─→ exit 0
"""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn

from norma.base.errors import NormaError
from norma.serve.answering import Backend
from norma.serve.app import build_app
from norma.serve.author import Author

if TYPE_CHECKING:
    from norma.spec import Spec

HOST = "127.0.0.1"
DRAIN = 30  # seconds


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(port: int, host: str = HOST) -> socket.socket:
    """A bound socket; port 0 takes any free one."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise NormaError(f"port {port} is taken", mend="Choose another with --port, or 0 for any free one") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise NormaError(f"port {port} may not be opened", mend="Choose one above 1023 with --port") from None
        if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            raise NormaError(f"this machine has no address {host}", mend="Give one of its own with --host") from None
        raise
    except OverflowError:
        bound.close()
        raise NormaError(f"{port} is not a port", mend="Ports are 0 to 65535") from None
    return bound


def run_server(
    author: Author | Backend,
    spec: Spec | None = None,
    *,
    port: int = 8000,
    host: str = HOST,
    drain: int = DRAIN,
    ready: Callable[[str], None] = lambda url: None,
    logged: bool = False,
    **options: Any,
) -> None:
    """Serve until stopped; ``ready`` gets the base address, for example ``http://127.0.0.1:8000/v1``, once the socket is bound.

    ``options``: of :func:`norma.serve.app.build_app`. ``logged``: the caller has set up logging.
    """
    bound = listen(port, host)
    config = uvicorn.Config(
        build_app(author, spec, **options),
        log_level=None if logged else "warning",
        log_config=None if logged else uvicorn.config.LOGGING_CONFIG,
        access_log=False,
        timeout_graceful_shutdown=drain,
        lifespan="on",
        server_header=False,
    )
    # uvicorn raises the signal once more when it has finished; by then a SIGTERM has had its way.
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with bound:
            bound.listen(128)  # from here on connections are taken; they are answered once uvicorn runs
            shown = f"[{host}]" if ":" in host else host
            ready(f"http://{shown}:{bound.getsockname()[1]}/v1")
            uvicorn.Server(config).run(sockets=[bound])
    finally:
        signal.signal(signal.SIGTERM, before)
