"""Coded gradients on real MPI ranks: exact, whoever is silent."""

from __future__ import annotations

import numpy as np
import pytest

from consensus.coding import GradientCode, construct
from consensus.config.coding import Coding
from consensus.transport.base import Transport
from tests.coded_worlds import numbers_of, reference, silence, train
from tests.together import together

STEPS = 12


def layout(size: int, scheme: str) -> tuple[int, ...]:
    """Workers of edges for so many ranks."""
    unequal = (2, 3, 4) if size == 13 and scheme != "flat" else None
    return unequal or Coding().layout(scheme, size).workers_per_edge


@pytest.mark.mpi(min_size=4)
@pytest.mark.parametrize("scheme", ["uncoded", "worker", "edge", "flat", "hgc"])
def test_every_step_is_the_exact_one_whoever_is_silent(scheme: str) -> None:
    from mpi4py import MPI

    size = MPI.COMM_WORLD.size
    workers = layout(size, scheme)
    s_e = 0 if scheme in ("uncoded", "worker") or len(workers) == 1 else 1
    s_w = 0 if scheme in ("uncoded", "edge") or min(workers) == 1 else 1

    def body(transport: Transport) -> tuple[list[np.ndarray], np.ndarray, int]:
        code: GradientCode = construct(scheme, workers, 7, s_e, s_w)
        silent = silence(code, s_e, s_w, STEPS, seed=4)
        seen, handle, model = train(transport, code, STEPS, silent=silent, payload="float64", push="interrupt")
        return seen, numbers_of(model), handle.statistics.rounds

    results = together(body)
    np.testing.assert_allclose(results[0][0], reference(STEPS, 7), rtol=1e-10, atol=1e-12)
    for _, end, _ in results:
        np.testing.assert_array_equal(end, results[0][0][-1])
    assert results[0][2] == STEPS
