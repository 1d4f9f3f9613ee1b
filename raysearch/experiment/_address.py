"""Whether a Ray cluster answers at an address, found out within seconds.

Ray itself tries for a minute, and ends the whole process when something else listens there.
"""

from __future__ import annotations

import os
import socket

from raysearch.errors import RaysearchError

SECONDS = 5.0
# What opens every HTTP/2 connection (RFC 9113, section 3.4), gRPC's too: the client's preface
# and an empty SETTINGS frame. A server answers with a SETTINGS frame, type 4, of its own.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4


def check_address(address: str) -> None:
    """Look for a gRPC server at `HOST:PORT` or `ray://HOST:PORT`; "auto" is left to Ray.

    Raises:
        RaysearchError: not an address, or nothing there that could be Ray.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isascii() or not port.isdigit():
        raise RaysearchError(f"--address {address}: expected HOST:PORT, ray://HOST:PORT or auto")
    try:
        answer = _greet(host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RaysearchError(
            f"no Ray cluster answers at {address} ({reason}); "
            "leave out --address to start Ray on this machine"
        ) from error
    encrypted = os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")
    if not encrypted and answer[3:4] != bytes([SETTINGS]):
        raise RaysearchError(f"{address} answers, but is no Ray cluster")


def _greet(host: str, port: int) -> bytes:
    """The first bytes that a server says to an HTTP/2 client."""
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        connection.sendall(PREFACE)
        return connection.recv(9)
