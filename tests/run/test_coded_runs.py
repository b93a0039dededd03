"""Experiments with coded gradients: on the in-process twin, on the virtual clock, and against what they equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consensus import trace
from consensus.cli.contest import Contest
from consensus.cli.entrants import entrants
from consensus.coding import GradientCode
from consensus.coding.system import Edge, System, Worker
from consensus.config import RunConfig
from consensus.config.coding import CODED_RULES, Coding
from consensus.errors import ConfigError, DataError, NonFiniteLoss
from consensus.report.load import load_run
from consensus.report.words import facts
from consensus.run import experiment, simulation
from consensus.run.parts import Parts
from consensus.run.prepare import prepare
from consensus.run.results import read_metrics
from consensus.run.rows import mean_backups, trainers
from consensus.run.simulation import simulate
from tests.experiments import in_loopback, small, summary_of
from tests.ranks import ROOT

DOCUMENTED = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
LAYOUT = {"workers_per_edge": [2, 3], "parts": 10, "payload": "float64"}
EXACT = [scheme for scheme in CODED_RULES if scheme != "greedy"]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (simulation, experiment):
        monkeypatch.setattr(module, "draw_curves", lambda runs, path: path.touch())


def size_of(scheme: str) -> int:
    return 6 if scheme == "flat" else 8


def coded(out: Path, scheme: str, stop: str = "rounds = 6", **changes: dict[str, Any]) -> RunConfig:
    coding = {**LAYOUT, **changes.pop("coding", {})}
    # Four batches of five are all that a part has.
    return small(out, stop, rule={"name": scheme}, coding=coding, data={"batch": 5}, **changes)


def of(settings: RunConfig, size: int) -> RunConfig:
    return settings.model_copy(update={"run": settings.run.model_copy(update={"ranks": size})})


def system_file(folder: Path) -> str:
    workers = [Worker(c=0.002, gamma=900.0)] * 3
    path = folder / "system.json"
    path.write_text(json.dumps(System([Edge(workers=workers[:2]), Edge(workers=workers)]).to_dict()))
    return str(path)


@pytest.mark.parametrize("scheme", CODED_RULES)
def test_a_run(tmp_path: Path, scheme: str) -> None:
    coding = {"system": system_file(tmp_path)} if scheme == "hgc-jncss" else {}
    size = size_of(scheme)
    folder = in_loopback(coded(tmp_path, scheme, coding=coding), size)
    summary = summary_of(folder)
    told = [summary[key] for key in ("architecture", "topology", "server", "ended", "consensus_distance")]
    assert [summary["rule"], *told] == [{"name": scheme}, "coded", None, None, "rounds", 0.0]
    of_code = summary["coding"]
    assert of_code["updates"] == summary["rounds"][0] == 6
    assert (of_code["workers_per_edge"], of_code["parts"], of_code["payload"]) == ([2, 3], 10, "float64")
    assert all(f"`{key}`" in DOCUMENTED for key in ("coding", *of_code))
    if scheme != "greedy":
        assert of_code["worst_residual"] < 1e-9
        assert summary["samples"] == 6 * 10 * 5
    assert len(trainers(summary)) == 5
    updates = trace.read(folder / "trace-0.jsonl").rounds
    assert len(updates) == 6
    assert mean_backups(summary) == pytest.approx(np.mean([len(update.backups) for update in updates]))
    lines = read_metrics(folder)
    assert (lines[-1].rounds, lines[-1].samples) == (6, summary["samples"])
    run = load_run(folder)
    assert len(run.edges) == size - 1
    assert facts(run)["topology"].startswith("a master, ")


def test_all_exact_schemes_are_one_process_wherever_they_run(tmp_path: Path) -> None:
    """Whatever the scheme and whoever is late, the model is that of the mean gradient over all parts."""
    optimizer = {"lr": 0.3, "momentum": 0.5, "clip_norm": 0.5, "scheduler": {"name": "exponentiallr", "gamma": 0.9}}
    changes: dict[str, Any] = {"optimizer": optimizer, "stragglers": {"model": "pareto", "scale": 0.001, "shape": 1.2}}
    found = []
    for scheme in EXACT:
        settings = coded(tmp_path, scheme, **changes)
        found.append(summary_of(simulate(of(settings, size_of(scheme))))["final"]["loss"])
        if scheme in ("hgc", "flat"):
            found.append(summary_of(in_loopback(settings, size_of(scheme)))["final"]["loss"])
    # Ten workers of one part each, all waited for.
    alone = small(tmp_path, rule={"name": "bsp"}, data={"batch": 5}, **changes)
    found.append(summary_of(simulate(of(alone, 11)))["final"]["loss"])
    assert found == pytest.approx([found[0]] * len(found), rel=1e-5)


def test_a_simulation_is_a_function_of_its_seed(tmp_path: Path) -> None:
    folders = [simulate(of(coded(tmp_path / name, "hgc"), 8)) for name in "ab"]
    for name in ("metrics.jsonl", *(f"trace-{rank}.jsonl" for rank in range(8))):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


@pytest.mark.parametrize("where", ["twin", "simulator"])
def test_ends(tmp_path: Path, where: str) -> None:
    def run(stop: str) -> dict[str, Any]:
        settings = coded(tmp_path, "hgc", stop)
        return summary_of(in_loopback(settings, 8) if where == "twin" else simulate(of(settings, 8)))

    by_samples = run("samples = 101")
    assert (by_samples["ended"], by_samples["samples"], by_samples["rounds"][0]) == ("samples", 150, 3)
    by_time = run("seconds = 0.05")
    assert by_time["ended"] == "seconds"
    assert by_time["wall_seconds"] >= 0.05
    by_target = run("seconds = 1000, target = { value = 0.5 }")
    assert by_target["ended"] == "target"
    assert by_target["final"]["accuracy"] > 0.4
    if where != "twin":  # whose clock is the machine's
        assert by_time["wall_seconds"] < 0.3
        assert by_target["rounds"][0] < 200


def test_a_layout_says_how_many_ranks_there_are(tmp_path: Path) -> None:
    settings = coded(tmp_path, "hgc", "rounds = 1")
    assert (settings.run.ranks, settings.size, coded(tmp_path, "flat").size) == (None, 8, 6)
    assert summary_of(simulate(settings))["ranks"] == 8
    assert small(tmp_path, rule={"name": "hgc"}).size is None


def test_timing_alone(tmp_path: Path) -> None:
    summary = summary_of(simulate(of(coded(tmp_path, "hgc"), 8), timing=True))
    assert summary["final"] == {"accuracy": None, "loss": None}
    assert summary["samples"] == 6 * 10 * 5
    trained = summary_of(simulate(of(coded(tmp_path, "hgc"), 8)))
    assert trained["wall_seconds"] == pytest.approx(summary["wall_seconds"], rel=0.01)


def test_names_say_the_architecture_and_the_section_the_scheme(tmp_path: Path) -> None:
    base = small(tmp_path).model_dump(exclude_unset=True, by_alias=True)
    for tables in (
        {"architecture": "coded"},
        {"coding": {"scheme": "hgc"}},
        {"rule": {"name": "hgc"}},
        {"architecture": "coded", "rule": {"name": "hgc"}, "coding": {"scheme": "flat"}},
    ):
        config = RunConfig.model_validate({**base, **tables})
        assert (config.kind, config.rule.name, config.coding.scheme) == ("coded", "hgc", "hgc")


@pytest.mark.parametrize(("size", "relayed", "flat"), [(3, (1,), (2,)), (8, (3, 3), (3, 4)), (13, (3, 3, 3), (4, 4, 4))])
def test_layouts_for_any_number_of_ranks(size: int, relayed: tuple[int, ...], flat: tuple[int, ...]) -> None:
    coding = Coding()
    found = coding.layout("hgc", size).workers_per_edge
    assert sum(found) + len(found) + 1 == size
    assert max(found) - min(found) <= 1
    if size != 8:
        assert found == relayed
    found = coding.layout("flat", size).workers_per_edge
    assert sum(found) == size - 1


def test_layouts_and_sizes_agree() -> None:
    for scheme in ("hgc", "flat"):
        for workers in range(1, 60):
            layout = Coding().layout(scheme, Coding().size(scheme, workers))
            assert sum(layout.workers_per_edge) == workers


def test_in_a_comparison_equally_many_train(tmp_path: Path) -> None:
    changes = ["run.ranks=8", f"run.out={tmp_path}", "coding.edge_stragglers=1", "server.push='interrupt'"]
    contest = Contest("digits", entrants("full,bsp,hgc,flat"), changes, 1)
    configs = contest.configs()
    assert [(config.run.ranks, config.workers(config.run.ranks or 0)) for config in configs] == [(8, 8), (9, 8), (12, 8), (9, 8)]
    assert [config.shares(config.run.ranks or 0) for config in configs] == [8, 8, 8, 8]
    assert configs[1].server.push == "interrupt"
    assert configs[2].coding.edge_stragglers == 1


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({}, 9, r"coding.workers_per_edge = [2, 3]: takes 8 ranks (a master, 2 edges and 5 workers), but there are 9; start 8"),
        ({"coding": {"edge_stragglers": 2}}, 8, "coding: edge_stragglers = 2: expected 0 to 1"),
        ({"coding": {"worker_stragglers": 2}}, 8, "coding: worker_stragglers = 2: expected 0 to 1"),
        ({"coding": {"payload": "bfloat16", "worker_stragglers": 2, "workers_per_edge": [4, 4]}}, 11, "payload bfloat16: the"),
        ({"exchange": {"every": 2}}, 8, "exchange.every = 2: does not apply to coded gradients"),
        ({"run": {"on_nan": "ignore"}}, 8, "run.on_nan = 'ignore': a coded gradient with a NaN"),
        ({"server": {"servers": 2}}, 8, "server: rule 'hgc' has no server"),
        ({"stragglers": {"model": "persistent", "seconds": 0.1, "ranks": [5], "factor": 2}}, 8, "stragglers.ranks"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], size: int, words: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        coded(tmp_path, "hgc", **changes).check(size)
    assert words in str(caught.value)


def test_sections_without_a_purpose_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="coding: rule 'dtur' codes nothing"):
        small(tmp_path, rule={"name": "dtur"}, coding={"parts": 3})
    with pytest.raises(ValueError, match="hgc takes no parameters, got s_e; what a scheme takes is in the section"):
        small(tmp_path, rule={"name": "hgc", "s_e": 3})
    base = small(tmp_path).model_dump(exclude_unset=True, by_alias=True)
    with pytest.raises(ValueError, match="architecture = 'coded': rule 'dtur' is of another kind.*rule.name=hgc"):
        RunConfig.model_validate({**base, "architecture": "coded", "rule": {"name": "dtur"}})


def test_a_part_without_data_is_refused(tmp_path: Path) -> None:
    config = coded(tmp_path, "hgc", coding={"parts": 300})
    with pytest.raises(DataError, match=r"samples"):
        Parts(config, prepare(config, 0, 8), 8)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_part(tmp_path: Path) -> None:
    settings = coded(tmp_path, "uncoded", "rounds = 400", optimizer={"lr": 1e38})
    with pytest.raises(NonFiniteLoss, match=r"the (loss|gradient) of (part \d+ is|rank \d+ at step)"):
        simulate(of(settings, 8))


def test_the_selected_code_needs_to_know_the_system(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="system: missing; scheme 'hgc-jncss' chooses by what each node takes"):
        in_loopback(coded(tmp_path, "hgc-jncss"), 8)
    with pytest.raises(ConfigError, match=r"system.json.*No such file"):
        coded(tmp_path, "hgc-jncss", coding={"system": str(tmp_path / "system.json")}).check(8)
    system = system_file(tmp_path)
    with pytest.raises(ConfigError, match=r"describes \[2, 3\] workers per edge, but the layout has \[3, 2\]"):
        coded(tmp_path, "hgc-jncss", coding={"system": system, "workers_per_edge": [3, 2]}).check(8)


def test_the_selected_code_suits_the_payload(tmp_path: Path) -> None:
    """Of five workers three are slow: one that loses three is the quickest, and amplifies too much for bfloat16."""
    quick, slow = Worker(c=0.001), Worker(c=1.0)
    System([Edge(workers=[quick, quick, slow, slow, slow])]).write(tmp_path / "system.json")
    layout = {"system": str(tmp_path / "system.json"), "workers_per_edge": [5], "parts": 10}

    def chosen(**more: Any) -> GradientCode:
        return coded(tmp_path, "hgc-jncss", coding={**layout, **more}).code(7)

    assert (chosen().load, chosen(payload="bfloat16", any_kappa=True).load) == (8, 8)
    assert chosen().kappa > 4
    # To lose four, each computes everything.
    assert (chosen(payload="bfloat16").load, chosen(payload="bfloat16").kappa) == (10, 1.0)
    # Nor is there a code of plain sums that loses three.
    assert (chosen(kind="ones").load, chosen(kind="ones").kappa) == (10, 1.0)


def test_the_selection_knows_what_busy_workers_do(tmp_path: Path) -> None:
    """By chance somebody is always late. That can be made up for unless who is late stays behind."""
    System([Edge(workers=[Worker(c=0.001, gamma=25.0)] * 3)]).write(tmp_path / "system.json")
    layout = {"system": str(tmp_path / "system.json"), "workers_per_edge": [3], "parts": 3}
    loads = {push: coded(tmp_path, "hgc-jncss", coding={**layout, "push": push}).code(5).load for push in ("wait", "interrupt")}
    assert loads == {"wait": 1, "interrupt": 3}
