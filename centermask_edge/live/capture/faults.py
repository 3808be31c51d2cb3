"""Errors of a source that say by a name what happened, and texts without credentials."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from centermask_edge.errors import SourceError
from centermask_edge.live.health import Fault
from centermask_edge.live.source import redact

_USER_INFO = re.compile(r"://(.*)@")
_QUERY = re.compile(r"[?&;]([^=&;#\s]+)=([^&;#\s\"]*)")
# Of GStreamer's sources of network streams.
_PROPERTY = re.compile(r"(?:user-id|user-pw|proxy-id|proxy-pw)\s*=\s*(\"(?:\\.|[^\"])*\"|\S+)")
# Anything shorter would be found in harmless words.
_MIN_SECRET = 3


class SourceFault(SourceError):
    """A :class:`SourceError` with the name of what happened.

    Args:
        fault: what happened, as an operator would look for it.
        message: one line without credentials.
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not be read in any text about a camera.

    Attributes:
        words: user names and passwords, decoded and encoded, the longest first.
    """

    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, address: str) -> Secrets:
        """Those that an address or a GStreamer pipeline holds.

        >>> Secrets.of("rtsp://admin:p%40ss@h/live?token=abc").scrub("401 for admin p@ss, abc")
        '401 for *** ***, ***'
        """
        found: set[str] = set()
        for info in _USER_INFO.findall(address):
            found.update((info, *info.split(":", 1)))
        found.update(value for key, value in _QUERY.findall(address) if _is_secret(key))
        found.update(word.strip('"') for word in _PROPERTY.findall(address))
        found |= {form(word) for word in found for form in (unquote, unquote_plus)}
        found |= {form(word) for word in found for form in (_quote_all, quote_plus)}
        words = (word for word in found if len(word) >= _MIN_SECRET)
        return cls(tuple(sorted(words, key=lambda word: (-len(word), word))))

    def scrub(self, text: str) -> str:
        """The text on one line, without the secrets and without those of any address in it."""
        for word in self.words:
            text = text.replace(word, "***")
        # Word by word: the redaction of an address takes everything up to the last "@".
        return " ".join(_redact_word(word) for word in text.split())


def _redact_word(word: str) -> str:
    """What follows an address in a sentence is no part of it."""
    address = word.rstrip(".,:;'\"")
    return redact(address) + word[len(address) :]


def _is_secret(key: str) -> bool:
    return redact(f"?{key}=x") != f"?{key}=x"


def _quote_all(word: str) -> str:
    return quote(word, safe="")
