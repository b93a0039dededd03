"""Sets of checkpoints: when they are complete, which are dropped, and what ranks do that lag, end, die or start anew."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from consensus.checkpoint.folder import CheckpointFolder, CheckpointSet, Moment
from consensus.checkpoint.manifest import MANIFEST, named_sets, update_manifest
from consensus.checkpoint.pending import PENDING
from consensus.checkpoint.store import Store, latest_start
from consensus.errors import CheckpointError, ConfigError, ProtocolError


def stores(folder: Path, size: int = 2, keep: int = 2, start: int = 1) -> list[Store]:
    return [Store(folder, rank, size, keep, start=start, run="digits") for rank in range(size)]


def write_all(ranks: list[Store], number: int, **words: Any) -> None:
    for rank, store in enumerate(ranks):
        assert store.write(number, {"number": number, "rank": rank}, **words)


def folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


def files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_a_set_is_complete_with_its_last_rank(tmp_path: Path) -> None:
    ranks = stores(tmp_path, size=3)
    assert ranks[0].newest() is None
    for rank in (2, 0):
        ranks[rank].write(1, {"rank": rank})
        assert ranks[1].newest() is None
        assert named_sets(tmp_path) == set()
    ranks[1].write(1, {"rank": 1, "weight": torch.arange(3)})
    moment = ranks[0].newest()
    assert moment == Moment(1, 1)
    assert named_sets(tmp_path) == {moment}
    assert ranks[0].read(moment, 2) == {"rank": 2}
    assert ranks[0].read(moment, 1)["weight"].tolist() == [0, 1, 2]


def test_the_manifest_says_what_of_when(tmp_path: Path) -> None:
    ranks = stores(tmp_path)
    ranks[0].write(3, {}, rounds=310, seconds=60.5)
    ranks[1].write(3, {}, rounds=295, seconds=61.0)
    (row,) = json.loads((tmp_path / MANIFEST).read_text())["sets"]
    assert row == {
        "folder": "checkpoint-0001-00000003",
        "start": 1,
        "number": 3,
        "run": "digits",
        "size": 2,
        "lost": [],
        "rounds": {"least": 295, "most": 310},
        "seconds": {"least": 60.5, "most": 61.0},
    }


@pytest.mark.parametrize("keep", [1, 3])
def test_so_many_sets_are_kept(tmp_path: Path, keep: int) -> None:
    ranks = stores(tmp_path, keep=keep)
    for number in range(1, 6):
        write_all(ranks, number)
    kept = [Moment(1, number) for number in range(5, 5 - keep, -1)]
    assert folders(tmp_path) == sorted(map(str, kept))
    assert named_sets(tmp_path) == set(kept)


def test_nothing_is_dropped_before_a_newer_set_is_complete(tmp_path: Path) -> None:
    ranks = stores(tmp_path, keep=1)
    write_all(ranks, 1)
    ranks[0].write(2, {})
    ranks[0].write(3, {})
    assert ranks[0].newest() == Moment(1, 1)
    ranks[1].write(3, {})
    # Number 2 was passed by rank 1, so nobody will ever complete it.
    assert folders(tmp_path) == [str(Moment(1, 3))]


def test_a_rank_that_lags_completes_sets_later(tmp_path: Path) -> None:
    fast, slow = stores(tmp_path, keep=1)
    fast.write(1, {})
    for number in (2, 3):
        fast.write(number, {})
    slow.write(1, {})
    assert fast.newest() == Moment(1, 1)
    slow.write(2, {})
    assert fast.newest() == Moment(1, 2)
    assert folders(tmp_path) == [str(Moment(1, 2)), str(Moment(1, 3))]


def test_a_rank_that_never_comes_costs_a_bounded_number_of_files(tmp_path: Path) -> None:
    ranks = stores(tmp_path, size=3, keep=2)
    for number in (1, 2):
        write_all(ranks, number)
    for number in range(3, 40):
        for rank in (0, 2):
            ranks[rank].write(number, {})
    for rank in range(3):
        own = list(tmp_path.glob(f"*/rank-{rank:05d}.ckpt"))
        assert 2 <= len(own) <= 2 + PENDING
    assert ranks[0].newest() == Moment(1, 2)
    # The others gave up the same files, and the newest is among those they have.
    ranks[1].write(39, {})
    assert ranks[0].newest() == Moment(1, 39)


@pytest.mark.parametrize("slowness", [3, 9])
def test_ranks_many_times_slower_meet_common_numbers(tmp_path: Path, slowness: int) -> None:
    # A fast rank, one of half its speed, and one that is slower still.
    ranks = dict(zip((1, 2, slowness), stores(tmp_path, size=3, keep=1), strict=True))
    newest = [0]
    for tick in range(1, 72):
        for slow, store in ranks.items():
            if tick % slow == 0:
                store.write(tick // slow, {})
        found = ranks[1].newest()
        newest.append(found.number if found else 0)
    assert newest == sorted(newest)
    assert max(map(len, folder_files(tmp_path, 3).values())) <= 2 + PENDING
    assert newest[-1] > newest[3 * slowness] > 0


def folder_files(path: Path, size: int) -> dict[int, list[Path]]:
    return {rank: list(path.glob(f"checkpoint-*/rank-{rank:05d}.ckpt")) for rank in range(size)}


def test_a_rank_that_ended_stands_in_later_sets(tmp_path: Path) -> None:
    ranks = stores(tmp_path, size=3, keep=2)
    write_all(ranks, 1)
    ranks[2].write(2, {"ended": True}, last=True)
    for number in (2, 3, 4):
        for rank in (0, 1):
            ranks[rank].write(number, {"number": number})
        moment = ranks[0].newest()
        assert moment == Moment(1, number)
        assert ranks[0].read(moment, 2) == {"ended": True}
        assert [header.last for header in ranks[0].headers(moment).values()] == [False, False, True]
    assert folders(tmp_path) == [str(Moment(1, 3)), str(Moment(1, 4)), "checkpoint-0001-last"]


def test_all_ended_at_different_numbers(tmp_path: Path) -> None:
    ranks = stores(tmp_path, size=3)
    for rank, number in enumerate((4, 9, 2)):
        assert ranks[0].newest() is None
        ranks[rank].write(number, {"rank": rank}, last=True)
    assert ranks[0].newest() == Moment(1, 9)
    assert named_sets(tmp_path) == {Moment(1, 9)}
    assert [ranks[0].read(Moment(1, 9), rank)["rank"] for rank in range(3)] == [0, 1, 2]


def test_a_last_file_does_not_stand_for_sets_before_it(tmp_path: Path) -> None:
    ranks = stores(tmp_path)
    ranks[0].write(1, {})
    ranks[1].write(2, {}, last=True)
    assert ranks[0].newest() is None
    with pytest.raises(CheckpointError, match=r"rank-00001\.ckpt: missing"):
        ranks[0].read(Moment(1, 1), 1)


def test_nothing_is_written_after_the_last(tmp_path: Path) -> None:
    store = Store(tmp_path, 0, 1)
    store.write(1, {}, last=True)
    with pytest.raises(ProtocolError, match="rank 0 writes checkpoint 2 after its last one"):
        store.write(2, {})


def test_a_dead_rank_is_excused_by_one_witness(tmp_path: Path) -> None:
    ranks = stores(tmp_path, size=4)
    ranks[0].write(1, {})
    ranks[3].write(1, {}, lost=[2])
    assert ranks[0].newest() is None
    ranks[1].write(1, {})
    moment = ranks[0].newest()
    assert moment == Moment(1, 1)
    assert list(ranks[0].headers(moment)) == [0, 1, 3]
    assert json.loads((tmp_path / MANIFEST).read_text())["sets"][0]["lost"] == [2]


def test_a_rank_thought_dead_that_writes_counts(tmp_path: Path) -> None:
    ranks = stores(tmp_path)
    ranks[0].write(1, {}, lost=[1])
    assert list(ranks[0].headers(Moment(1, 1))) == [0]
    ranks[1].write(1, {}, lost=[0])
    assert list(ranks[0].headers(Moment(1, 1))) == [0, 1]
    assert CheckpointFolder(tmp_path).find(Moment(1, 1)).lost == []


def test_a_later_start_is_newer_and_never_mixed(tmp_path: Path) -> None:
    assert latest_start(tmp_path / "nothing") == 0
    first = stores(tmp_path, keep=1)
    for number in (1, 2):
        write_all(first, number)
    first[0].write(3, {"life": 1})
    assert latest_start(tmp_path) == 1
    second = stores(tmp_path, keep=1, start=2)
    second[1].write(3, {"life": 2})
    assert second[0].newest() == Moment(1, 2)
    second[0].write(3, {"life": 2})
    assert second[0].newest() == Moment(2, 3)
    assert folders(tmp_path) == [str(Moment(2, 3))]
    assert latest_start(tmp_path) == 2


def test_a_later_start_may_have_another_size_and_lower_numbers(tmp_path: Path) -> None:
    for rank, store in enumerate(stores(tmp_path, size=3)):
        store.write(9, {"rank": rank}, last=True)
    second = stores(tmp_path, size=2, keep=2, start=2)
    moment = second[0].newest()
    assert moment == Moment(1, 9)
    assert {header.size for header in second[0].headers(moment).values()} == {3}
    write_all(second, 1)
    assert second[0].newest() == Moment(2, 1)
    assert named_sets(tmp_path) == {Moment(1, 9), Moment(2, 1)}
    write_all(second, 2)
    assert folders(tmp_path) == [str(Moment(2, 1)), str(Moment(2, 2))]


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    ranks = stores(tmp_path, keep=1)
    write_all(ranks, 1)
    note = tmp_path / str(Moment(1, 1)) / "note.txt"
    note.write_text("mine")
    (tmp_path / "checkpoint-mine").mkdir()
    write_all(ranks, 2)
    assert files(tmp_path) == [
        f"{Moment(1, 1)}/note.txt",
        f"{Moment(1, 2)}/rank-00000.ckpt",
        f"{Moment(1, 2)}/rank-00001.ckpt",
        MANIFEST,
    ]
    assert (tmp_path / "checkpoint-mine").is_dir()


def test_leftovers_of_killed_writers_go_with_their_set(tmp_path: Path) -> None:
    ranks = stores(tmp_path, keep=1)
    write_all(ranks, 1)
    (tmp_path / str(Moment(1, 1)) / "rank-00000.ckpt.0badf00d.tmp").write_bytes(b"half")
    write_all(ranks, 2)
    assert folders(tmp_path) == [str(Moment(1, 2))]


def test_a_slow_rename_of_an_old_manifest_is_made_good(tmp_path: Path) -> None:
    ranks = stores(tmp_path, keep=2)
    write_all(ranks, 1)
    folder = CheckpointFolder(tmp_path)
    looks = 0

    def complete() -> list[CheckpointSet]:
        nonlocal looks
        looks += 1
        seen = [found for found in folder.sets() if found.complete]
        if looks == 1:  # between this rank's look and its rename the others get on by a set
            (tmp_path / MANIFEST).unlink()
            write_all(ranks, 2)
            assert named_sets(tmp_path) == {Moment(1, 1), Moment(1, 2)}
        return seen

    update_manifest(tmp_path, complete)
    assert named_sets(tmp_path) == {Moment(1, 1), Moment(1, 2)}
    assert looks == 3


def test_ranks_at_once(tmp_path: Path) -> None:
    size, numbers = 4, 12
    ranks = stores(tmp_path, size=size)

    def work(store: Store) -> list[bool]:
        return [store.write(number, {"number": number}) for number in range(1, numbers + 1)]

    with ThreadPoolExecutor(size) as pool:
        written = list(pool.map(work, ranks))
    assert all(all(row) for row in written)
    assert ranks[0].newest() == Moment(1, numbers)
    manifest = named_sets(tmp_path)
    assert manifest == {found.moment for found in CheckpointFolder(tmp_path).sets() if found.complete}
    assert len(manifest) == 2
    assert folders(tmp_path) == sorted(map(str, manifest))
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_file_that_vanished_is_told_from_one_that_never_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ranks = stores(tmp_path)
    write_all(ranks, 1)
    write_all(ranks, 2)
    ranks[0].write(3, {})
    (tmp_path / str(Moment(1, 2)) / "rank-00001.ckpt").unlink()
    with caplog.at_level(logging.WARNING, "consensus"):
        assert ranks[0].newest() == Moment(1, 1)
    (message,) = caplog.messages
    assert str(Moment(1, 2)) in message
    assert "it was complete, and rank-00001.ckpt vanished" in message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"sets": 3}', b'{"sets": [{"start": []}]}', b"null"])
def test_a_damaged_manifest_changes_nothing(tmp_path: Path, content: bytes) -> None:
    ranks = stores(tmp_path)
    write_all(ranks, 1)
    (tmp_path / MANIFEST).write_bytes(content)
    assert ranks[0].newest() == Moment(1, 1)
    write_all(ranks, 2)
    assert named_sets(tmp_path) == {Moment(1, 1), Moment(1, 2)}


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ((0, 2), (1, 2), "start 1, rank 0"),
        ((1, 1), (1, 2), "number 1"),
    ],
)
def test_a_copied_file_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, source: tuple[int, int], target: tuple[int, int], words: str
) -> None:
    ranks = stores(tmp_path)
    write_all(ranks, 1)
    write_all(ranks, 2)
    folder = CheckpointFolder(tmp_path)
    (from_rank, from_number), (rank, number) = source, target
    content = folder.file(Moment(1, from_number), from_rank).read_bytes()
    folder.file(Moment(1, number), rank).write_bytes(content)
    with caplog.at_level(logging.WARNING, "consensus"):
        assert ranks[0].newest() == Moment(1, 1)
    assert words in caplog.text
    with pytest.raises(CheckpointError, match=words):
        ranks[0].read(Moment(1, 2), 1)


def test_files_of_two_runs_are_no_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Store(tmp_path, 0, 2, run="one").write(1, {})
    Store(tmp_path, 1, 2, run="two").write(1, {})
    with caplog.at_level(logging.WARNING, "consensus"):
        assert Store(tmp_path, 0, 2).newest() is None
    assert "2 ranks of run 'one' and 2 ranks of run 'two'" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rank": 2, "size": 2}, "rank = 2, expected 0 to 1"),
        ({"rank": 0, "size": 0}, "size = 0"),
        ({"rank": 0, "size": 1, "keep": 0}, "keep = 0"),
        ({"rank": 0, "size": 1, "start": 0}, "start = 0"),
    ],
)
def test_arguments(tmp_path: Path, arguments: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Store(tmp_path, **arguments)


def test_numbers_below_zero_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="number = -1"):
        Store(tmp_path, 0, 1).write(-1, {})
