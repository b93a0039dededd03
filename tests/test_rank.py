"""A rank that ends with an error leaves a mark where it was told to."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from consensus import rank
from consensus.transport.endings import MARK, ending
from consensus.transport.failures import ENABLED


@pytest.mark.parametrize(
    ("error", "marked"),
    [(None, False), (SystemExit(0), False), (SystemExit(), False), (SystemExit(3), True), (ArithmeticError("a bad batch"), True)],
)
def test_the_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException | None, marked: bool) -> None:
    def main() -> None:
        if error is not None:
            raise error

    monkeypatch.setitem(sys.modules, "mpi4py.run", SimpleNamespace(main=main))
    monkeypatch.setattr(ending(), "code", 0)
    monkeypatch.setenv(MARK, str(tmp_path / "results" / "mark"))
    monkeypatch.delenv(ENABLED, raising=False)
    with suppress(SystemExit, ArithmeticError):
        rank.main()
    assert (tmp_path / "results" / "mark").exists() == (ending().code != 0) == marked
