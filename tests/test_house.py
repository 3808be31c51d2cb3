"""What is promised about the package as a whole: the wheel, the version, the start, the clip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import centermask_edge
from centermask_edge.kernels.toolchain import find_host_compiler

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "centermask_edge" / "_clips" / "people.mp4"
HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "cv2", "av", "PIL", "tensorrt")


def python(code: str, path: Path = ROOT) -> str:
    """What a fresh interpreter prints that finds the package in ``path``."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by hatchling without network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the unpacked wheel and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_the_only_top_level_name_is_centermask_edge(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    metadata = f"centermask_edge-{centermask_edge.__version__}.dist-info"
    assert names == {"centermask_edge", metadata}


def test_the_wheel_carries_licence_types_and_no_leftovers(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert "centermask_edge/py.typed" in names
    assert [name for name in names if "__pycache__" in name or "tests/" in name] == []


def test_files_open_from_the_wheel(installed: Path) -> None:
    code = (
        "import importlib.resources as r; from centermask_edge.resources import project_file;"
        "clip = r.files('centermask_edge') / '_clips' / 'people.mp4';"
        "print(project_file('kernels', 'README.md').resolve());"
        "print(clip); print(len(clip.read_bytes()))"
    )
    kernels, clip, size = python(code, installed).splitlines()
    assert Path(kernels) == installed / "centermask_edge" / "_files" / "kernels" / "README.md"
    assert Path(kernels).read_text(encoding="utf-8").startswith("# kernels")
    assert Path(clip).is_relative_to(installed)
    assert int(size) == CLIP.stat().st_size


def test_version_is_the_same_everywhere(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == centermask_edge.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert not released or released[0] == centermask_edge.__version__


def test_import_brings_nothing_heavy() -> None:
    loaded = python("import sys, centermask_edge; print(*sys.modules)").split()
    assert "centermask_edge" in loaded
    assert set(loaded) & set(HEAVY) == set()


def test_import_takes_less_than_three_tenths_of_a_second() -> None:
    code = (
        "import time; start = time.perf_counter(); import centermask_edge;"
        "print(time.perf_counter() - start)"
    )
    assert min(float(python(code)) for _ in range(3)) < 0.3


def test_the_clip_is_small_and_attributed() -> None:
    assert CLIP.stat().st_size < 1_500_000
    text = CLIP.with_suffix(".md").read_text(encoding="utf-8")
    for words in ("one-by-one-person-detection", "Intel IoT DevKit sample-videos", "CC BY 4.0"):
        assert words in text
        assert words in (ROOT / "NOTICE").read_text(encoding="utf-8")


def test_the_clip_decodes_to_its_last_frame() -> None:
    av = pytest.importorskip("av")
    with av.open(str(CLIP)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 126
    assert {(frame.width, frame.height) for frame in frames} == {(768, 432)}


def test_the_readme_opens_with_the_two_commands() -> None:
    screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:24]
    assert any(line.strip().startswith("make run") for line in screen)
    assert any(line.strip().startswith("make test") for line in screen)


def test_links_between_our_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    lost = [
        f"{page.name} -> {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert lost == []


def test_tests_and_constraints_name_one_torch() -> None:
    pins = re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pins == [("torch", "2.13.0")]


def test_the_kernels_build_from_an_installed_wheel(installed: Path) -> None:
    code = (
        "from centermask_edge.kernels.library import load_host\n"
        "from centermask_edge.kernels.build import host_recipe\n"
        "assert '_files' in str(host_recipe().sources), host_recipe().sources\n"
        "print(load_host().device_name())"
    )
    if find_host_compiler() is None:
        pytest.skip("no C++ compiler")
    assert python(code, installed) == "host"
