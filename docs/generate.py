"""Fill the generated sections of README.md and docs/ from the measurements in docs/results/.

    python docs/generate.py                         # fill
    python docs/generate.py --check                 # exit code 1 if a page is not up to date
    python docs/generate.py --picture out/people.mp4   # also make the picture from that video

A section lies between ``<!-- generated: NAME -->`` and ``<!-- end -->``. Each is made from a JSON
file that a command wrote: ``run --stages-json``, ``evaluate --json``, ``kernels check --json`` and
``make gpu``. Where the file does not exist, the section says so; nobody types a figure.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
GPU_RESULTS = ROOT / "bench" / "results"
PICTURE = ROOT / "docs" / "images" / "people.jpg"
SECTION = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; numbers are aligned to the right, the first column to the left.

    >>> print(table(["stage", "ms"], [["decode", 1.5]]))
    | stage | ms |
    |---|---:|
    | decode | 1.5 |
    """
    titles = list(head)
    rule = "|---|" + "---:|" * (len(titles) - 1)
    lines = ["| " + " | ".join(titles) + " |", rule]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def results(name: str) -> Any | None:
    """The content of ``docs/results/NAME.json``, or None before it was measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def not_measured(name: str, command: str) -> str:
    """The line that stands where a result is missing."""
    return f"Not measured yet: `docs/results/{name}.json` comes from `{command}`."


def caption(data: dict[str, Any]) -> str:
    """The plain values of a result in one line: what was measured, on what, with what."""
    facts = [f"{key.replace('_', ' ')} {value}" for key, value in data.items() if _plain(value)]
    return ", ".join(facts) + "." if facts else ""


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def picture() -> str:
    """The annotated frames."""
    if not PICTURE.exists():
        return "Picture: not made yet; `make results` makes it."
    return f"![People in the bundled clip with masks]({PICTURE.relative_to(ROOT).as_posix()})"


def stages() -> str:
    """Latency of each stage, in the order of a frame's life."""
    data = results("stages")
    if data is None:
        return not_measured("stages", "make results")
    head = ["stage", "p50 ms", "p95 ms", "p99 ms"]
    rows = [
        [row["stage"], *(f"{row[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms"))]
        for row in data["stages"]
    ]
    return f"{table(head, rows)}\n\n{caption(data)}".strip()


def average_precision() -> str:
    """Box and mask AP by size."""
    data = results("ap")
    if data is None:
        return not_measured("ap", "centermask-edge evaluate val.json --json docs/results/ap.json")
    keys = ("ap", "ap50", "ap75", "small", "medium", "large")
    rows = [
        [kind, *("-" if data[kind][key] < 0 else f"{data[kind][key]:.1f}" for key in keys)]
        for kind in ("box", "mask")
    ]
    head = ["", "AP", "AP50", "AP75", "small", "medium", "large"]
    return f"{table(head, rows)}\n\n{caption(data)}".strip()


def kernels() -> str:
    """Cases of every kernel and its largest error, on the device they ran on."""
    data = results("kernels")
    if data is None:
        return not_measured(
            "kernels", "centermask-edge kernels check --host --json docs/results/kernels.json"
        )
    rows = [
        [
            row["kernel"],
            row["kind"],
            row["cases"],
            len(row["failures"]),
            "equal to the bit" if row["exact"] else f"{row['worst']:.1e} {row['unit']}".strip(),
        ]
        for row in data["rows"]
    ]
    head = ["kernel", "type", "cases", "failed", "largest error"]
    return f"{table(head, rows)}\n\n{caption(data)}".strip()


def gpu() -> str:
    """Each kernel on each GPU that ``make gpu`` ran on."""
    found = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(GPU_RESULTS.glob("*.json"))]
    if not found:
        return (
            "Not measured yet: no GPU has run these kernels. `make gpu` on a machine with one "
            "writes a file to `bench/results/`, and `make docs` this table."
        )
    return "\n\n".join(_gpu_table(result) for result in found)


def _gpu_table(result: dict[str, Any]) -> str:
    rows = []
    for row in result["timings"]:
        ours = row["times"]["kernel"]
        warm = "-" if ours["warm_p50_us"] is None else f"{ours['warm_p50_us']:.1f}"
        speed = ", ".join(f"{name} {value:.1f}x" for name, value in row["speedup"].items())
        share = f"{row['copy_fraction']:.2f}"
        name = f"{row['kernel']}: {row['name']}"
        rows.append([name, f"{ours['cold_p50_us']:.1f}", warm, row["bytes"], share, speed or "-"])
    head = ["kernel", "cold us", "warm us", "bytes", "of copy bandwidth", "faster than"]
    facts = {**result["environment"], "date": result["date"]}
    return f"{table(head, rows)}\n\n{caption(facts)}"


