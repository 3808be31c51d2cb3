from __future__ import annotations

from pathlib import Path

import pytest

from centermask_edge.engines import EngineName, shipped
from centermask_edge.resources import shipped_model


@pytest.mark.parametrize(
    ("text", "gains"),
    [
        ("processor : 0\nflags\t\t: fpu sse2 avx512_vnni bmi2\n", True),
        ("flags : fpu avx_vnni\n", True),
        ("flags : fpu amx_int8\n", True),
        ("flags : fpu avx2 avx512f avx512_vnnx\n", False),
        ("Features : fp asimd asimddp\n", False),
        ("model name : avx512_vnni\n", False),
    ],
)
def test_a_processor_gains_if_it_has_the_instructions(
    tmp_path: Path, text: str, gains: bool
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert shipped.gains_from_int8(path) is gains


def test_a_system_without_cpuinfo_does_not_gain(tmp_path: Path) -> None:
    assert not shipped.gains_from_int8(tmp_path / "cpuinfo")


@pytest.mark.parametrize("gains", [True, False])
def test_openvino_gets_int8_where_it_pays_and_others_never(
    monkeypatch: pytest.MonkeyPatch, gains: bool
) -> None:
    monkeypatch.setattr(shipped, "gains_from_int8", lambda: gains)
    name = "person-int8.onnx" if gains else "person.onnx"
    assert shipped.default_model().name == name
    assert shipped.default_model(EngineName.OPENVINO).name == name
    for other in (EngineName.ONNXRUNTIME, EngineName.TENSORRT):
        assert shipped.default_model(other) == shipped_model()


def test_an_installation_without_the_int8_file_has_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = tmp_path / "person.onnx"
    monkeypatch.setattr(shipped, "gains_from_int8", lambda: True)
    monkeypatch.setattr(shipped, "shipped_model", lambda: plain)
    assert shipped.default_model() == plain
