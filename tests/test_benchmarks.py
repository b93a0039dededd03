"""The parts of the benchmarks that measure nothing: tables, statistics, verdicts, and what becomes of given times."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

from benchmarks import cpu, machine, markdown, memory, overhead, recording, regimes, stats, storage, stragglers
from benchmarks.__main__ import BENCHMARKS, KEPT, Skipped, main, mnist
from consensus.config import load
from consensus.errors import ConfigError, LaunchError
from tests.ranks import ROOT

PURE = ["sizes", "stats", "markdown", "storage", "stragglers", "regimes", "ranks.sampler"]


@pytest.mark.parametrize("name", PURE)
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"benchmarks.{name}"), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def names_of(path: Path) -> set[str]:
    """What a module defines or imports at its top level."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_what_benchmarks_import_is_there(path):
    """Most of them run under MPI alone, where no other test does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("consensus"):
            continue
        module = ROOT.joinpath(*node.module.split("."))
        source = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        below = {each.stem for each in module.iterdir()} if module.is_dir() else set()
        missing = {alias.name for alias in node.names} - names_of(source) - below
        assert not missing, f"{path.name} imports {missing} from {node.module}"


def blocks(bare, ours, step, step_ours, step_ddp):
    return {"bare": bare, "ours": ours, "step": step, "step_ours": step_ours, "step_ddp": step_ddp}


def test_overhead_is_judged_from_blocks_next_to_each_other():
    slow_machine_in_the_second_block = blocks([1e-3, 9e-3], [2e-3, 18e-3], [5e-3, 5e-3], [8e-3, 8e-3], [15e-3, 15e-3])
    o = overhead.digest(slow_machine_in_the_second_block)
    assert (o.bare, o.ours, o.to_bare) == pytest.approx((5.0, 10.0, 2.0))
    assert (o.ours_adds, o.ddp_adds, o.to_ddp, o.adds_to_ddp) == pytest.approx((3.0, 10.0, 1.0, 0.3))


@pytest.mark.parametrize(("parameters", "word"), [(269_322, "no target"), (5_824_522, "met")])
def test_overhead_has_targets_for_large_models_only(parameters, word):
    seconds = blocks([1.0] * 3, [1.1] * 3, [5.0] * 3, [6.0] * 3, [9.0] * 3)
    text = overhead.report({"cases": [{"size": "s", "parameters": parameters, "ranks": 2, "seconds": seconds}]})
    row = text.splitlines()[2]
    assert row.count(f"| {word} |") == 2
    assert "| 1100.00 | 1.10 (1.10 to 1.10) |" in row


def test_cpu_leaves_out_pauses_and_the_plain_loop():
    shares = {"engine": 0.04, "transport": 0.05, "mixing": 0.02, "loop": 0.03, "waiting": 0.86}
    case = {"topology": "ring", "ranks": 2, "shares": shares, "seconds": {"plain": [5e-6], "attached": [1000e-6]}}
    cost = cpu.digest(case)
    assert cost.busy == pytest.approx(135)
    assert cost.everything == pytest.approx(995)
    assert "| ring of 2 | 135 | met | 40 | 50 | 20 | 30 | 995 |" in cpu.report({"cases": [case]})


def test_memory_is_that_of_the_rank_that_took_most():
    mib = memory.MIB
    peaks = [110 * mib, 110 * mib]
    rank = {"before": 100 * mib, "peaks": peaks, "model": 4 * mib, "windows": 3 * mib, "edges": 2, "shared": None}
    greedy = {**rank, "peaks": [115 * mib, 116 * mib]}
    m = memory.digest([rank, greedy])
    assert (m.grown, m.planned, m.later) == ([15, 16], 11, 1)
    text = memory.report({"rounds": [10, 20], "cases": [{"size": "s", "topology": "ring", "ranks": [rank, greedy]}]})
    assert text.splitlines()[2] == "| s | ring | 2 | 100 | 15.0 | 16.0 | 11.0 | 1.0 | – |"


def test_recording_is_judged_against_a_round_of_5_ms():
    case = {"topology": "ring", "ranks": 8, "rule": "full", "edges": 2, "events": 8.0, "bytes": 2**16}
    text = recording.report({"cases": [{**case, "seconds": [16e-6] * 3}, {**case, "seconds": [120e-6] * 3}]})
    fast, slow = text.splitlines()[2:]
    assert fast == "| ring of 8, full | 2 | 8.0 | 2.00 | 16.0 (16.0 to 16.0) | 0.32% | met | 1.6% | 65536 | 1 |"
    assert "| 2.40% | missed |" in slow


def test_recording_is_measured_on_what_happened():
    result = recording.run(recording.Scale(cases=(("ring", 3, "full"),), rounds=5, passes=2))
    (case,) = result["cases"]
    assert case["edges"] == 2
    assert case["events"] > 5
    assert all(seconds > 0 for seconds in case["seconds"])
    assert 100 < case["bytes"] < 1000


def contest(**times_to_93):
    cases = [
        {
            "scenario": "transient",
            "seed": seed,
            "rule": rule.replace("_b", " b="),
            "targets": {".9": 1.0, ".93": time, ".95": None},
            "steps": 100 * seed,
            "curve": [[1.0, 0.5], [2.0, 0.6]],
        }
        for rule, times in times_to_93.items()
        for seed, time in enumerate(times, 1)
    ]
    return {"seconds": 16.0, "ranks": 8, "cases": cases}


def test_straggler_targets_are_medians_of_the_seeds_own_ratios():
    result = contest(dtur=[4.0, 8.0, 6.0], full=[8.0, 20.0, 10.0])
    (claim,) = stragglers.targets(result, "transient")
    assert str(claim.ratio) == "0.50"
    assert claim.met


@pytest.mark.parametrize(
    ("dtur", "full", "met"),
    [
        ([8.0], [None], True),  # at most 0.5, whenever full would have got there
        ([12.0], [None], None),  # at most 0.75: too short a run to tell
        ([None], [8.0], False),
        ([None], [None], None),
        ([6.0], [8.0], False),
    ],
)
def test_a_target_that_was_not_reached_in_time(dtur, full, met):
    (claim,) = stragglers.targets(contest(dtur=dtur, full=full), "transient")
    assert claim.met is met


def test_the_best_rule_tuned_by_hand_is_found():
    result = {**contest(dtur=[6.0], ddp=[None]), "seconds": 16.0}
    for b, time in ((1, 9.0), (4, 5.0)):
        (case,) = contest(x=[time])["cases"]
        result["cases"].append({**case, "rule": f"static_backup b={b}"})
    claims = {claim.words: claim for claim in stragglers.targets(result, "transient")}
    tuned = claims["dtur / static_backup b=4, the best tuned by hand"]
    assert str(tuned.ratio) == "1.20"
    assert tuned.met


def test_straggler_table_and_picture(tmp_path):
    result = contest(ddp=[None, None, None], full=[8.0, 9.0, None], dtur=[4.0, 4.5, 5.0])
    text = stragglers.report(result)
    assert "| full | 200 | 1.00 | 9.00 | – | 1.00 | < 0.56 |" in text
    assert "| dtur / ddp | < 0.28 | 0.45 | met |" in text
    (picture,) = stragglers.draw(result, tmp_path / "figures")
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize("scenario", stragglers.SCENARIOS)
@pytest.mark.parametrize("rule", [name for name, settings in stragglers.RULES.items() if settings is not None])
def test_scenarios_and_rules_are_run_files(scenario, rule):
    config = load(stragglers.RUN_FILE, [*stragglers.SCENARIOS[scenario], *stragglers.RULES[rule]])
    config.check(8)
    assert rule.startswith(config.rule.name)


def test_results_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "results" / "cpu.json"
    result = {"benchmark": "cpu", "machine": {"a": 1}, "cases": [{"x": [1, 2]}, {"x": None}]}
    storage.write(path, result)
    assert storage.read(path) == result


def test_the_document_has_a_place_for_every_benchmark():
    text = (KEPT / "README.md").read_text(encoding="utf-8")
    for name in BENCHMARKS:
        assert f"\n\nsomething\n\n{markdown.end(name)}" in markdown.replaced(text, name, "something")


def test_a_document_without_markers():
    with pytest.raises(ConfigError, match="expected the lines '<!-- cpu: begin"):
        markdown.replaced("no markers", "cpu", "table")


def test_processor_name(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast One\n")
    assert machine.processor(cpuinfo) == "Fast One"
    assert machine.processor(tmp_path / "none")


def test_machine_in_a_sentence():
    described = machine.describe("python -m benchmarks cpu")
    assert machine.sentence(described, "Open MPI v5").endswith("`python -m benchmarks cpu`")


def test_without_mnist_the_straggler_benchmark_is_skipped(tmp_path):
    with pytest.raises(Skipped, match="no MNIST files in .*; give the folder"):
        mnist(None, {"CONSENSUS_TEST_DATA": str(tmp_path)})


@pytest.mark.parametrize("below", [".", "mnist", "MNIST/raw"])
def test_mnist_is_found(tmp_path, below):
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train-images-idx3-ubyte.gz").touch()
    assert mnist(tmp_path) == folder.resolve()


def test_an_unknown_benchmark(capsys):
    with pytest.raises(SystemExit):
        main(["memmory"])
    assert "unknown benchmark memmory; there are overhead, cpu" in capsys.readouterr().err


def test_results_of_a_quick_run_stay_out_of_the_document(tmp_path, monkeypatch, capsys):
    before = (KEPT / "README.md").read_bytes()
    monkeypatch.setattr("benchmarks.__main__.TRIED", tmp_path)
    shares = dict.fromkeys(("engine", "transport", "mixing", "loop", "waiting"), 0.2)
    case = {"topology": "ring", "ranks": 2, "shares": shares, "seconds": {"plain": [0.0], "attached": [1e-4]}}
    monkeypatch.setattr("benchmarks.cpu.launch", lambda *arguments, **keywords: {"mpi": "Some MPI", **case})
    assert main(["cpu", "--quick"]) == 0
    assert "| ring of 2 | 80 | met |" in capsys.readouterr().out
    assert storage.read(Path(tmp_path, "results", "cpu.json"))["mpi"] == "Some MPI"
    assert (KEPT / "README.md").read_bytes() == before


def test_a_benchmark_that_fails_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    def fail(*arguments, **keywords):
        raise LaunchError("no mpirun found")

    monkeypatch.setattr("benchmarks.__main__.TRIED", tmp_path)
    monkeypatch.setattr("benchmarks.cpu.launch", fail)
    monkeypatch.setattr("benchmarks.memory.launch", fail)
    assert main(["cpu", "memory", "--quick"]) == 1
    said = capsys.readouterr().err
    assert "cpu: failed: no mpirun found" in said
    assert "memory: failed: no mpirun found" in said


def test_no_mark_is_thinned_out():
    for scale in (stragglers.FULL, stragglers.QUICK):
        marks = scale.seconds / load(stragglers.RUN_FILE).evaluation.every
        assert 1.5 * marks < stragglers.MARKS


def test_ratios_of_one_block():
    assert stats.spread([2.0]) == (2.0, 2.0, 2.0)


def regime_row(rule, errors, *, times="1 in 50 stalls 1 s", step_scale=False, lr=regimes.LR, mean_errors=(0.5, 0.25)):
    case = regimes.Case("complete of 8", times, "alike", rule, 1, 2.0, step_scale, lr)
    return {**case.__dict__, "errors": errors, "mean_errors": list(mean_errors)}


def test_regimes_tell_each_rules_time_in_units_of_the_best():
    falling = [40.0] * 4 + [1.0] * 12
    later = [40.0] * 8 + [1.0] * 8
    rows = [regime_row("full", [1.0] * 16, times=None)]
    rows += [regime_row(rule, falling if rule == "gap" else later) for rule in regimes.RULES if rule != "dtur"]
    rows += [regime_row("dtur", [40.0] * 16)]
    for scaled, settled in ((False, 0.5), (True, 0.125)):
        rows.append(regime_row("gap", falling, step_scale=scaled, lr=regimes.LR / 2, mean_errors=(1.0, settled)))
    race = regimes.races({"cases": rows})["complete of 8", "1 in 50 stalls 1 s", "alike"]
    assert (race["gap"], race["full"], race["dtur"]) == (2.0, 3.0, float("inf"))
    text = regimes.report({"cases": rows})
    assert "| complete of 8, 1 in 50 stalls 1 s | alike | 2.00 | 1.50 | 1.50 | 1.50 | 1.50 | – | 1.50 | 1.00 | 1.50 |" in text
    assert "| gap | 0.5000 | 0.1250 |" in text


def test_a_small_race_is_a_function_of_its_case():
    case = regimes.Case("complete of 8", "exponential", "alike", "patience", 1, 1.0, step_scale=True)
    assert regimes.simulate(case) == regimes.simulate(case)
