"""The report in a real Chromium: it runs, the slider follows mouse, finger and keys."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_browser
from judgements import judgement
from PIL import Image

from centermask_edge.live.outputs.draw import draw
from centermask_edge.quantize.report import write_report

EVIL = "<script>window.hacked=1</script><img src=x onerror=window.hacked=2>"
STAGE = "document.querySelector('#picture-1 .stage')"

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason="no Chromium on this machine: the report is not opened in a browser "
    "(Debian: apt-get install chromium)",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert BROWSER is not None
    with Browser(BROWSER, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    found = judgement(folder / "set", names=(EVIL, "dog"), preset=EVIL)
    write_report(folder / "report.html", found, draw)
    return (folder / "report.html").as_uri()


@pytest.fixture
def opened(browser: Browser, url: str) -> Browser:
    """The page with its first picture in view."""
    browser.open(url)
    browser.run(f"{STAGE}.scrollIntoView()")
    return browser


def stage(browser: Browser) -> tuple[float, float, float, float]:
    """Left, top, width and height of the first picture in the window."""
    script = f"(() => {{ const b = {STAGE}.getBoundingClientRect(); return "
    left, top, width, height = browser.run(script + "[b.left, b.top, b.width, b.height]; })()")
    return left, top, width, height


def divider(browser: Browser) -> float:
    """Where the line really is, in percent of the picture."""
    left, _, width, _ = stage(browser)
    script = f"(() => {{ const b = {STAGE}.querySelector('.divider').getBoundingClientRect(); "
    middle = browser.run(script + "return (b.left + b.right) / 2; })()")
    return float(100 * (middle - left) / width)


def at(browser: Browser, x: float, y: float = 50.0) -> tuple[float, float]:
    """Window pixels of a place in the picture, in percent of it."""
    left, top, width, height = stage(browser)
    return left + width * x / 100, top + height * y / 100


def test_the_page_stands_and_complains_of_nothing(opened: Browser) -> None:
    assert opened.run("document.querySelector('.badge').innerText") == "Budget held"
    assert opened.run("document.querySelectorAll('.stage').length") == 2
    assert opened.run(f"{STAGE}.querySelector('img').naturalWidth") == 320
    assert opened.run("performance.getEntriesByType('resource').length") == 0 or opened.run(
        "performance.getEntriesByType('resource').every((r) => r.name.startsWith('data:'))"
    )
    assert opened.errors == []


def test_no_string_of_the_data_runs(opened: Browser) -> None:
    assert opened.run("typeof window.hacked") == "undefined"
    assert opened.run("document.querySelector('.what li').innerText").count(EVIL) == 1
    assert opened.run("[...document.images].every((i) => i.src.startsWith('data:'))")


def test_the_mouse_drags_the_divider(opened: Browser) -> None:
    assert divider(opened) == pytest.approx(50, abs=0.5)
    opened.drag(at(opened, 50), at(opened, 20))
    assert divider(opened) == pytest.approx(20, abs=0.5)
    opened.drag(at(opened, 70), at(opened, 85))  # from anywhere, not from the line alone
    assert divider(opened) == pytest.approx(85, abs=0.5)
    assert opened.run(f"{STAGE}.querySelector('.divider').ariaValueNow") == "85"


def test_the_divider_stays_where_the_mouse_was_let_go(opened: Browser) -> None:
    opened.drag(at(opened, 50), at(opened, 30))
    x, y = at(opened, 90)
    opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert divider(opened) == pytest.approx(30, abs=0.5)


def test_it_cannot_leave_the_picture(opened: Browser) -> None:
    opened.drag(at(opened, 50), at(opened, 130))
    assert divider(opened) == pytest.approx(100, abs=0.5)


def test_left_of_the_divider_is_fp32(opened: Browser) -> None:
    """The person that INT8 lost is blue on one side only."""
    blue = {}
    for place in (0, 100):
        opened.run(f"document.querySelector('[data-all=\"{place}\"]').click()")
        picture = Image.open(io.BytesIO(opened.screenshot())).convert("RGB")
        x, y = at(opened, 100 * 80 / 320, 100 * 80 / 240)
        around = np.asarray(picture)[int(y) - 8 : int(y) + 8, int(x) - 8 : int(x) + 8]
        blue[place] = float(around[..., 2].mean())
    assert blue[100] > blue[0] + 50


def test_a_finger_moves_it_on_a_phone(browser: Browser, url: str) -> None:
    browser.open(url, 390, 800)
    browser.run(f"{STAGE}.scrollIntoView()")
    browser.swipe(at(browser, 50), at(browser, 75))
    assert divider(browser) == pytest.approx(75, abs=1)


@pytest.mark.parametrize(
    ("key", "place"),
    [("ArrowRight", 52), ("ArrowLeft", 48), ("PageUp", 60), ("Home", 0), ("End", 100)],
)
def test_keys_move_it(opened: Browser, key: str, place: int) -> None:
    opened.run(f"{STAGE}.querySelector('.divider').focus()")
    opened.press(key)
    assert divider(opened) == pytest.approx(place, abs=0.5)
    assert opened.run(f"{STAGE}.querySelector('.divider').ariaValueNow") == str(place)


def test_the_address_leads_to_a_picture_and_a_place(browser: Browser, url: str) -> None:
    browser.open(f"{url}#picture-2@25")
    assert browser.run("document.querySelector('#picture-2 .stage').style.cssText").startswith(
        "--at: 25%"
    )
    assert browser.run("scrollY") > 300
    assert divider(browser) == pytest.approx(50, abs=0.5)


def test_moving_it_makes_such_an_address(opened: Browser) -> None:
    opened.drag(at(opened, 50), at(opened, 20))
    assert opened.run("location.hash") == "#picture-1@20"


def test_a_line_of_the_list_shows_its_place(opened: Browser) -> None:
    spot = f"{STAGE}.querySelector('.spot')"
    assert not opened.run(f"{spot}.classList.contains('on')")
    opened.run("document.querySelector('#picture-1 [data-box]').click()")
    assert opened.run(f"{spot}.classList.contains('on')")
    # The lost instance of the drawn set: x 30 to 130 of 320, y 40 to 200 of 240.
    places = opened.run(f"(() => {{ const s = {spot}.style; return [s.left, s.top, s.width]; }})()")
    numbers = [float(p.rstrip("%")) for p in places]
    assert numbers == pytest.approx([100 * 30 / 320, 100 * 40 / 240, 100 * 100 / 320], abs=0.02)
    opened.run("document.querySelector('#picture-1 [data-box]').click()")
    assert not opened.run(f"{spot}.classList.contains('on')")


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_window_is_too_narrow(browser: Browser, url: str, width: int) -> None:
    browser.open(url, width, 800)
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_dark_is_dark(browser: Browser, url: str, tmp_path: Path) -> None:
    shades = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.call("Emulation.setEmulatedMedia", features=[feature])
        browser.open(url)
        shades.append(browser.run("getComputedStyle(document.body).backgroundColor"))
    browser.call("Emulation.setEmulatedMedia", features=[])
    assert shades == ["rgb(246, 247, 249)", "rgb(15, 18, 22)"]
