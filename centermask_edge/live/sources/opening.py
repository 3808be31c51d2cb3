"""What the user named, opened: a video, an image, a folder, a webcam, a stream, a computed one."""

from __future__ import annotations

import os
import re
from pathlib import Path

from centermask_edge.errors import SourceError
from centermask_edge.live.source import Kind, Source, redact
from centermask_edge.live.sources.pictures import FolderSource, PictureSource, is_picture
from centermask_edge.live.sources.video import SCHEMES, VideoSource
from centermask_edge.live.sources.webcam import WebcamSource
from centermask_edge.live.synthetic.source import SYNTHETIC, SyntheticSource


def open_source(text: str) -> Source:
    """The source of that name.

    Digits are a webcam, ``synthetic:`` begins a computed camera, ``scheme://`` a stream, a folder
    its images, the name of an image that image, and every other file a video.

    Raises:
        MissingPackageError: what reads it is not installed.
        SourceError: it does not exist or cannot be opened.
    """
    if text.isascii() and text.isdigit():
        return WebcamSource(int(text))
    if text.startswith(SYNTHETIC):
        return SyntheticSource(text)
    address = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", text)
    if address:
        if address[1].lower() not in SCHEMES:
            raise SourceError(
                f"{redact(text)}: addresses that can be read start with "
                f"{', '.join(f'{scheme}://' for scheme in SCHEMES)}"
            )
        return VideoSource(text, Kind.STREAM)
    path = Path(text)
    # By os.path, which takes a name no file can have for one of no file.
    if text and os.path.isdir(path):
        return FolderSource(path)
    if not text or not os.path.exists(path):
        raise SourceError(
            f"source not found: {text or 'an empty name'}; give a video, an image, a folder, "
            "a webcam's number or an rtsp:// address"
        )
    return PictureSource(path) if is_picture(path) else VideoSource(text, Kind.VIDEO)
