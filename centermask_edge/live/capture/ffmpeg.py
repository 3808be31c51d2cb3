"""What FFmpeg's errors mean to an operator, and in what words, without the address."""

from __future__ import annotations

import errno
import socket
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from centermask_edge.errors import SourceError
from centermask_edge.live.health import Fault

_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)


def host_of(address: str, name: str) -> str:
    """The host in an address that is shown as ``name``.

    Raises:
        SourceError: there is none.
    """
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise SourceError(
            f"{name} is not a complete address; wanted for example rtsp://192.168.1.10:554/stream"
        )
    return host


def open_trouble(
    av: ModuleType, error: Any, host: str, within_s: float, *, late: bool
) -> tuple[Fault, str]:
    """What went wrong and what to do, for a stream that does not open.

    Args:
        av: PyAV.
        error: its error.
        host: of the address.
        within_s: the seconds it was given.
        late: whether they passed.
    """
    errors = av.error
    if late or isinstance(error, errors.ExitError | errors.TimeoutError):
        return (
            Fault.TIMEOUT,
            f"no answer within {within_s:.3g} s; check that {host} is on and reachable",
        )
    for kind, fault, words in (
        (
            errors.ConnectionRefusedError,
            Fault.REFUSED,
            f"connection refused by {host}; check the port, and that the stream is running",
        ),
        (
            errors.HTTPUnauthorizedError,
            Fault.AUTH,
            "user name or password refused (401); write USER:PASSWORD@ before the host",
        ),
        (
            errors.HTTPForbiddenError,
            Fault.AUTH,
            "access denied (403); check the rights of this user",
        ),
        (
            errors.HTTPNotFoundError,
            Fault.NOT_FOUND,
            "the server has no such stream (404); check the path of the address",
        ),
    ):
        if isinstance(error, kind):
            return fault, words
    if isinstance(error, OSError) and not known(host):
        return Fault.UNREACHABLE, f"host {host} not found; check the spelling and the network"
    if isinstance(error, errors.MemoryError):
        return Fault.CODEC, "what it announces is too large for a video"
    if isinstance(error, errors.InvalidDataError):
        return Fault.CODEC, "what it sends is not a video; check the path of the address"
    return read_fault(av, error, opening=True), reason(av, error, 0)


def read_fault(av: ModuleType, error: Any, *, opening: bool = False) -> Fault:
    """The name of an error at reading, or at opening where nothing else names it better."""
    errors = av.error
    if isinstance(error, errors.ExitError | errors.TimeoutError):
        return Fault.FROZEN
    if isinstance(
        error,
        errors.ConnectionResetError | errors.ConnectionAbortedError | errors.BrokenPipeError,
    ):
        return Fault.RESET
    if error.errno in _NO_ROUTE:
        return Fault.UNREACHABLE
    # The end of an HTTP stream, too, is an input/output error to FFmpeg.
    if error.errno == errno.EIO or isinstance(error, errors.EOFError):
        return Fault.RESET if opening else Fault.END
    if isinstance(error, errors.HTTPError | OSError):
        return Fault.UNREACHABLE
    return Fault.CODEC


def known(host: str) -> bool:
    """Whether the name stands for an address."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def reason(av: ModuleType, error: Any, read_s: float) -> str:
    """FFmpeg's words without the address, which may hold a password."""
    if isinstance(error, av.error.ExitError):
        return f"no data for {read_s:g} s"
    words = str(error.strerror or type(error).__name__)
    return words[:1].lower() + words[1:]
