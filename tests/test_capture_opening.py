"""From what the user wrote to a camera, or to one line that says what is wrong with it."""

from __future__ import annotations

import pytest

from centermask_edge.errors import SourceError
from centermask_edge.live.capture.opening import open_camera

SECRETS = ("admin", "s3cret", "t0ken")


def test_a_name_is_free_of_credentials_and_can_be_given() -> None:
    camera = open_camera("rtsp://admin:s3cret@10.0.0.7/live?token=t0ken")
    assert camera.name == "rtsp://***@10.0.0.7/live?token=***"
    assert open_camera("rtsp://admin:s3cret@10.0.0.7/live", name="gate").name == "gate"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "source not found"),
        ("nothing.mp4", "source not found: nothing.mp4"),
        ("ftp://admin:s3cret@h/x", "addresses that can be read start with rtsp://"),
        ("rtsp://admin:s3cret@", "not a complete address"),
    ],
)
def test_what_waiting_cannot_mend_is_told_at_once(text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_camera(text)
    error: BaseException | None = caught.value
    while error is not None:
        assert not any(secret in f"{error} {error!r}" for secret in SECRETS)
        error = error.__cause__ or error.__context__
