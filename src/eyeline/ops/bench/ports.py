"""Free ports of this machine, for the servers that a benchmark starts."""

import socket


def two_free_ports() -> tuple[int, int]:
    """Two different ports that nothing listens on now."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
