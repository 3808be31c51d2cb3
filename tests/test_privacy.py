"""People are hidden: not one pixel of a mask is left, nor one that could be told from another."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from track_scenes import DISC, FULL, LOWER, UPPER, box, scene

from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.outputs.overlay import DrawnOnce, Image, Overlay
from centermask_edge.live.outputs.privacy import Privacy
from centermask_edge.live.outputs.privacy_config import PrivacyRules, Style
from centermask_edge.live.result import Result

STYLES = list(Style)


def noise(height: int = 240, width: int = 320, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def result(
    found: Instances, image: Image, at_s: float = 0.0, ids: list[int] | None = None
) -> Result:
    frame = Frame(image, at_s, at_s, "gate", 0)
    return Result(frame, found, np.array(ids or [0] * len(found), np.int64))


def covered(found: Instances) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    full = np.zeros(found.source_size, np.bool_)
    for mask, x, y in found.crops():
        full[y : y + mask.shape[0], x : x + mask.shape[1]] |= mask
    return full


BOXES = st.lists(
    st.tuples(st.floats(0, 320), st.floats(0, 240), st.floats(4, 200), st.floats(4, 200)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(BOXES, st.sampled_from(STYLES), st.sampled_from([DISC, FULL, LOWER, UPPER]))
def test_no_pixel_of_a_mask_survives(
    boxes: list[tuple[float, ...]], style: Style, mask: Image
) -> None:
    found = scene([box(*b) for b in boxes])
    found = replace(found, masks=np.repeat(mask[None].astype(np.float32), len(found), 0))
    image = noise()
    shown = Privacy(PrivacyRules(style))(result(found, image))
    same = (shown == image).all(2)
    inside = covered(found)
    # Three bytes of noise may be their own mean by chance: once in 10^5 or so.
    assert (same & inside).sum() <= 1 + inside.sum() // 10_000
    far = np.ones(image.shape[:2], np.bool_)
    for x0, y0, x1, y1 in found.boxes:
        margin = 1 + max(3.5, 0.06 * max(x1 - x0 + 2, y1 - y0 + 2))
        rows, columns = (
            slice(int(max(y0 - margin, 0)), int(y1 + margin) + 1),
            slice(int(max(x0 - margin, 0)), int(x1 + margin) + 1),
        )
        far[rows, columns] = False
    assert same[far].all()
    np.testing.assert_array_equal(image, noise())


@pytest.mark.parametrize("style", STYLES)
def test_what_is_shown_depends_on_means_alone(style: Style) -> None:
    """Two pictures with equal means of cells: nobody can tell which one was hidden."""
    found = scene([[100, 40, 196, 232]], [FULL])
    base = noise()
    other = base.copy()
    # The cells of this box are 20 pixels, its region begins at 88, 28: pixels trade places.
    rules = PrivacyRules(style, margin=0.0625)
    cell_rows, cell_columns = np.meshgrid(range(28, 240, 21), range(88, 208, 20), indexing="ij")
    for y, x in zip(cell_rows.ravel()[:40], cell_columns.ravel()[:40], strict=True):
        block = other[y + 3 : y + 15, x + 3 : x + 15]
        block[:] = block[::-1, ::-1].copy()
    shown = [Privacy(rules)(result(found, image))[40:220, 100:196] for image in (base, other)]
    assert (base != other)[40:220, 100:196].mean() > 0.2
    difference = np.abs(shown[0].astype(int) - shown[1]).max()
    assert difference <= 12  # of 255: the cells are not quite those


def test_edges_do_not_leak() -> None:
    """A bright person whose mask is three pixels short all around leaves no bright pixel."""
    image = np.full((240, 320, 3), 20, np.uint8)
    image[57:183, 117:203] = 250
    found = scene([[120, 60, 200, 180]], [FULL])
    shown = Privacy(PrivacyRules(Style.FILL))(result(found, image))
    assert shown.max() == 128


def test_who_vanishes_stays_hidden_for_a_moment() -> None:
    image, person = noise(), scene([box(160, 120)])
    nobody = scene([])
    for ids in ([7], [0]):
        privacy = Privacy(PrivacyRules(hold_s=1.0))
        privacy(result(person, image, 0.0, ids))
        x0, y0, x1, y1 = person.boxes[0].astype(int)
        for at_s, hidden in ((0.5, True), (1.0, True), (1.1, False)):
            shown = privacy(result(nobody, image, at_s))
            assert (shown == image)[y0:y1, x0:x1].all() != hidden
    # Without the moment, they show at once.
    open_ = Privacy(PrivacyRules(hold_s=0.0))
    open_(result(person, image, 0.0, [7]))
    np.testing.assert_array_equal(open_(result(nobody, image, 0.1)), image)


def test_who_walks_on_leaves_no_veil_behind() -> None:
    image = noise()
    privacy = Privacy()
    for k in range(8):
        found = scene([box(60 + 25 * k, 120)])
        shown = privacy(result(found, image, k / 10, [1]))
    assert (shown == image)[:, :200].all()
    privacy(result(scene([box(60, 120)]), image, 0.9, [1]))
    other_camera = result(scene([]), image, 1.0)
    other_camera = replace(other_camera, frame=replace(other_camera.frame, camera="yard"))
    np.testing.assert_array_equal(privacy(other_camera), image)


def test_without_a_mask_the_whole_box_is_hidden() -> None:
    image = noise()
    found = scene([box(160, 120)], [0 * FULL])
    shown = Privacy()(result(found, image))
    x0, y0, x1, y1 = found.boxes[0].astype(int)
    assert (shown == image).all(2)[y0:y1, x0:x1].sum() <= 1


def test_the_overlay_is_drawn_over_it() -> None:
    image = noise()
    one = result(scene([box(160, 120)], [FULL]), image, ids=[3])
    plain, drawn = Privacy()(one), DrawnOnce(Privacy(draw=Overlay()))(one)
    assert (plain != drawn).any()
    inside = covered(one.instances)
    assert (drawn == image).all(2)[inside].sum() <= 1
    assert (drawn[0, 40:] == image[0, 40:]).sum() < drawn[0, 40:].size  # camera and age are there


def test_fifty_people_take_little_time() -> None:
    image = noise(720, 1280)
    grid = [box(60 + 125 * (k % 10), 70 + 140 * (k // 10), 60, 130) for k in range(50)]
    found = scene(grid, size=(720, 1280))
    found.crops()
    privacy, took = Privacy(), []
    for k in range(9):
        one = result(found, image, k / 10)
        start = time.thread_time()
        privacy(one)
        took.append(time.thread_time() - start)
    print(f"{1e3 * np.median(took):.1f} ms")
    assert np.median(took) < 0.05
