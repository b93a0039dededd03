"""Systems from traces: what a simulated run's time models put in comes out; what is not known is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consensus.coding.layout import Layout
from consensus.coding.selection import select
from consensus.coding.system import Edge, System, Worker
from consensus.config import RunConfig
from consensus.errors import ConfigError
from consensus.run import experiment, simulation
from consensus.run.measured_system import FEWEST_STEPS, measured_system
from consensus.run.simulation import simulate
from tests.experiments import in_loopback, small

NBYTES = 100_000
NETWORK: dict[str, Any] = {"latency": 0.0001, "bandwidth": 1e9, "model_bytes": NBYTES}
CONSTANT: dict[str, Any] = {"model": "constant", "seconds": 0.003}
PERSISTENT: dict[str, Any] = {"model": "persistent", "seconds": 0.002, "factor": 10}
TRANSIENT: dict[str, Any] = {"model": "transient", "seconds": 0.01, "probability": 0.1, "factor": 10}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (simulation, experiment):
        monkeypatch.setattr(module, "draw_curves", lambda runs, path: path.touch())


def settings(out: Path, scheme: str, rounds: int = 20, **changes: Any) -> RunConfig:
    """A run file of a master, two edges, and 2 and 3 workers."""
    coding = {"workers_per_edge": [2, 3], "parts": 10, **changes.pop("coding", {})}
    network, run = {**NETWORK, **changes.pop("network", {})}, {"ranks": changes.pop("ranks", 8), **changes.pop("run", {})}
    made = small(
        out,
        f"rounds = {rounds}",
        rule={"name": scheme},
        coding=coding,
        network=network,
        data={"batch": 5},
        **{"stragglers": CONSTANT, **changes},
    )
    return made.model_copy(update={"run": made.run.model_copy(update=run)})


def simulated(out: Path, scheme: str, rounds: int = 20, **changes: Any) -> Path:
    return simulate(settings(out, scheme, rounds, **changes), timing=True)


@pytest.mark.parametrize("scheme", ["uncoded", "worker"])
def test_what_the_models_say_comes_out_whatever_the_loads(tmp_path: Path, scheme: str) -> None:
    network = {"slow": [{"ranks": [0, 2], "factor": 5}, {"ranks": [1, 4], "factor": 3}]}
    run = settings(tmp_path, scheme, network=network, coding={"parts": 11})
    system, parts, notes = measured_system(simulate(run, timing=True))
    assert (parts, system.workers_per_edge, notes) == (11, (2, 3), ())
    link, layout = run.network.build(), Layout((2, 3))
    for edge, rank, own in zip(system.edges, layout.edges, layout.workers, strict=True):
        assert edge.mean_transfers == pytest.approx(2 * link.duration(0, rank, NBYTES), abs=4e-6)
        for worker, below in zip(edge.workers, own, strict=True):
            assert (worker.mean_part, worker.gamma > 1e5) == (pytest.approx(0.003, abs=2e-6), True)
            assert worker.mean_transfers == pytest.approx(2 * link.duration(rank, below, NBYTES), abs=4e-6)


def test_a_code_that_was_chosen_for_a_system(tmp_path: Path) -> None:
    shaky = [Worker(c=0.002, gamma=20.0)] * 3
    System([Edge(workers=shaky[:2]), Edge(workers=shaky)]).write(tmp_path / "system.json")
    coding = {"system": str(tmp_path / "system.json"), "parts": 7}
    folder = simulated(tmp_path, "hgc-jncss", 80, coding=coding, stragglers={**TRANSIENT, "probability": 0.4})
    (tmp_path / "system.json").unlink()
    workers = [worker for edge in measured_system(folder).system.edges for worker in edge.workers]
    assert [worker.measured[0] for worker in workers] == pytest.approx([0.01] * 5, abs=1e-5)
    assert [worker.measured[-1] for worker in workers] == pytest.approx([0.1] * 5, abs=1e-5)


def test_times_that_are_long_now_and_then_are_chosen_for_as_they_are(tmp_path: Path) -> None:
    coding = {"workers_per_edge": [2, 3, 4], "parts": 18}
    folder = simulated(tmp_path, "uncoded", 120, coding=coding, ranks=13, stragglers=TRANSIENT)
    system, parts, _ = measured_system(folder)
    workers = [worker for edge in system.edges for worker in edge.workers]
    assert all(len(worker.measured) > 110 for worker in workers)
    assert all(worker.mean_part == pytest.approx(np.mean(worker.measured)) for worker in workers)
    assert np.unique(np.round([worker.measured for worker in workers], 4)).tolist() == [0.01, 0.1]
    choice = select(system, parts)
    assert (choice.edge_stragglers, choice.worker_stragglers) == (0, 1)
    bare = [Edge(tau=e.tau, workers=[Worker(c=w.c, gamma=w.gamma, tau=w.tau) for w in e.workers]) for e in system.edges]
    by_fit = select(System(bare), parts)
    assert (by_fit.edge_stragglers, by_fit.worker_stragglers) == (0, 0)


def test_a_simulation_chooses_by_draws_and_not_by_their_fit(tmp_path: Path) -> None:
    coding = {"workers_per_edge": [2, 3, 4], "parts": 18}
    folder = simulated(tmp_path, "hgc-jncss", 40, coding=coding, ranks=13, stragglers=TRANSIENT)
    choice = select(*measured_system(folder)[:2])
    assert (choice.edge_stragglers, choice.worker_stragglers) == (0, 1)


def test_a_worker_that_nobody_waits_for(tmp_path: Path) -> None:
    """On ranks, nothing moves while it computes: of its link nothing is known by itself."""
    slow = {**PERSISTENT, "ranks": [4], "factor": 5}
    run = settings(tmp_path, "worker", 70, stragglers=slow, ranks=None)
    system, _, notes = measured_system(in_loopback(run, 8))
    means = [worker.mean_part for edge in system.edges for worker in edge.workers]
    assert means == pytest.approx([0.002] * 4 + [0.01], rel=0.1)
    assert any("links of rank 7 are taken to be like those of other workers" in note for note in notes)


def test_what_was_interrupted_is_left_out_and_said(tmp_path: Path) -> None:
    folder = simulated(tmp_path, "worker", 60, coding={"push": "interrupt"}, stragglers={**TRANSIENT, "probability": 0.3})
    system, _, notes = measured_system(folder)
    assert any("were interrupted" in note and "coding.push = 'wait'" in note for note in notes)
    times = np.concatenate([worker.measured for edge in system.edges for worker in edge.workers if worker.measured])
    assert times.min() == pytest.approx(0.01, abs=1e-5)


def test_on_the_twin_of_ranks(tmp_path: Path) -> None:
    run = settings(tmp_path, "worker", 30, ranks=None)
    system, parts, _ = measured_system(in_loopback(run, 8))
    assert parts == 10
    # What is drawn per part; real computing takes no virtual time.
    workers = [worker for edge in system.edges for worker in edge.workers]
    assert [worker.mean_part for worker in workers] == pytest.approx([0.003] * 5, rel=0.01)


@pytest.mark.parametrize(
    ("scheme", "rounds", "changes", "words"),
    [
        ("flat", 20, {"ranks": 6}, "workers send to the master, and there are no edges"),
        ("uncoded", FEWEST_STEPS, {}, f"expected {FEWEST_STEPS}; record a longer run"),
        ("worker", 40, {"stragglers": {**PERSISTENT, "ranks": [4]}}, r"rank 7 sent too few vectors, rank 7 the least: \d"),
        ("hgc", 40, {"network": {"slow": [{"ranks": [0, 2], "factor": 50}]}}, r"vectors of rank 2, .* --set rule.name=uncoded"),
        ("uncoded", 20, {"run": {"trace": False}}, "no traces, run.trace was off"),
        ("uncoded", 20, {"coding": {"parts": 3}}, r"ranks? [\d, ]+ had no part"),
    ],
)
def test_a_run_that_does_not_tell_enough(tmp_path: Path, scheme: str, rounds: int, changes: dict[str, Any], words: str) -> None:
    folder = simulated(tmp_path, scheme, rounds, **changes)
    with pytest.raises(ConfigError, match=words) as caught:
        measured_system(folder)
    assert str(folder) in str(caught.value)


def test_files_that_are_missing_or_of_another_run(tmp_path: Path) -> None:
    folder = simulated(tmp_path, "uncoded")

    def without(name: str, replacement: str | None = None) -> Path:
        copy = Path(shutil.copytree(folder, tmp_path / f"without-{name}"))
        if replacement is None:
            (copy / name).unlink()
        else:
            (copy / name).write_text((copy / name).read_text(encoding="utf-8").replace(*replacement.split(">")), encoding="utf-8")
        return copy

    with pytest.raises(ConfigError, match="no trace of rank 5"):
        measured_system(without("trace-5.jsonl"))
    with pytest.raises(ConfigError, match="no summary.json: the run has not come to its end"):
        measured_system(without("summary.json"))
    with pytest.raises(ConfigError, match="2 parts per worker and .* does not give: the files are of different runs"):
        measured_system(without("config.toml", '"uncoded">"hgc"'))


def test_a_run_without_coded_gradients(tmp_path: Path) -> None:
    settings = small(tmp_path, network=NETWORK)
    folder = simulate(settings.model_copy(update={"run": settings.run.model_copy(update={"ranks": 4})}), timing=True)
    with pytest.raises(ConfigError, match="a run with rule 'dtur', expected one with coded gradients"):
        measured_system(folder)
