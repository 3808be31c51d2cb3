"""Outputs of the official code to compare with: small copies in the checkout, or a whole folder.

A folder of reference outputs has ``keys/<config>.keys.json`` and ``golden/``; the copies in
``tests/golden`` have the same files, some arrays with fewer channels, in one folder.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.config import PRESETS, ModelConfig
from centermask_edge.errors import ConfigError
from centermask_edge.masks import Rle
from centermask_edge.model.golden_weights import golden_weights
from centermask_edge.resources import project_file

OFFICIAL_CONFIGS = {
    "lite_V_19": "lite-v19",
    "lite_V_19_slim": "lite-v19-slim",
    "lite_V_19_dw": "lite-v19-dw",
    "lite_V_19_slim_dw": "lite-v19-slim-dw",
    "lite_V_39": "lite-v39",
    "lite_Mv2": "lite-mobilenet-v2",
    "lite_R_50": "lite-r50",
    "V_39": "v39",
    "V_57": "v57",
    "V_99": "v99",
    "R_50": "r50",
    "R_101": "r101",
    "X_101": "x101",
    "V_39_dcn": "v39-dcn",
    "V_57_dcn": "v57-dcn",
    "V_99_dcn": "v99-dcn",
}  # official name to preset

ALL_KEYS = "keys.json.gz"  # in the copies: {config: {"counts": ..., "keys": {name: shape}}}

Case = dict[str, NDArray[Any]]


def _json(path: Path) -> Any:
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


@dataclass(frozen=True, slots=True)
class Reference:
    """A folder of reference outputs.

    Attributes:
        root: of the files.
    """

    root: Path

    @classmethod
    def open(cls, folder: Path | None) -> Reference:
        """The folder, or the copies of this checkout where None.

        Raises:
            ConfigError: neither holds reference outputs.
        """
        if folder is None:
            try:
                return cls(project_file("tests", "golden"))
            except ConfigError:
                raise ConfigError(
                    "the reference outputs are part of a checkout (tests/golden) and not of an "
                    "installed package; run this in a checkout, or give --reference FOLDER"
                ) from None
        reference = cls(folder)
        if reference.find("small_input.npy") is None:
            raise ConfigError(
                f"{folder} holds no reference outputs (golden/small_input.npy is missing); give "
                "--reference the folder that has golden/ and keys/, or leave it out"
            )
        return reference

    def find(self, name: str) -> Path | None:
        """Path of a file of ``golden/``, or None where it is absent."""
        paths = (self.root / "golden" / name, self.root / name)
        return next((path for path in paths if path.is_file()), None)

    def path(self, name: str) -> Path:
        """Path of a file of ``golden/``.

        Raises:
            ConfigError: it is absent.
        """
        path = self.find(name)
        if path is None:
            raise ConfigError(f"{self.root} holds no {name}; choose another --reference")
        return path

    def shapes(self, config: str) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of an official configuration by its official name."""
        keys: Mapping[str, Any] = self._description(config)["keys"]
        return {
            key: tuple(value["shape"] if isinstance(value, dict) else value)
            for key, value in keys.items()
        }

    def parameters(self, config: str) -> dict[str, int]:
        """Number of trained values of an official configuration, total and by part."""
        counts = self._description(config)["counts"]
        return {part: int(count["params"]) for part, count in counts.items()}

    def _description(self, config: str) -> Any:
        path = self.root / "keys" / f"{config}.keys.json"
        return _json(path) if path.is_file() else _json(self.path(ALL_KEYS))[config]

    def weights(self, config: str, seed: int = 0) -> dict[str, NDArray[np.float32]]:
        """The weights the outputs were made with, by official names."""
        return golden_weights(self.shapes(config), seed)

    def preset(self, config: str) -> ModelConfig:
        """Our model configuration of an official one."""
        return PRESETS[OFFICIAL_CONFIGS[config]]

    def case(self, name: str) -> Case:
        """The arrays of one ``.npz`` file."""
        with np.load(self.path(f"{name}.npz")) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def losses(self, name: str) -> dict[str, Any]:
        """Losses and gradients of a training step."""
        content: dict[str, Any] = _json(self.path(f"{name}.json"))
        return content

    def seeds(self, config: str) -> list[int]:
        """Seeds of the weights that the small picture was run with, in their order."""
        names = {path.name for folder in ("golden", ".") for path in (self.root / folder).glob("*")}
        found = (re.fullmatch(rf"small\.{re.escape(config)}\.s(\d+)\.npz", name) for name in names)
        return sorted(int(m[1]) for m in found if m)

    def masks(self, config: str, picture: str, seed: int = 0) -> list[Rle] | None:
        """Pasted masks of a picture in the order of its detections, or None where unknown."""
        path = self.find(f"rles.{config}.s{seed}.json.gz")
        rles = None if path is None else _json(path).get(picture)
        return None if rles is None else [Rle(size=r["size"], counts=r["counts"]) for r in rles]

    def small_input(self) -> NDArray[np.uint8]:
        """The synthetic picture of the small cases, uint8 (H, W, 3) BGR."""
        array: NDArray[np.uint8] = np.load(self.path("small_input.npy"))
        return np.ascontiguousarray(array.transpose(1, 2, 0))
