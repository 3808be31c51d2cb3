"""Sources of calibration pictures, and the set that is written of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_pictures import folder, noisy, save, scene

from centermask_edge.config import PreprocessConfig
from centermask_edge.errors import DatasetError, SourceError
from centermask_edge.frame import Frame
from centermask_edge.live.sources.pictures import read_picture
from centermask_edge.quantize import picture_sources
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.picture_files import FrameFiles, Purpose, drafting, write_set
from centermask_edge.quantize.picture_set import ModelRecord, PictureSet, load_set
from centermask_edge.quantize.picture_sources import (
    PictureSource,
    from_dataset,
    from_files,
    from_frames,
    is_dataset,
)
from centermask_edge.quantize.selection import select

PURPOSE = Purpose(ModelRecord(file="m.onnx", weights="0" * 64, graph="1" * 64), PreprocessConfig())


def frames(seeds: Sequence[int]) -> PictureSource:
    pictures = (Frame(scene(s), i / 10, time.monotonic(), "v", i) for i, s in enumerate(seeds))
    return from_frames(pictures, "video", "v.mp4")


def files(path: Path, seed: int = 0) -> PictureSource:
    paths = sorted(path.iterdir())
    return from_files(path, paths, "folder", read_picture, seed)


def write(out: Path, source: PictureSource, count: int = 8, **options: Any) -> PictureSet:
    settings = {"seed": 0, "purpose": PURPOSE, **options}
    with drafting(out) as draft:
        held = FrameFiles(draft)
        return write_set(out, select(source.offers, count, keeper=held), source, held, **settings)


def content(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_frames_are_kept_exactly_and_nothing_else_is(tmp_path: Path) -> None:
    out = tmp_path / "set"
    written = write(out, frames(range(50)))
    record = written.record
    assert len(record.pictures) == 8 and record.root == "pictures"
    for picture, loaded in zip(record.pictures, written.pictures(read_picture), strict=True):
        number = int(picture.origin.removeprefix("frame "))
        assert np.array_equal(loaded.read(), scene(number))
        data = (out / "pictures" / picture.file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == picture.sha256 == loaded.sha256
    wanted = {"manifest.json", *(f"pictures/{p.file}" for p in record.pictures)}
    assert set(content(out)) == wanted
    assert [p.name for p in out.iterdir() if p.name.startswith(".")] == []


def test_the_same_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "one", "two"):
        write(tmp_path / name, frames(range(50)))
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_another_set_in_the_same_folder_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    out = tmp_path / "set"
    write(out, frames(range(50)))
    (out / "pictures" / "mine.txt").write_text("not of the set")
    second = write(out, frames(range(100, 150)), 9)
    kept = {f"pictures/{p.file}" for p in second.record.pictures}
    assert set(content(out)) == {"manifest.json", "pictures/mine.txt", *kept}


def test_a_manifest_never_names_what_else_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "set"
    write(out, frames(range(50)))
    record = json.loads((out / "manifest.json").read_text())
    record["pictures"][0]["file"] = "../../mine.txt"
    (out / "manifest.json").write_text(json.dumps(record))
    (tmp_path / "mine.txt").write_text("not of the set")
    write(out, frames(range(100, 150)))
    assert (tmp_path / "mine.txt").exists()


def test_files_are_named_where_they_are(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", [scene(i) for i in range(10)])
    out = tmp_path / "sets" / "one"
    record = write(out, files(data)).record
    assert record.root == "../../data"
    assert set(content(out)) == {"manifest.json"}
    (tmp_path / "sets").rename(tmp_path / "moved")
    assert len(load_set(tmp_path / "moved" / "one").pictures(read_picture)) == 8


def test_files_are_copied_where_that_is_wanted(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", [scene(i) for i in range(10)])
    out = tmp_path / "set"
    record = write(out, files(data), copy=True).record
    originals = {p.read_bytes() for p in data.iterdir()}
    assert {(out / "pictures" / p.file).read_bytes() for p in record.pictures} <= originals
    for path in data.iterdir():
        path.unlink()
    assert len(load_set(out).pictures(read_picture)) == 8


def test_moved_pictures_are_found_in_the_folder_that_is_named(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", [scene(i) for i in range(10)])
    write(tmp_path / "set", files(data))
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(QuantizationError, match=r"cannot be read \(No such file.*--pictures"):
        load_set(tmp_path / "set").pictures(read_picture)
    found = load_set(tmp_path / "set" / "manifest.json", tmp_path / "elsewhere")
    assert len(found.pictures(read_picture)) == 8


def test_pictures_that_another_set_has_too_are_counted(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", [scene(i) for i in range(8)])
    written = write(tmp_path / "set", files(data))
    other = folder(tmp_path / "other", [scene(i) for i in (3, 5, 50)])
    assert written.shared_with(other.iterdir()) == 2


def test_a_changed_picture_is_refused_by_its_hash(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", [scene(i) for i in range(8)])
    written = write(tmp_path / "set", files(data))
    wanted = written.record.pictures[3]
    path = save(data / wanted.file, noisy(scene(3), 0))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(QuantizationError) as error:
        written.pictures(read_picture)
    text = str(error.value)
    assert f"{path} has changed" in text
    assert f"sha256 is {found[:16]}, wanted {wanted.sha256[:16]}" in text


def test_other_preprocessing_is_refused_by_field(tmp_path: Path) -> None:
    written = write(tmp_path / "set", frames(range(10)))
    written.check_preprocess(PreprocessConfig())
    with pytest.raises(QuantizationError, match=r"std is 1 1 1, wanted 255 255 255"):
        written.check_preprocess(PreprocessConfig(std=(255, 255, 255)))
    with pytest.raises(QuantizationError, match="channel_order is bgr, wanted rgb"):
        written.check_preprocess(PreprocessConfig(channel_order="rgb"))
    without = write(tmp_path / "other", frames(range(10)), purpose=None)
    without.check_preprocess(PreprocessConfig(channel_order="rgb"))


def test_a_failure_leaves_neither_folder_nor_files(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="too few"):
        write(tmp_path / "a" / "set", frames(range(5)))
    assert content(tmp_path) == {}
    assert not (tmp_path / "a" / "set").exists()


def test_a_failure_leaves_the_earlier_set_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "set"
    written = write(out, frames(range(50)))
    before = content(out)

    def full(path: Path, content: bytes) -> None:
        raise QuantizationError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("centermask_edge.quantize.picture_files.write_atomically", full)
    with pytest.raises(QuantizationError, match="No space"):
        write(out, frames(range(100, 150)))
    after = content(out)
    assert {name: after[name] for name in before} == before
    assert written.pictures(read_picture)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(QuantizationError, match=r"holds 'holiday.txt' and no calibration set"):
        write(tmp_path, frames(range(10)))
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(QuantizationError, match="not a calibration manifest"):
        write(tmp_path, frames(range(10)))
    assert len(content(tmp_path)) == 2
    with pytest.raises(QuantizationError, match="is a file; give --out a folder"):
        write(tmp_path / "holiday.txt", frames(range(10)))


def test_what_an_interrupted_run_left_is_no_obstacle(tmp_path: Path) -> None:
    save(tmp_path / "pictures" / "000001-aaaaaaaa.png", scene(1))
    (tmp_path / ".draft-x").mkdir()
    assert write(tmp_path, frames(range(10))).record.pictures


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a calibration manifest of this version"),
        ('{"images": []}', "not a calibration manifest of this version"),
        ("\x00\xff", "not a calibration manifest of this version"),
    ],
)
def test_a_damaged_manifest_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(QuantizationError, match=message):
        load_set(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(QuantizationError, match="not a text file"):
        load_set(tmp_path)


def test_a_missing_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="centermask-edge calibrate SOURCE --out"):
        load_set(tmp_path / "none")


def test_a_newer_manifest_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "set"
    write(out, frames(range(10)))
    record = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(QuantizationError, match=r"\(format: Input should be 1\)"):
        load_set(out)


def annotated(root: Path, count: int = 10) -> Path:
    images, annotations = [], []
    for i in range(count):
        save(root / "images" / f"{i}.png", scene(i))
        images.append({"id": i, "file_name": f"{i}.png", "width": 96, "height": 64})
        box = {"id": i, "image_id": i, "bbox": [0, 0, 40, 30], "category_id": 1 + i % 2}
        annotations.append(box)
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "traffic light"}]
    path = root / "set.json"
    everything = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(everything))
    return path


def test_a_data_set_brings_its_objects(tmp_path: Path) -> None:
    path = annotated(tmp_path)
    source = from_dataset(path, None, read_picture, 0)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    facts = select(source.offers, 8).tally.facts
    assert facts["class: cat"] == facts["class: traffic light"] == 5
    assert facts["object: large cat"] == 5  # sqrt(40 * 30 / (96 * 64)) = 0.44
    known = from_dataset(path, ("cat",), read_picture, 0)
    assert "class: traffic light" not in select(known.offers, 8).tally.facts


def test_a_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    path = annotated(tmp_path)
    broken = tmp_path / "images" / "4.png"
    broken.write_bytes(broken.read_bytes()[:150])
    with pytest.raises(SourceError, match=r"4\.png cannot be decoded"):
        select(from_dataset(path, None, read_picture, 0).offers, 8)
    with pytest.raises(SourceError, match=r"4\.png cannot be decoded"):
        select(files(tmp_path / "images").offers, 8)


def test_of_very_many_files_a_sample_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_sources, "LOOKED_AT", 9)
    data = folder(tmp_path, [scene(i) for i in range(20)])
    first, same, other = (files(data, seed) for seed in (0, 0, 1))
    assert (first.total, first.files) == (9, 20)
    seen, again, third = ([o.name for o in s.offers] for s in (first, same, other))
    assert seen == again != third and len(seen) == 9
    order = [p.name for p in sorted(data.iterdir())]
    assert seen == [name for name in order if name in seen]


def test_a_limit_ends_an_endless_source() -> None:
    def endless() -> Any:
        index = 0
        while True:
            yield Frame(scene(index), 0.0, 0.0, "cam", index)
            index += 1

    source = from_frames(endless(), "stream", "cam", limit=7)
    assert len(list(source.offers)) == source.total == 7


def test_only_a_json_file_is_a_data_set(tmp_path: Path) -> None:
    assert not is_dataset("https://cam/list.json") and not is_dataset(str(tmp_path))
    with pytest.raises(DatasetError, match="annotation file not found"):
        is_dataset(str(tmp_path / "none.json"))
