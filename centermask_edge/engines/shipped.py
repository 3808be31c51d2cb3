"""Which of the shipped person model's two files is used where none is named: FP32 or INT8."""

from __future__ import annotations

from pathlib import Path

from centermask_edge.engines import EngineName, default_engine
from centermask_edge.resources import shipped_model

# Instructions for sums of 8-bit products, as Linux names them. Without them INT8 gains little.
_FLAGS = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})
_CPUINFO = Path("/proc/cpuinfo")


def gains_from_int8(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether this processor multiplies 8-bit numbers faster than floats, as far as Linux tells.

    x86 only: on others INT8 was not measured.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _FLAGS.isdisjoint(flags.split())


def default_model(engine: EngineName | None = None) -> Path:
    """The shipped person model: in INT8 for OpenVINO on a processor that gains, else in FP32.

    Args:
        engine: that will run it; the default one where None.

    Raises:
        ModelFileError: this installation does not hold it.
    """
    plain = shipped_model()
    quantized = plain.with_name(f"{plain.stem}-int8{plain.suffix}")
    chosen = default_engine() if engine is None else engine
    fits = chosen is EngineName.OPENVINO and gains_from_int8()
    return quantized if fits and quantized.is_file() else plain
