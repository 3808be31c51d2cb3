"""Fill the generated sections of README.md and docs/ from the measurements in docs/results/.

    python docs/generate.py                         # fill
    python docs/generate.py --check                 # exit code 1 if a page is not up to date
    python docs/generate.py --picture out/people.mp4   # also make the picture from that video

A section lies between ``<!-- generated: NAME -->`` and ``<!-- end -->``. Each is made from a JSON
file that a command wrote, by a function in ``sections_*.py``. Where the file does not exist, the
section says so; nobody types a figure.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import sections_chaos
import sections_data
import sections_family
import sections_int8
import sections_kernels
import sections_live
import sections_model
import sections_training
from sections_model import PICTURE
from tables import ROOT

SECTION = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
SECTIONS: dict[str, Callable[[], str]] = {
    **sections_model.SECTIONS,
    **sections_data.SECTIONS,
    **sections_family.SECTIONS,
    **sections_kernels.SECTIONS,
    **sections_int8.SECTIONS,
    **sections_live.SECTIONS,
    **sections_chaos.SECTIONS,
    **sections_training.SECTIONS,
}


def fill(text: str) -> str:
    """A page with every generated section made anew.

    Raises:
        KeyError: the page names a section that nothing makes.
    """
    return SECTION.sub(lambda m: f"{m[1]}{SECTIONS[m[2]]()}\n{m[3]}", text)


def pages() -> list[Path]:
    """README.md, the model card and everything in docs/."""
    card = ROOT / "centermask_edge" / "_models" / "person.md"
    return [ROOT / "README.md", card, *sorted((ROOT / "docs").glob("*.md"))]


def make_picture(video: Path, moments: tuple[float, ...] = (0.14, 0.66), width: int = 512) -> None:
    """Write frames of an annotated video, side by side, as the README's picture.

    Args:
        video: what ``run --out`` wrote.
        moments: which frames, as shares of the length.
        width: pixels of each frame in the picture.
    """
    import av
    from PIL import Image

    with av.open(str(video)) as container:
        frames = [
            Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    chosen = [frames[int(moment * (len(frames) - 1))] for moment in moments]
    height = round(chosen[0].height * width / chosen[0].width)
    sheet = Image.new("RGB", (width * len(chosen), height))
    for place, frame in enumerate(chosen):
        sheet.paste(frame.resize((width, height), Image.Resampling.LANCZOS), (place * width, 0))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(PICTURE, quality=88)


def main() -> int:
    """0, or 1 if ``--check`` found a page that is not up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, tell by exit code")
    parser.add_argument("--picture", type=Path, help="annotated video to take the picture from")
    options = parser.parse_args()
    if options.picture:
        make_picture(options.picture)
    stale = []
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = fill(old)
        if new != old:
            stale.append(page.relative_to(ROOT).as_posix())
            if not options.check:
                page.write_text(new, encoding="utf-8")
    verb = "out of date" if options.check else "filled"
    sys.stdout.write("".join(f"{verb}: {page}\n" for page in stale))
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
