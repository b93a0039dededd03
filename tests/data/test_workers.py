"""How workers of data loaders are started; examples/train_loader.py does it under MPI."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver

import pytest

import consensus


@pytest.mark.parametrize("before", [None, "1"])
def test_workers_come_from_a_server_without_mpi(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    if before is None:
        monkeypatch.delenv("MPI4PY_RC_INITIALIZE", raising=False)
    else:
        monkeypatch.setenv("MPI4PY_RC_INITIALIZE", before)
    started: list[str | None] = []
    preloaded: list[list[str]] = []
    monkeypatch.setattr(forkserver, "ensure_running", lambda: started.append(os.environ.get("MPI4PY_RC_INITIALIZE")))
    monkeypatch.setattr(forkserver, "set_forkserver_preload", preloaded.append)
    assert consensus.loader_context().get_start_method() == "forkserver"
    assert started == ["0"]
    assert preloaded == [["__main__", "torch"]]
    assert os.environ.get("MPI4PY_RC_INITIALIZE") == before


def test_where_there_are_no_such_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert consensus.loader_context().get_start_method() == "spawn"
