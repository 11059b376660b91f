"""Where the broker is, and the socket that speaks with it."""
from __future__ import annotations

import os
from typing import Any, NamedTuple, TypeVar

import zmq
import zmq.auth

from .errors import Invalid, Unreachable

S = TypeVar("S", bound="zmq.Socket[Any]")


def default_endpoint(name: str = "clients") -> str:
    """$PENSTOCK_ENDPOINT (for clients), else where `penstock up` puts the broker."""
    named = os.environ.get("PENSTOCK_ENDPOINT")
    if named and name == "clients":
        return named
    run = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = f"{run}/penstock" if run.startswith("/") else f"/tmp/penstock-{os.getuid()}"
    return f"ipc://{folder}/{name}"


class Keys(NamedTuple):
    """What an encrypted connection is made with (CURVE)."""

    public: bytes
    secret: bytes
    server: bytes


def _certificate(path: str) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise Invalid(f"{path} is not a certificate: {error}") from error


def load_keys(key: str | None = None, server_key: str | None = None) -> Keys | None:
    """One's own `NAME.cert_secret` and the broker's `broker.cert` (or the key itself).

    Without arguments those of $PENSTOCK_KEY and $PENSTOCK_SERVER_KEY; None: a plain connection.
    """
    key = key if key is not None else os.environ.get("PENSTOCK_KEY")
    server_key = server_key if server_key is not None else os.environ.get("PENSTOCK_SERVER_KEY")
    if not key and not server_key:
        return None
    if not key or not server_key:
        raise Invalid("a connection is encrypted with both key=NAME.cert_secret and "
                      "server_key=broker.cert")
    public, secret = _certificate(key)
    if secret is None:
        raise Invalid(f"{key} holds no secret key; name the .cert_secret file")
    if os.stat(key).st_mode & 0o077:
        raise Invalid(f"{key} holds a secret key and can be read by other users; run chmod 600 on it")
    if len(server_key) == 40 and not os.path.exists(server_key):
        return Keys(public, secret, server_key.encode())
    return Keys(public, secret, _certificate(server_key)[0])


def connect(socket: S, endpoint: str, keys: Keys | None = None) -> S:
    """Sets a DEALER up and connects it: the one place where sockets of this package are.

    Without `keys` the connection is made with those of the environment, if there are any.
    """
    try:
        keys = keys or load_keys()
    except Invalid:
        socket.close()
        raise
    if keys:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
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