def int8_speed() -> str:
    """FP32, bfloat16 and INT8 by several quantizers, part by part, with the share of the peak."""
    data = results("int8_speed")
    if data is None:
        return not_measured(
            "int8_speed", "python bench/int8_cpu.py --json docs/results/int8_speed.json"
        )
    rows = [
        [
            f"{row['model']}, {row['part']}",
            row["variant"],
            f"{row['median_ms']:.1f}",
            f"{row['p95_ms']:.1f}",
            f"{row['gain']:.2f}x",
            "-" if row["of_peak"] is None else f"{100 * row['of_peak']:.0f} %",
            row["gmacs"],
        ]
        for row in data["rows"]
    ]
    head = ["part", "variant", "p50 ms", "p95 ms", "faster", "of INT8 peak"]
    return f"{table([*head, 'G multiply-adds'], rows)}\n\n{caption(data)}"


def int8_accuracy() -> str:
    """AP of every plan, observer and peer, one table a model."""
    found = sorted((ROOT / "calibration" / "results").glob("*.json"))
    tables = [_accuracy_table(json.loads(path.read_text(encoding="utf-8"))) for path in found]
    return "\n\n".join(tables) or (
        "Not measured yet: `calibration/results/` is filled by `python bench/int8_accuracy.py`."
    )


def _accuracy_table(data: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['quantizer']}: {row['observer']}",
            *(
                [f"{row[key]:.2f}" for key in ("mask_ap", "mask_ap_lost", "box_ap")]
                if "mask_ap" in row
                else [row["fails"], "-", "-"]
            ),
        ]
        for row in data["rows"]
    ]
    return f"{table(['quantizer: observer', 'mask AP', 'lost', 'box AP'], rows)}\n\n{caption(data)}"


def int8_twin() -> str:
    """The shipped model and its INT8 twin, from the committed verdict."""
    path = ROOT / "calibration" / "verdicts" / "person-int8.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    speed = {row["precision"]: row for row in data["speed"]["rows"]}
    rows = []
    for row in data["accuracy"]:
        timed = speed.get(row["numbers"])
        rows.append(
            [
                row["numbers"].upper(),
                row["engine"],
                f"{row['mask']['ap']:.2f}",
                f"{row['box']['ap']:.2f}",
                "-" if timed is None else f"{timed['median_ms']:.1f}",
            ]
        )
    head = ["precision", "engine", "mask AP", "box AP", "whole network, ms"]
    size = data["speed"]["input_size"]
    facts = {
        "annotations": data["annotations"]["name"],
        "images": data["annotations"]["images"],
        "network input": f"{size[1]}x{size[0]}",
        "processor": data["processor"],
    }
    return f"{table(head, rows)}\n\n{caption(facts)}"


def int8_engines() -> str:
    """The INT8 twin through several engines."""
    found = sorted(RESULTS.glob("ap-int8-*.json"))
    if not found:
        return not_measured("ap-int8-NAME", "centermask-edge evaluate --engine NAME --json FILE")
    results_of = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    rows = [
        [row["model"], row["engine"], f"{row['mask']['ap']:.2f}", f"{row['box']['ap']:.2f}"]
        for row in results_of
    ]
    return table(["file", "engine", "mask AP", "box AP"], rows)


def engines() -> str:
    """The shipped model as TensorRT-RTX engines, built without a GPU."""
    data = results("engines")
    if data is None:
        return not_measured("engines", "python bench/engines.py --json docs/results/engines.json")
    rows = [
        [
            row["precision"],
            f"{row['seconds']:.1f}",
            f"{row['engine_mb']:.1f}",
            ", ".join(f"{100 * share:.1f} % {kind}" for kind, share in row["conv_shares"].items()),
            row["layers"],
            row["reformats"],
        ]
        for row in data["rows"]
    ]
    head = ["precision", "build s", "engine MB", "convolutions' multiply-adds", "layers"]
    return f"{table([*head, 'of them reformats'], rows)}\n\n{caption(data)}"


SECTIONS: dict[str, Callable[[], str]] = {
    "picture": picture,
    "stages": stages,
    "ap": average_precision,
    "kernels": kernels,
    "gpu": gpu,
    "engines": engines,
    "int8-speed": int8_speed,
    "int8-accuracy": int8_accuracy,
    "int8-engines": int8_engines,
    "int8-twin": int8_twin,
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
