"""What the outputs of a live run cost: handing over, lines, drawing, JPEG, lossless recording.

    python bench/live_outputs.py [--json FILE]

One thread, the bundled clip at 1280 x 720, synthetic instances. Medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.outputs.feed import jpeg
from centermask_edge.live.outputs.outlet import LINES, PICTURES, Outlet
from centermask_edge.live.outputs.overlay import annotate
from centermask_edge.live.outputs.schema import dumps, result_line
from centermask_edge.live.record.recording import Made, Recorder
from centermask_edge.live.record.replay import replay_batches
from centermask_edge.live.result import Result

CLIP = Path(__file__).parents[1] / "centermask_edge" / "_clips" / "people.mp4"
HEIGHT, WIDTH = 720, 1280


def pictures(count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """So many consecutive pictures of the clip at 1280 x 720."""
    import av

    with av.open(str(CLIP)) as container:
        frames = []
        for decoded in container.decode(video=0):
            image = decoded.reformat(WIDTH, HEIGHT, format="bgr24").to_ndarray()
            frames.append(np.ascontiguousarray(image, np.uint8))
            if len(frames) == count:
                break
    return frames


def instances(count: int) -> Instances:
    """So many people-sized instances, spread over the picture, with round masks."""
    random = np.random.default_rng(0)
    sizes = random.uniform((40, 90), (120, 260), (count, 2))
    corners = random.uniform((0, 0), (WIDTH - 120, HEIGHT - 260), (count, 2))
    rows, columns = np.mgrid[0:28, 0:28]
    disc = (((rows - 13.5) ** 2 + (columns - 13.5) ** 2) < 170).astype(np.float32)
    return Instances(
        np.concatenate([corners, corners + sizes], axis=1).astype(np.float32),
        np.linspace(0.95, 0.4, count).astype(np.float32),
        np.linspace(0.9, 0.3, count).astype(np.float32),
        np.zeros(count, np.int64),
        np.repeat(disc[None], count, axis=0),
        (HEIGHT, WIDTH),
        ("person",),
    )


def result(image: np.ndarray[Any, np.dtype[np.uint8]], count: int, index: int = 0) -> Result:
    """One result with so many instances."""
    frame = Frame(image, index / 25, index / 25, "camera", index)
    return Result(frame, instances(count), np.arange(1, count + 1), age_s=0.05, batch=index)


def median_ms(work: Callable[[], object], times: int = 30) -> float:
    """Median time of a call, after one that is not counted."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))


class Hanging:
    """A sink that never returns until it is let go."""

    name = "hanging"

    def __init__(self) -> None:
        self.free = threading.Event()

    def write(self, result: Result) -> None:
        """Hangs."""
        self.free.wait()

    def close(self) -> None:
        """Nothing."""


def handing_over(one: Result) -> dict[str, float]:
    """Microseconds to hand a result to an outlet whose sink hangs and whose queue is full."""
    found = {}
    for name, queue in (("pictures", PICTURES), ("lines", LINES)):
        sink = Hanging()
        outlet = Outlet(sink, queue)
        for _ in range(300):
            outlet.submit(one)
        found[name] = 1000 * median_ms(lambda o=outlet: o.submit(one), 500)  # type: ignore[misc]
        sink.free.set()
        outlet.close()
    return found


def recording(frames: list[np.ndarray[Any, np.dtype[np.uint8]]]) -> list[dict[str, Any]]:
    """Cost of each lossless codec, and whether every byte came back."""
    import av

    rows = []
    results = [result(image, 3, index) for index, image in enumerate(frames)]
    known = av.codecs_available
    for codec in ("libx264rgb", "ffv1"):
        if codec not in known:
            continue
        av.codecs_available = known - ({"libx264rgb"} if codec == "ffv1" else set())
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "recording"
            recorder = Recorder(folder, Made())
            start, used = time.perf_counter(), time.process_time()
            for one in results:
                recorder.write(one)
            recorder.close()
            wall, cpu = time.perf_counter() - start, time.process_time() - used
            size = sum(path.stat().st_size for path in folder.iterdir())
            start = time.perf_counter()
            back = [frame for batch in replay_batches(folder) for frame in batch.frames]
            read = time.perf_counter() - start
        same = len(back) == len(frames) and all(
            np.array_equal(frame.image, image) for frame, image in zip(back, frames, strict=True)
        )
        rows.append(
            {
                "codec": codec,
                "write_ms": 1000 * wall / len(frames),
                "write_cpu_ms": 1000 * cpu / len(frames),
                "read_ms": 1000 * read / len(frames),
                "megabytes": size / len(frames) / 1e6,
                "bit_exact": same,
            }
        )
    av.codecs_available = known
    return rows


def measure() -> dict[str, Any]:
    """All figures."""
    import cv2

    cv2.setNumThreads(1)
    frames = pictures(60)
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "size": [HEIGHT, WIDTH],
        "handing_over_us": handing_over(result(frames[0], 10)),
        "jpeg_ms": {q: median_ms(lambda q=q: jpeg(frames[0], q)) for q in (80, 90)},  # type: ignore[misc]
        "by_instances": [],
    }
    for count in (1, 10, 50):
        one = result(frames[0], count)
        line = dumps(result_line(one))
        found["by_instances"].append(
            {
                "instances": count,
                "line_ms": median_ms(lambda o=one: dumps(result_line(o))),  # type: ignore[misc]
                "line_kilobytes": len(line) / 1000,
                "annotate_ms": median_ms(lambda o=one: annotate(o)),  # type: ignore[misc]
            }
        )
    found["recording"] = recording(frames)
    return found


def tables(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows = ["| instances | line of JSON | its size | annotated picture |", "|---|---|---|---|"]
    rows += [
        f"| {r['instances']} | {r['line_ms']:.2f} ms | {r['line_kilobytes']:.1f} kB "
        f"| {r['annotate_ms']:.1f} ms |"
        for r in found["by_instances"]
    ]
    rows += ["", "| recording | write | of it processor | read | a frame | bit-exact |"]
    rows += ["|---|---|---|---|---|---|"]
    rows += [
        f"| {r['codec']} | {r['write_ms']:.1f} ms | {r['write_cpu_ms']:.1f} ms "
        f"| {r['read_ms']:.1f} ms | {r['megabytes']:.2f} MB | {'yes' if r['bit_exact'] else 'NO'} |"
        for r in found["recording"]
    ]
    over, image = found["handing_over_us"], found["jpeg_ms"]
    rows += [
        "",
        f"Handing a result to an output that hangs: {over['pictures']:.0f} us (pictures), "
        f"{over['lines']:.0f} us (lines). JPEG: {image[80]:.1f} ms at quality 80, "
        f"{image[90]:.1f} ms at 90.",
    ]
    return "\n".join(rows)


def main() -> None:
    """Prints the tables, and writes the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = measure()
    sys.stdout.write(f"{tables(found)}\n")
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
