from __future__ import annotations

import pytest

from centermask_edge.kernels.cases import decode_nms as cases
from centermask_edge.kernels.cases.decode_nms import Case
from centermask_edge.kernels.library import Library

ALL = cases.cases()


@pytest.mark.parametrize("case", ALL, ids=str)
def test_matches_the_reference(host: Library, case: Case) -> None:
    cases.check(host, case)
