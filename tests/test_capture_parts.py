"""The parts of capture that have neither threads nor a clock of their own, and the slot."""

from __future__ import annotations

import random
import threading
from urllib.parse import quote

import pytest
from capture_rig import picture
from hypothesis import given
from hypothesis import strategies as st

from centermask_edge.live.capture.faults import Secrets
from centermask_edge.live.capture.latest import Latest
from centermask_edge.live.capture.options import CaptureOptions
from centermask_edge.live.capture.pace import Pace
from centermask_edge.live.capture.progress import Phase, Progress, Trouble
from centermask_edge.live.capture.retry import Retry
from centermask_edge.live.health import Fault, State

OPTIONS = CaptureOptions()


def test_the_slot_keeps_the_newest_and_counts_the_rest() -> None:
    slot = Latest()
    assert slot.empty and slot.take() is None
    for value in range(3):
        slot.put(picture(value))
    frame = slot.take()
    assert frame is not None and frame.index == 2
    assert slot.dropped == 2 and slot.take() is None
    slot.put(picture(3))
    frame = slot.take()
    assert frame is not None and frame.index == 3 and slot.dropped == 2 and slot.empty


def test_one_can_wait_until_the_slot_is_empty() -> None:
    slot = Latest()
    assert slot.wait_empty(0)
    slot.put(picture())
    assert not slot.wait_empty(0.01)
    threading.Timer(0.02, slot.take).start()
    assert slot.wait_empty(2)


