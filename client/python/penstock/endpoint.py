"""Where the broker is, and the socket that speaks with it."""
from __future__ import annotations

import os
from typing import Any, TypeVar

import zmq

from .errors import Unreachable

S = TypeVar("S", bound="zmq.Socket[Any]")


def default_endpoint(name: str = "clients") -> str:
    """$PENSTOCK_ENDPOINT (for clients), else where `penstock up` puts the broker."""
    named = os.environ.get("PENSTOCK_ENDPOINT")
    if named and name == "clients":
        return named
    run = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = f"{run}/penstock" if run.startswith("/") else f"/tmp/penstock-{os.getuid()}"
    return f"ipc://{folder}/{name}"


def connect(socket: S, endpoint: str) -> S:
    """Sets a DEALER up and connects it: the one place where sockets of this package are."""
    socket.setsockopt(zmq.LINGER, 200)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a broker that is not there
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
    socket.setsockopt(zmq.RCVHWM, 4096)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise Unreachable(f"'{endpoint}' is not an endpoint: {error}") from error
    return socket
