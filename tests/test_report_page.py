"""The report as text: what it says, that it needs nothing else, and that it trusts no string."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from judgements import SIZE, THRESHOLD, judgement
from PIL import Image

from centermask_edge.errors import ModelFileError
from centermask_edge.live.outputs.draw import draw
from centermask_edge.quantize.compare import Change, Kind
from centermask_edge.quantize.judge import JudgedPicture, Judgement
from centermask_edge.quantize.report import write_report
from centermask_edge.quantize.report.pictures import colors, make_slides, scaled
from centermask_edge.quantize.report.words import points, sentence
from centermask_edge.quantize.verdict import Numbers

EVIL = "<script>window.hacked=1</script>'\"{{facts}}&"


class Text(HTMLParser):
    """The words of a page outside of scripts and styles, and its open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.words.append(data)

    def close(self) -> None:
        super().close()
        assert self._open == []


def parsed(page: str) -> Text:
    text = Text()
    text.feed(page)
    text.close()
    return text


def written(folder: Path, found: Judgement) -> str:
    path = folder / "report.html"
    size = write_report(path, found, draw)
    assert size == path.stat().st_size
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    return written(folder, judgement(folder / "set"))


def test_the_outcome_is_said_in_plain_words(page: str, tmp_path: Path) -> None:
    words = " ".join(parsed(page).words)
    assert "Budget held" in words and "INT8 loses 0.10 mask AP against FP32" in words
    found = judgement(tmp_path / "set", lost=2.5)
    words = " ".join(parsed(written(tmp_path, found)).words)
    assert "Budget not held" in words and "the budget of 0.30 is not held" in words


def test_figures_of_all_kinds_are_there(page: str) -> None:
    words = parsed(page).words
    for expected in ("30.00", "29.90", "+0.10", "2.50x", "75.0 %", "7.1 MB", "FP32: 13.5 MB"):
        assert expected in words, expected
    assert "12.5 ms to 5.0 ms, whole network" in words
    assert "-" in words  # the size that does not occur
    assert "2 layers, 1 not in 8 bits" in words and "dense/b/Conv" in words
    assert "ab" * 32 in words


def test_classes_are_in_order_of_their_loss(tmp_path: Path) -> None:
    found = judgement(tmp_path / "set")
    fp32, fp16, int8 = found.verdict.accuracy
    cat, dog = int8.classes
    worse = int8.model_copy(update={"classes": (cat, dog.model_copy(update={"mask": 3.0}))})
    verdict = found.verdict.model_copy(update={"accuracy": (fp32, fp16, worse)})
    words = parsed(written(tmp_path, replace(found, verdict=verdict))).words
    table = words[words.index("By class, the greatest loss first") :]
    assert table.index("dog") < table.index("person") and "+26.00" in table


def test_under_each_picture_stands_what_changed(page: str) -> None:
    words = parsed(page).words
    article = words[words.index("set_000.png") : words.index("set_001.png")]
    assert [w for w in article if w in ("lost", "new", "changed")] == ["lost", "new", "changed"]
    text = " ".join(article)
    assert "FP32 scores it 0.90, INT8 has nothing there; an annotated object" in text
    assert "INT8 scores it 0.50, FP32 has nothing there; nothing is annotated there" in text
    assert re.search(r"masks overlap by 9\d %, score 0.70 to 0.60", text)


def test_worse_and_better_are_told_by_the_annotations(page: str) -> None:
    """The lost person was annotated; where the new one is, nothing is."""
    assert page.count("class='tag worse'>lost<") == 2 and page.count("'tag worse'>new<") == 2
    assert page.count("class='tag '>changed<") == 2 and "tag better'>" not in page


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    without = re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", page)
    assert "://" not in without and "@import" not in without and "url(" not in without
    assert not re.search(r"\b(?:src|srcset)=(?!'')", without)
    assert all(h.startswith("#") for h in re.findall(r"href='([^']*)'", without))
    assert {"link", "iframe", "object"}.isdisjoint(parsed(page).tags)
    assert "default-src 'none'" in page  # and the browser holds it to that


def test_pictures_are_jpeg_of_a_sensible_size(page: str) -> None:
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    assert len(found) == 4
    for data in found:
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (picture.format, picture.size) == ("JPEG", SIZE)
    assert len(set(found)) == 4