class _Even(random.Random):
    """Draws the upper bound, so that bounds can be read."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_waits_double_up_to_the_long_bound_for_a_camera_never_seen() -> None:
    retry = Retry(OPTIONS, _Even())
    waits = [retry.wait_s(Fault.REFUSED, 0.0) for _ in range(60)]
    assert waits[:8] == [0.25, 0.5, 1, 2, 4, 8, 16, 30]
    assert set(waits[8:]) == {30}


def test_waits_stay_short_while_a_camera_was_seen_not_long_ago() -> None:
    retry = Retry(OPTIONS, _Even())
    retry.seen(100.0, 60.0)
    assert max(retry.wait_s(Fault.REFUSED, 100.0 + n) for n in range(300)) == 1
    assert retry.wait_s(Fault.REFUSED, 100.0 + OPTIONS.recent_s + 1) == 30


def test_a_connection_that_does_not_hold_does_not_end_the_series() -> None:
    retry = Retry(OPTIONS, _Even())
    retry.wait_s(Fault.RESET, 0.0)
    retry.seen(1.0, 0.1)
    assert retry.wait_s(Fault.RESET, 1.0) == 0.5
    retry.seen(9.0, 6.0)
    assert retry.wait_s(Fault.RESET, 9.0) == 0.25


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_waits_are_drawn_from_zero_to_the_bound(seed: int, count: int) -> None:
    waits = [0.0]
    retry = Retry(OPTIONS, random.Random(seed))
    for n in range(count):
        waits.append(retry.wait_s(Fault.RESET, 0.0))
        assert 0 <= waits[-1] <= min(30, 0.25 * 2**n)


def test_jitter_spreads_cameras_over_the_whole_wait() -> None:
    waits = [Retry(OPTIONS, random.Random(n)).wait_s(Fault.RESET, 0.0) for n in range(400)]
    assert min(waits) < 0.02 and max(waits) > 0.23


def test_a_refused_password_is_not_tried_often() -> None:
    """Drawn at their shortest, the waits still leave a camera alone that locks after a few."""

    class Short(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return a

    retry = Retry(OPTIONS, Short())
    retry.seen(0.0, 60.0)
    waits = [retry.wait_s(Fault.AUTH, 0.0) for _ in range(20)]
    assert waits[:4] == [30, 60, 120, 150] and min(waits) == 30 and max(waits) == 150


def test_patience_is_learnt_from_the_last_connection() -> None:
    retry = Retry(OPTIONS, _Even())
    assert retry.patience_s(0.0) == OPTIONS.open_s
    retry.opened(0.3)
    retry.seen(0.0, 10.0)
    assert retry.patience_s(1.0) == OPTIONS.frozen_s
    retry.opened(1.5)
    assert retry.patience_s(1.0) == 3.0
    for _ in range(3):
        retry.wait_s(Fault.TIMEOUT, 1.0)
    assert retry.patience_s(1.0) == OPTIONS.open_s, "now and then with all patience"
    assert retry.patience_s(1000.0) == OPTIONS.open_s


def _progress(*, live: bool = True) -> Progress:
    return Progress("gate", OPTIONS, Retry(OPTIONS, _Even()), live=live)


def _live(progress: Progress, now: float = 0.0) -> None:
    progress.attempt(now)
    progress.opened(now + 0.5)
    assert progress.frame(now + 1)
    assert not progress.frame(now + 2)


def test_a_camera_that_gives_no_frame_is_frozen_within_two_seconds() -> None:
    progress = _progress()
    _live(progress)
    assert progress.late(3.7, None) is None
    again = progress.look_again_s(3.7, None)
    assert again is not None and again == pytest.approx(0.1)
    trouble = progress.late(3.7 + again + 1e-9, None)
    assert trouble is not None and trouble.fault is Fault.FROZEN
    progress.failed(trouble, 3.8)
    health = progress.health(3.8, 0)
    assert (health.state, health.fault) == (State.FROZEN, Fault.FROZEN)
    assert health.message == "no frame for 1.8 s"


def test_a_frozen_camera_stays_so_until_something_else_is_known() -> None:
    progress = _progress()
    _live(progress)
    progress.failed(Trouble(Fault.FROZEN, "no frame"), 4.0)
    progress.attempt(4.1)
    assert progress.health(4.1, 0).state is State.FROZEN
    progress.failed(Trouble(Fault.REFUSED, "closed"), 4.2)
    assert progress.health(4.2, 0).state is State.WAITING
    progress.attempt(5.0)
    assert progress.health(5.0, 0).state is State.CONNECTING
    progress.opened(5.1)
    progress.frame(5.2)
    health = progress.health(5.2, 7)
    assert (health.state, health.reconnects, health.dropped) == (State.LIVE, 1, 7)
    assert health.fault is Fault.REFUSED, "the last fault is kept"


def test_data_without_a_picture_is_told_from_silence() -> None:
    progress = _progress()
    progress.attempt(0.0)
    progress.opened(1.0)
    silent = progress.late(2.9, 1.0)
    assert silent is not None and silent.fault is Fault.FROZEN
    assert progress.late(10.9, 10.8) is None
    useless = progress.late(11.1, 11.0)
    assert useless is not None and useless.fault is Fault.CODEC
    blind = progress.late(11.1, None)
    assert blind is not None and blind.fault is Fault.FROZEN


def test_damaged_pictures_do_not_keep_a_camera_alive() -> None:
    progress = _progress()
    _live(progress)
    trouble = progress.late(3.9, 3.9)
    assert trouble is not None and "though data comes" in trouble.message


def test_an_answer_is_waited_for_and_no_longer() -> None:
    progress = _progress()
    assert progress.attempt(0.0) == OPTIONS.open_s
    assert progress.late(5.2, None) is None
    trouble = progress.late(5.4, None)
    assert trouble is not None and trouble.fault is Fault.TIMEOUT


def test_a_file_may_take_its_time() -> None:
    progress = _progress(live=False)
    _live(progress)
    assert progress.late(1e6, None) is None and progress.look_again_s(2.0, None) is None


def test_the_end_of_a_file_is_no_fault() -> None:
    progress = _progress(live=False)
    _live(progress)
    progress.end()
    assert progress.over and progress.phase is Phase.OVER
    assert progress.health(2.0, 0).fault is None


def test_the_rate_is_that_of_the_last_seconds() -> None:
    progress = _progress()
    progress.attempt(0.0)
    progress.opened(0.0)
    for index in range(201):
        progress.frame(index / 20)
    assert progress.health(10.0, 0).rate_hz == pytest.approx(20, rel=0.02)
    assert 5 < progress.health(12.5, 0).rate_hz < 15
    assert progress.health(16.0, 0).rate_hz == 0
    for index in range(4):
        progress.frame(20 + index / 1000)
    assert progress.health(20.004, 0).rate_hz < 10, "a burst is no rate"


def test_a_file_keeps_its_time_and_a_damaged_stamp_does_not_stop_it() -> None:
    now = [50.0]
    pace = Pace(lambda: now[0])

    def wait_s(pts_s: float) -> float:
        return pace.wait_s(pace.stamp_s(pts_s))

    assert wait_s(30.0) == 0, "the first one is due at once, whatever its stamp"
    assert wait_s(30.5) == pytest.approx(0.5)
    now[0] = 52.0
    assert wait_s(31.0) == 0, "late ones are due at once"
    assert wait_s(99_999.0) == 0
    assert wait_s(99_999.5) == pytest.approx(0.5)
    pace.again()
    assert wait_s(30.0) == pytest.approx(1.0)
    assert wait_s(30.5) == pytest.approx(1.5)


PASSWORD = "p@ss w/rd?#1"


@pytest.mark.parametrize(
    "address",
    [
        f"rtsp://joe42:{quote(PASSWORD, safe='')}@10.0.0.7:554/live",
        f"rtsp://joe42:{PASSWORD}@10.0.0.7/live",
        f"http://10.0.0.7/live?usr=joe42&pwd={quote(PASSWORD, safe='')}&channel=1",
        f'gst: rtspsrc location=rtsp://10.0.0.7/live user-id=joe42 user-pw="{PASSWORD}" ! parsebin',
    ],
)
def test_no_text_about_a_camera_holds_its_credentials(address: str) -> None:
    secrets = Secrets.of(address)
    for text in (
        address,
        f"[Errno 5] Input/output error: '{address}'",
        f"401 for joe42 with\n{PASSWORD}",
        f"bad: {quote(PASSWORD, safe='')}",
    ):
        shown = secrets.scrub(text)
        assert "\n" not in shown
        for secret in ("joe42", PASSWORD, quote(PASSWORD, safe="")):
            assert secret not in shown, shown


def test_other_addresses_in_a_text_are_cleaned_and_the_rest_is_kept() -> None:
    text = "moved from rtsp://a:b@h/1 to rtsp://c:d@h/2 today"
    assert Secrets().scrub(text) == "moved from rtsp://***@h/1 to rtsp://***@h/2 today"
