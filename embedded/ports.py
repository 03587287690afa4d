"""Ports for servers that live on loopback for the length of a test or a demo."""

import random
import socket

# Below the range from which systems pick the local port of outgoing connections (32768 and up on
# Linux, 49152 on macOS). Inside that range a client that keeps trying to reach a stopped server
# can be given the server's own port: it then talks to itself, and the server cannot come back.
FIRST, LAST = 20_000, 29_999


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody holds at this moment.

    Another process may take it before the caller does: whoever starts a server on it should ask
    for another one when that happens.

    Raises:
        RuntimeError: two hundred ports in a row were taken.

    """
    for port in random.sample(range(FIRST, LAST + 1), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    msg = (
        f"No free port was found on 127.0.0.1 between {FIRST} and {LAST}; end the programs that "
        "hold them (`ss -ltn` lists them)"
    )
    raise RuntimeError(msg)
