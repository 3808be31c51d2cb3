from __future__ import annotations

import pytest

from centermask_edge.kernels.cases import spatial_attention as cases
from centermask_edge.kernels.library import Library


@pytest.mark.parametrize("case", cases.cases(), ids=str)
def test_matches_the_reference(host: Library, case: cases.Case) -> None:
    cases.check(host, case)
