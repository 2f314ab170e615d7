"""Ports for the servers that tests start."""

from __future__ import annotations

import random
import socket

# below those that systems give to outgoing connections, which would take a port between its choice and its server's start
NEVER_GIVEN_BY_THE_SYSTEM = range(20_000, 32_000)
_chosen: set[int] = set()


def free_port() -> int:
    """One that nobody listens on, never the same twice."""
    while (port := random.SystemRandom().choice(NEVER_GIVEN_BY_THE_SYSTEM)) in _chosen or _is_taken(port):
        pass
    _chosen.add(port)
    return port


def _is_taken(port: int) -> bool:
    with socket.socket() as found:
        try:
            found.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
