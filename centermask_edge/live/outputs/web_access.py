"""Who may look at pictures over HTTP."""

from __future__ import annotations

import hmac
from email.message import Message
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from centermask_edge.errors import SinkError

LEAST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound there.

    >>> [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")]
    [True, True, True, False, False]
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_token(host: str, token: str | None) -> None:
    """Nothing, if pictures may be shown there.

    Raises:
        SinkError: others than this machine could see them without a token, or it is short.
    """
    if token is None and not is_loopback(host):
        raise SinkError(
            f"pictures on {host or 'every address'} could be seen by anyone in the network; "
            "give a token, or bind to 127.0.0.1"
        )
    if token is not None and len(token) < LEAST_TOKEN:
        raise SinkError(
            f"the token has {len(token)} characters; give at least {LEAST_TOKEN}, for example "
            "from: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )


def refused(token: str | None, query: str, headers: Message) -> HTTPStatus | None:
    """Why a request gets nothing, or None where it may look.

    Args:
        token: that it must bear; None where the server is for this machine only.
        query: of the address.
        headers: of the request.
    """
    if token is None:
        # Else a page of a stranger could have its name resolved to this machine and look in.
        try:
            host = urlsplit(f"//{headers.get('Host', '')}").hostname or ""
        except ValueError:
            return HTTPStatus.FORBIDDEN
        return None if is_loopback(host) else HTTPStatus.FORBIDDEN
    given = parse_qs(query).get("token", [""])[0]
    kind, _, bearer = headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        given = bearer.strip()
    right = hmac.compare_digest(given.encode(errors="replace"), token.encode())
    return None if right else HTTPStatus.UNAUTHORIZED
