"""The server of the site: a free port of the loopback interface, until the process is told to stop."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import closing
from typing import Any

import uvicorn

from structlog_audit.cli.explore.access import Guard
from structlog_audit.cli.explore.overview import Overview
from structlog_audit.cli.explore.site import make_site


class _Server(uvicorn.Server):
    """A server that calls *announce* once it accepts connections and handles signals."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Start to accept connections."""
        await super().startup(sockets)
        self._announce()


def serve(path: str, overview: Overview, announce: Callable[[str], None]) -> None:
    """Serve the database at *path* until the process gets SIGINT or SIGTERM.

    Args:
        path: The database.
        overview: The content of the front page.
        announce: Called with the address, once it is served.
    """
    token = secrets.token_urlsafe(24)
    guard = Guard(make_site(path, overview, token).app(), token)
    config = uvicorn.Config(
        guard, host="127.0.0.1", port=0, log_level="critical", access_log=False, server_header=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip

    with closing(config.bind_socket()) as listening:
        guard.host = f"127.0.0.1:{listening.getsockname()[1]}"
        server = _Server(config, lambda: announce(f"http://{guard.host}/{token}/"))
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            # uvicorn repeats the signal after it has stopped.
            pass
