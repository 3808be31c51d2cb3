"""YOLO files: what they mean, and one line for every mistake; one way in for every format."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import write_scenes
from yolo_scenes import NAMES, write_yolo

from centermask_edge.data.augment import read_bgr
from centermask_edge.data.coco import Sample
from centermask_edge.data.dataset import (
    annotation_file,
    class_names,
    read_annotations,
    read_samples,
    splits,
    without,
)
from centermask_edge.data.pictures import picture_size, same_picture
from centermask_edge.errors import DatasetError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A set of one picture for training, 40 x 20, and one for validation; its yaml file."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.new("RGB", (40, 20)).save(tmp_path / "images" / split / "a.png")
        (tmp_path / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    path = tmp_path / "data.yaml"
    path.write_text("train: images/train\nval: images/val\nnames: [bolt, nut]\n")
    return path


def label(data: Path, text: str) -> None:
    (data.parent / "labels" / "train" / "a.txt").write_text(text)


def read(data: Path, classes: tuple[str, ...] = ("bolt", "nut")) -> Sample:
    (sample,) = read_samples(data, classes, "train")
    return sample


# --- lines ------------------------------------------------------------------------------------


def test_a_polygon_is_in_pixels(data: Path) -> None:
    label(data, "1 0.25 0.5 0.75 0.5 0.75 1 0.25 1\n")
    sample = read(data)
    assert (sample.width, sample.height) == (40, 20)
    assert sample.classes.tolist() == [1]
    assert sample.boxes.tolist() == [[10, 10, 30, 20]]
    assert sample.polygons is not None
    assert [p.tolist() for p in sample.polygons[0]] == [[10, 10, 30, 10, 30, 20, 10, 20]]


def test_a_box_is_by_its_centre(data: Path) -> None:
    label(data, "0 0.5 0.5 0.5 0.25\n")
    sample = read(data)
    assert sample.boxes.tolist() == [[10, 7.5, 30, 12.5]] and sample.polygons is None


def test_every_line_is_an_object(data: Path) -> None:
    """Two parts of one thing stay two: the format cannot say that they belong together."""
    label(data, "0 0 0 .25 0 .25 .5\n\n0 .5 .5 .75 .5 .75 1\n1 0.5 0.5 0.5 0.25\n")
    sample = read(data)
    assert sample.classes.tolist() == [0, 0, 1]
    assert sample.polygons is None  # one of them has only a box
    found = read_annotations(data, "train").content["annotations"]
    assert [len(a.get("segmentation", [])) for a in found] == [1, 1, 0]
    assert [a["where"] for a in found] == ["a.txt:1", "a.txt:3", "a.txt:4"]
    assert found[0]["area"] == pytest.approx(10 * 10 / 2)


def test_a_picture_without_a_label_file_has_no_objects(data: Path) -> None:
    Image.new("RGB", (8, 8)).save(data.parent / "images" / "train" / "b.png")
    samples = read_samples(data, ("bolt",), "train")
    assert [len(s.boxes) for s in samples] == [1, 0]


def test_classes_are_matched_by_name(data: Path) -> None:
    label(data, "0 .5 .5 .5 .5\n1 .25 .5 .5 .5\n")
    assert read(data, ("nut", "screw")).classes.tolist() == [0]
    with pytest.raises(DatasetError, match="found bolt, nut, wanted some of screw"):
        read(data, ("screw",))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2 .5 .5 .5 .5", "found class 2, wanted one of 0, 1"),
        ("bolt .5 .5 .5 .5", "found class bolt"),
        ("0.5 .5 .5 .5 .5", "found class 0.5"),
        ("0 .5 .5", "found 2 numbers after the class, wanted 4 .a box. or x y of at least 3"),
        ("0", "found 0 numbers"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "found 7 numbers"),
        ("0 320 .5 .5 .5", "found the coordinate 320, wanted parts of the picture from 0 to 1"),
        ("0 nan .5 .5 .5", "found the coordinate nan"),
        ("0 .5 .5 .5 wide", "found the coordinate wide"),
        ("0 -.2 .5 .5 .5", "found the coordinate -.2"),
    ],
)
def test_a_bad_line_is_named(text: str, found: str, data: Path) -> None:
    label(data, f"1 .5 .5 .5 .5\n{text}\n")
    with pytest.raises(DatasetError, match=rf"a\.txt:2: {found}") as caught:
        read(data)
    assert "\n" not in str(caught.value)


def test_of_many_bad_lines_the_first_are_told_and_where_the_others_are(data: Path) -> None:
    label(data, "9 .5 .5 .5 .5\n" * 5)
    with pytest.raises(DatasetError, match=r"a\.txt:3: .*; and 2 more; centermask-edge data"):
        read(data)


def test_bad_lines_are_left_out_where_someone_listens(data: Path) -> None:
    label(data, "1 .5 .5 .5 .5\n9 .5 .5 .5 .5\n")
    told: list[str] = []
    content = read_annotations(data, "train", told.append).content
    assert len(content["annotations"]) == 1 and len(told) == 1 and "a.txt:2" in told[0]


def test_labels_that_are_no_text_are_named(data: Path) -> None:
    (data.parent / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"a\.txt cannot be read"):
        read(data)


def test_a_picture_that_is_none_is_named(data: Path) -> None:
    (data.parent / "images" / "train" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"a\.png cannot be read"):
        read(data)


# --- the yaml file ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "cannot be read as YAML"),
        ("- a\n- b\n", "needs the keys train, val and names"),
        ("train: images/train\n", "names no classes"),
        ("train: images/train\nnames: 3\n", "names no classes"),
        ("train: images/train\nnames: {a: b}\n", "names no classes"),
        ("train: images/train\nnames: [a, a]\n", "gives the name 'a' to several classes"),
        ("val: images/val\nnames: [a]\n", "has no 'train': found val; add a line such as train:"),
        ("train: pictures\nnames: [a]\n", "names pictures, which is not there; looked for"),
        ("train: labels\nnames: [a]\n", "no picture in"),
    ],
)
def test_a_wrong_yaml_file_is_one_line(text: str, message: str, data: Path) -> None:
    data.write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        read(data)
    assert str(data) in str(caught.value)


def test_a_missing_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="annotation file not found"):
        read_samples(tmp_path / "none.yaml", ("bolt",), "train")


def test_labels_that_lie_elsewhere_are_missed(data: Path) -> None:
    shutil.rmtree(data.parent / "labels")
    with pytest.raises(DatasetError, match="none of the 1 pictures of 'train' has a label file"):
        read(data)


@pytest.mark.parametrize(
    "head",
    [
        "train: ../images/train",  # as one exporter writes it
        "path: /nowhere/on/this/machine\ntrain: images/train",
        "train: [images/train]",
        "train: list.txt",
        "path: images\ntrain: train",
    ],
)
def test_places_are_found_as_tools_write_them(head: str, data: Path) -> None:
    (data.parent / "list.txt").write_text("images/train/a.png\n")
    data.write_text(f"{head}\nnames:\n  0: bolt\n  1: nut\n")
    assert len(read(data).boxes) == 1


# --- one way in -------------------------------------------------------------------------------


def test_a_folder_stands_for_its_annotation_file(data: Path, tmp_path: Path) -> None:
    assert annotation_file(data.parent, "val") == data
    coco = write_scenes(tmp_path / "coco", count=1)
    assert annotation_file(coco.parent, "val") == coco
    for name in ("train.json", "val.json"):
        shutil.copy(coco, coco.parent / name)
    assert annotation_file(coco.parent, "val").name == "val.json"
    assert splits(coco.parent) == ("train", "val")
    (coco.parent / "val.json").unlink()
    with pytest.raises(DatasetError, match=r"found scenes\.json, train\.json, wanted one"):
        annotation_file(coco.parent, "val")
    with pytest.raises(DatasetError, match="found neither, wanted one"):
        annotation_file(coco.parent / "images", "val")


def test_splits_and_names_of_each_format(data: Path, tmp_path: Path) -> None:
    assert splits(data) == ("train", "val") and class_names(data, "train") == ("bolt", "nut")
    coco = write_scenes(tmp_path / "coco", count=1)
    assert splits(coco) == ("train",) and class_names(coco, "train") == ("person",)


def test_a_drawn_set_is_read_as_drawn(tmp_path: Path) -> None:
    samples = read_samples(write_yolo(tmp_path), NAMES, "val")
    assert [s.path.name for s in samples] == ["000.png", "001.png"]
    for sample in samples:
        image = read_bgr(sample)
        assert sample.polygons is not None and sample.classes.tolist() == [0, 1]
        for box, color in zip(sample.boxes, ((60, 240, 250), (250, 220, 60)), strict=True):
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            assert image[y, x].tolist() == list(color)


# --- pictures ---------------------------------------------------------------------------------


def test_a_picture_on_its_side_is_read_as_it_is_shown(data: Path) -> None:
    """Labelling tools obey the EXIF orientation, and so does what decodes at run time."""
    path = data.parent / "images" / "train" / "a.jpg"
    (data.parent / "images" / "train" / "a.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = 255  # stored on the left, shown on top
    Image.fromarray(pixels).save(path, exif=exif)
    assert picture_size(path) == (40, 20)
    sample = read(data)
    assert (sample.width, sample.height) == (20, 40)
    image = read_bgr(sample)
    assert image.shape == (40, 20, 3) and image[5].mean() > 240 > 20 > image[35].mean()


def test_a_held_out_picture_is_known_by_what_it_shows(tmp_path: Path) -> None:
    """Of one name: another picture stays, the same one in another size and format does not."""
    rng = np.random.default_rng(0)
    folders = [tmp_path / name for name in ("train", "val", "small")]
    for folder in folders:
        folder.mkdir()
    first, other = (
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((180, 120))
        for _ in range(2)
    )
    first.save(folders[0] / "a.jpg")
    other.save(folders[1] / "a.jpg")
    first.resize((90, 60)).save(folders[2] / "a.jpg", quality=60)
    samples = [_sample(folder / "a.jpg") for folder in folders]
    assert without(samples[:1], samples[1:2]) == samples[:1]
    assert without(samples[:1], samples[2:]) == []
    assert same_picture(samples[0].path, samples[0].path)


def _sample(path: Path) -> Sample:
    empty = np.zeros((0, 4))
    return Sample(1, path, 9, 6, empty, np.zeros(0, np.int64), (), empty)