def test_no_string_is_trusted(tmp_path: Path) -> None:
    found = judgement(tmp_path / "set", names=(EVIL, "dog"), preset=EVIL)
    annotations = found.verdict.annotations.model_copy(update={"name": EVIL})
    update = {"annotations": annotations, "notes": (EVIL,), "processor": EVIL}
    found = replace(found, verdict=found.verdict.model_copy(update=update))
    evil = tmp_path / "set" / "images" / "'><script>hacked=1<!--.png"
    evil.with_name("x").parent.joinpath("set_000.png").rename(tmp_path / "kept.png")
    text = written_named(tmp_path, found, "'><script>hacked=1<")
    page = parsed(text)
    assert page.tags.count("script") == 1  # ours
    joined = "".join(page.words)
    assert joined.count(EVIL) >= 6 and "'><script>hacked=1<" in joined
    assert "<script>window" not in text


def written_named(folder: Path, found: Judgement, name: str) -> str:
    """The report with a picture of another file name."""
    picture = found.worst[1]
    target = picture.sample.path.with_name(name)
    picture.sample.path.rename(target)
    sample = replace(picture.sample, path=target)
    return written(folder, replace(found, worst=(replace(picture, sample=sample),)))


def test_too_many_pictures_are_made_smaller_then_fewer(tmp_path: Path) -> None:
    worst = judgement(tmp_path / "set").worst
    full = make_slides(worst, draw, 10_000_000)
    assert [s.width for s in full] == [SIZE[0]] * 2
    total = sum(len(s.before) + len(s.after) for s in full)
    smaller = make_slides(worst, draw, total - 1)
    assert len(smaller) == 2
    assert sum(len(s.before) + len(s.after) for s in smaller) < total
    one = len(smaller[0].before) + len(smaller[0].after)
    assert [s.name for s in make_slides(worst, draw, one // 2)] == []


def test_a_large_picture_is_drawn_at_the_size_it_is_shown(tmp_path: Path) -> None:
    worst = judgement(tmp_path / "set").worst[0]
    big = Image.open(worst.sample.path).resize((1600, 1200))
    big.save(worst.sample.path)
    before = scaled(worst.change.before, (1200, 1600))
    change = replace(worst.change, before=before, after=scaled(worst.change.after, (1200, 1600)))
    sample = replace(worst.sample, width=1600, height=1200)
    (slide,) = make_slides([JudgedPicture(sample, change)], draw, 10_000_000)
    assert (slide.width, slide.height) == (800, 600)


def test_scaled_instances_keep_their_place() -> None:
    from judgements import instances

    one = scaled(instances(("a",), [([30, 40, 130, 200], 0.9, 0)]), (120, 320))
    assert one.source_size == (120, 320)
    np.testing.assert_allclose(one.boxes, [[30, 20, 130, 100]])


def test_one_object_keeps_its_colour(tmp_path: Path) -> None:
    change = judgement(tmp_path / "set").worst[0].change
    assert change.partners == (1, -1)
    assert colors(change) == ([0, 1], [1, 2])


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    found = judgement(tmp_path / "set")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFileError, match="cannot write"):
        write_report(tmp_path / "file" / "report.html", found, draw)
    assert (tmp_path / "file").read_text() == ""


def test_figures_without_a_judgement_have_a_report(tmp_path: Path) -> None:
    found = judgement(tmp_path / "set")
    update = {
        "accuracy": found.verdict.accuracy[:1],
        "models": found.verdict.models[:1],
        "losses": (),
        "judged": None,
        "budget": None,
        "coverage": None,
        "ran": None,
        "speed": None,
    }
    plain = Judgement(found.verdict.model_copy(update=update), (), THRESHOLD)
    words = " ".join(parsed(written(tmp_path, plain)).words)
    assert "No budget to hold" in words and "one file was measured" in words
    assert "Where" in words and "differs most" not in words


def test_sentences_say_what_a_reader_needs() -> None:
    box = np.zeros(4, np.float32)

    def text(kind: Kind, before: float | None, after: float | None, there: bool | None) -> str:
        overlap = 0.715 if kind is Kind.CHANGED else None
        return sentence(Change(kind, "x", before, after, overlap, there, box, 1.0), "INT8", 0.4)

    assert text(Kind.LOST, 0.6, 0.3, True) == (
        "FP32 scores it 0.60, INT8 0.30, below 0.40; an annotated object"
    )
    assert text(Kind.NEW, 0.35, 0.41, None) == "INT8 scores it 0.41, FP32 0.35, below 0.40"
    assert text(Kind.CHANGED, 0.6, 0.601, None) == "masks overlap by 72 %, score stays 0.60"


def test_a_loss_of_nothing_has_no_sign() -> None:
    assert points(-0.001, signed=True) == "0.00"


def test_the_template_is_in_the_package() -> None:
    from importlib.resources import files

    text = (files("centermask_edge.quantize.report") / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and Numbers.INT8.value not in text
