"""Whether a folder is fit for runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from consensus.doctor import State, folder
from consensus.doctor.folder import FolderReport, check_folder, file_system, try_folder
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from consensus.transport.single import SingleTransport

GOOD = FolderReport("runs", "ext4", 10**12, 1 << 26, ["a", "a", "b"], [], [""] * 3, [0.1, 0.2, 0.1])


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "FILE_BYTES", 3 << 20)


def test_all_ranks_write_and_leave_nothing_behind(tmp_path: Path) -> None:
    reports = run(3, lambda transport: try_folder(transport, tmp_path / "new" / "runs"))
    assert reports == [reports[0]] * 3
    report = reports[0]
    assert (report.size, report.blind, report.problems) == (3 << 20, [], [""] * 3)
    assert report.free > 0
    assert check_folder(report).state is State.OK
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert check_folder(try_folder(SingleTransport(), tmp_path)).state is State.OK
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_many_ranks_write_smaller_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "TOTAL_BYTES", 4 << 20)
    assert run(4, lambda transport: try_folder(transport, tmp_path))[0].size == 1 << 20


def test_a_place_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    reports = run(2, lambda transport: try_folder(transport, tmp_path / "file" / "runs"))
    check = check_folder(reports[1])
    assert (check.state, "cannot be written to: Not a directory" in check.found) == (State.FAIL, True)
    assert "--out" in check.advice


def test_a_rank_that_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replacing = folder.replacing

    def full(path: Path) -> object:
        if path.name == "1":
            raise OSError(28, os.strerror(28))
        return replacing(path)

    monkeypatch.setattr(folder, "replacing", full)
    check = check_folder(run(2, lambda transport: try_folder(transport, tmp_path))[0])
    assert check.state is State.FAIL
    assert "No space left on device, rank 1 on " in check.found
    assert list(tmp_path.iterdir()) == []


def test_a_host_with_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = folder._seen
    # Rank 1 sees another disk under the same path.
    monkeypatch.setattr(folder, "_seen", lambda transport, path: seen(transport, path / "elsewhere" if transport.rank else path))
    report = run(2, lambda transport: try_folder(transport, tmp_path))[0]
    assert report.blind == [1]
    check = check_folder(replace(report, hosts=["a", "b"]))
    assert (check.state, "what a writes is not seen on b" in check.found) == (State.FAIL, True)


@pytest.mark.parametrize(
    ("report", "word"),
    [
        (replace(GOOD, kind="tmpfs"), "in memory"),
        (replace(GOOD, free=10**9), "little room"),
        (replace(GOOD, seconds=[0.1, 20.0, 0.1]), "slow"),
    ],
)
def test_what_could_be_better(report: FolderReport, word: str) -> None:
    check = check_folder(report)
    assert (check.state, word in check.advice) == (State.WARN, True)
    assert check_folder(GOOD).advice == ""


def test_the_kind_of_a_file_system(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    table = tmp_path / "mountinfo"
    root = "22 1 999:1 / / rw,noatime shared:1 - ext4 /dev/vda rw"
    table.write_text(f"{root}\n23 1 {number} / /data rw shared:2 - lustre 10.0.0.1@tcp:/data rw\n")
    assert file_system(tmp_path, table) == "lustre"
    assert file_system(tmp_path, tmp_path / "no table") == ""


def test_the_transport_is_asked_for_the_time(tmp_path: Path) -> None:
    def wait(transport: Transport) -> float:
        began = transport.now()
        assert not folder._seen(transport, tmp_path / "never")
        return transport.now() - began

    assert run(1, wait)[0] == pytest.approx(folder.PATIENCE, abs=0.2)
