from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny_model

from centermask_edge.engines import ir_cache, openvino
from centermask_edge.engines.openvino import OpenVinoEngine
from centermask_edge.resources import CACHE_VARIABLE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


def save(path: Path) -> None:
    path.write_text("<xml/>")
    path.with_suffix(".bin").write_bytes(b"1234")


def test_what_was_written_is_read(folder: Path) -> None:
    entry = ir_cache.entry(b"model", "1")
    assert ir_cache.read(entry) is None
    ir_cache.write(entry, "facts", save)
    cached = ir_cache.read(entry)
    assert cached is not None
    assert (cached.metadata, cached.model.read_text()) == ("facts", "<xml/>")
    assert [p.name for p in folder.iterdir()] == [entry.name]


def test_the_key_is_all_that_matters(folder: Path) -> None:
    keys = {ir_cache.entry(c, v) for c, v in [(b"a", "1"), (b"b", "1"), (b"a", "2")]}
    assert len(keys) == 3
    assert ir_cache.entry(b"a", "1") in keys


def test_an_incomplete_entry_is_not_read(folder: Path) -> None:
    entry = ir_cache.entry(b"model", "1")
    ir_cache.write(entry, "facts", save)
    (entry / "model.bin").write_bytes(b"12")
    assert ir_cache.read(entry) is None
    ir_cache.write(entry, "facts", save)
    assert ir_cache.read(entry) is not None


def test_a_failed_write_leaves_nothing(folder: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    entry = ir_cache.entry(b"model", "1")
    ir_cache.write(entry, "facts", fail)
    assert list(folder.iterdir()) == []


def test_only_the_latest_entries_are_kept(folder: Path) -> None:
    entries = [ir_cache.entry(bytes([n]), "1") for n in range(10)]
    for age, entry in enumerate(entries):
        ir_cache.write(entry, "facts", save)
        os.utime(entry, (1000 + age, 1000 + age))
    ir_cache.write(ir_cache.entry(b"last", "1"), "facts", save)
    left = {p.name for p in folder.iterdir()}
    assert len(left) == 8
    assert entries[0].name not in left and entries[-1].name in left


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    OpenVinoEngine(tiny_model.save(tmp_path / "tiny.onnx"))
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_damaged_entry_is_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model.save(tmp_path / "tiny.onnx")
    OpenVinoEngine(model)
    (xml,) = folder.glob("*/model.xml")
    xml.write_bytes(b"?" * xml.stat().st_size)
    OpenVinoEngine(model)
    # The bytes differ from the first time (OpenVINO numbers its layers anew), so what counts is
    # that the next start reads the entry instead of lowering the file again.
    monkeypatch.setattr(openvino, "_lower", lambda *_: pytest.fail("lowered again"))
    OpenVinoEngine(model)
