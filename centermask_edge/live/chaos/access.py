"""User name and password of a camera, asked for as Basic or Digest (RFC 7617, 7616 with MD5)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from enum import Enum

from centermask_edge.live.chaos.requests import Request

_REALM = "centermask-edge fault server"
_PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


class Scheme(str, Enum):
    """How a camera asks for the password."""

    BASIC = "Basic"
    DIGEST = "Digest"


class Access:
    """Who may see a camera.

    Args:
        user: name, without a colon.
        password: its password.
        scheme: how it is asked for.
    """

    def __init__(self, user: str, password: str, scheme: Scheme = Scheme.DIGEST) -> None:
        self.user, self.password = user, password
        self._scheme = scheme
        self._nonce = secrets.token_hex(16)

    def challenge(self) -> tuple[tuple[str, str], ...]:
        """The header of an answer 401."""
        words = f'{self._scheme.value} realm="{_REALM}"'
        if self._scheme is Scheme.DIGEST:
            words += f', nonce="{self._nonce}", algorithm=MD5, qop="auth"'
        return (("WWW-Authenticate", words),)

    def granted(self, request: Request) -> bool:
        """Whether the request bears name and password, in the scheme that was asked for."""
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != self._scheme.value.lower():
            return False
        if self._scheme is Scheme.BASIC:
            told = f"{self.user}:{self.password}".encode()
            return hmac.compare_digest(rest.strip().encode(), base64.b64encode(told))
        given = {key: quoted or bare for key, quoted, bare in _PAIR.findall(rest)}
        return hmac.compare_digest(
            given.get("response", "").encode(), self._response(request.method, given).encode()
        )

    def _response(self, method: str, given: dict[str, str]) -> str:
        """What the right client answers; with a nonce of ours, whatever was given."""
        secret = _md5(f"{self.user}:{_REALM}:{self.password}")
        asked = _md5(f"{method}:{given.get('uri', '')}")
        between = self._nonce
        if "qop" in given:
            between += f":{given.get('nc', '')}:{given.get('cnonce', '')}:{given['qop']}"
        return _md5(f"{secret}:{between}:{asked}")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
