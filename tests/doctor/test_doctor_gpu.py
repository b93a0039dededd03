"""What is made of a GPU's memory and MPI. There is no GPU in these tests: what a trial says is made up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from consensus.doctor import State
from consensus.doctor.gpu import EXCHANGE, Exchanged, check_gpu, gpus


def never() -> Exchanged:
    raise AssertionError("nothing was to be tried")


def test_devices_are_files(tmp_path: Path) -> None:
    assert not gpus(tmp_path)
    (tmp_path / "nvidiactl").touch()  # the driver's, there without a GPU too
    assert not gpus(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert gpus(tmp_path)


@pytest.mark.parametrize(
    ("present", "claimed", "words"),
    [(False, True, "nothing to try"), (True, False, "does not take it"), (True, None, "does not say")],
)
def test_nothing_is_tried_without_a_claim(present: bool, claimed: bool | None, words: str) -> None:
    check = check_gpu(present, claimed, never)
    assert (check.state, words in check.found) == (State.OK, True)


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (Exchanged("2.9.0", True, True), State.OK, "exchanged it"),
        (Exchanged("2.9.0", True, False), State.WARN, "not what was sent"),
        (Exchanged("2.9.0+cpu", False, False), State.WARN, "torch 2.9.0+cpu cannot use it"),
        ("Segmentation fault", State.WARN, "a trial failed: Segmentation fault"),
    ],
)
def test_a_claim_is_put_to_the_test(found: Exchanged | str, state: State, words: str) -> None:
    check = check_gpu(True, True, lambda: found)
    assert (check.state, words in check.found) == (state, True)
    assert bool(check.advice) is (state is State.WARN)


def test_the_program_can_be_read() -> None:
    ast.parse(EXCHANGE)
