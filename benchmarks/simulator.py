"""(e) How fast the simulator is: events a second, growth with the number of workers, announcements to all, against SimPy."""

from __future__ import annotations

import gc
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from benchmarks.jobs import ROOT, say
from benchmarks.markdown import table, verdict
from benchmarks.stats import ratios, spread
from consensus import rules, timing, topology
from consensus.errors import LaunchError
from consensus.sim.network import Network, OnRound
from consensus.sim.pages import enlarge
from consensus.timing import Link, Stream

LINK = Link(latency=1e-4, bandwidth=1e9)
MODEL_BYTES = 1_000_000
TRANSIENT = {"model": "transient", "seconds": 0.02, "probability": 0.05, "factor": 10}
EXPONENTIAL = {"model": "shifted_exponential", "shift": 0.01, "mean": 0.01}

EVENTS_PER_SECOND = 150_000
TO_SIMPY = 3.0
SECONDS, GIBIBYTES = 60.0, 2.0


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    ``workers`` make ``rounds`` rounds each under static_backup, ``most`` of them ``most_rounds``; ``announcers`` run under dtur
    for ``virtual_seconds``. ``small`` networks of ``small_workers`` in turns, one of them, and one as large as all of them run
    for ``small_seconds`` of their clocks, ``small_times`` each.
    """

    workers: tuple[int, ...] = (100, 300, 1000, 3000, 10_000)
    rounds: int = 20
    most: int = 10_000
    most_rounds: int = 100
    announcers: tuple[int, ...] = (100, 300, 1000)
    virtual_seconds: float = 0.1
    small: int = 100
    small_workers: int = 100
    small_seconds: float = 0.25
    small_times: int = 3
    passes: int = 7
    pass_rounds: int = 200


QUICK = Scale(
    workers=(100, 1000), most=1000, most_rounds=20, announcers=(100,), small=10, small_times=1, passes=3, pass_rounds=50
)

SLICE = 1e-4
"""Networks that take turns get so much of their clocks at a time, seconds: a few events, so that caches keep no network."""


def run(scale: Scale) -> dict[str, Any]:
    """Measure; cases of their own size in processes of their own, so that memory is theirs."""
    growth = []
    for workers in scale.workers:
        say(f"simulator: {workers} workers, static_backup")
        growth.append(_apart({"workers": workers, "rule": "static_backup", "compute": TRANSIENT, "rounds": scale.rounds}))
    say(f"simulator: {scale.most} workers, {scale.most_rounds} rounds each")
    most = _apart({"workers": scale.most, "rule": "static_backup", "compute": TRANSIENT, "rounds": scale.most_rounds})
    pending = _pending(scale)
    flood = []
    for workers in scale.announcers:
        for rule in ("dtur", "gap"):
            say(f"simulator: {workers} workers, {rule}")
            flood.append(_apart({"workers": workers, "rule": rule, "compute": TRANSIENT, "until": scale.virtual_seconds}))
    say("simulator: 64 workers, in turns with SimPy")
    against = _against_simpy(scale)
    cases = {"growth": growth, "most": most, "pending": pending, "flood": flood, "simpy": against}
    return {"mpi": f"SimPy {version('simpy')}", **cases}


def network(
    workers: int,
    rule: str,
    compute: dict[str, Any],
    rounds: int | None,
    *,
    seed: int = 1,
    on_round: OnRound | None = None,
    **parameters: Any,
) -> Network:
    """Timing alone on a random 4-regular graph, under a rule with its parameters; without a number of rounds it has no end."""
    limit = rounds if rounds is not None else sys.maxsize
    return Network(
        graph(workers),
        rules.build(rule, **parameters),
        _streams(compute, workers, seed),
        LINK,
        stop=lambda rank, done: done >= limit,
        model_bytes=MODEL_BYTES,
        on_round=on_round,
    )


def _streams(compute: dict[str, Any], workers: int, seed: int) -> list[Stream]:
    parameters = dict(compute)
    model = timing.build(parameters.pop("model"), **parameters)
    return [model.stream(rank, seed) for rank in range(workers)]


def graph(workers: int) -> dict[int, tuple[int, ...]]:
    """The graph of all cases."""
    built = topology.build("random_regular", workers, seed=1, degree=4)
    return {rank: tuple(sorted(built[rank])) for rank in sorted(built)}


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One case, in this process."""
    began = time.perf_counter()
    simulated = network(case["workers"], case["rule"], case["compute"], case.get("rounds"))
    built, processor = time.perf_counter(), time.process_time()
    if "until" in case:
        simulated.run(case["until"])
    else:
        simulated.run()
    return {
        **case,
        "build_seconds": built - began,
        "seconds": time.perf_counter() - built,
        "processor_seconds": time.process_time() - processor,
        "events": simulated.kernel.events,
        "rounds_made": sum(engine.view.round for engine in simulated.engines),
        "virtual_seconds": simulated.kernel.now,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def take_turns(case: dict[str, Any]) -> dict[str, Any]:
    """Several networks, each with a clock of its own, that take turns in one process: their memory is that of one large network,
    while each has few events pending."""
    networks = [
        network(case["workers"], "static_backup", case["compute"], None, seed=1 + number) for number in range(case["networks"])
    ]
    slices = range(1, 1 + round(case["until"] / SLICE))
    if case["large_pages"]:
        enlarge()
    gc.disable()  # as Network.run does
    began = time.process_time()
    for number in slices:
        for simulated in networks:
            simulated.kernel.run(number * SLICE)
    seconds = time.process_time() - began
    return {
        **case,
        "processor_seconds": seconds,
        "events": sum(simulated.kernel.events for simulated in networks),
        "pending": statistics.mean(simulated.kernel.pending for simulated in networks),
    }


def _pending(scale: Scale) -> list[dict[str, Any]]:
    cases = []
    many, few = scale.small, scale.small_workers
    for name, compute in (("transient", TRANSIENT), ("exponential", EXPONENTIAL)):
        say(f"simulator: {many} networks of {few} workers, and one of {many * few}, {name} steps")
        for _ in range(scale.small_times):
            for networks, workers, large in ((1, few, False), (many, few, False), (1, many * few, False), (1, many * few, True)):
                case = {"networks": networks, "workers": workers, "compute": compute, "large_pages": large}
                cases.append({"steps": name, **_apart({**case, "until": scale.small_seconds})})
    return cases


def _apart(case: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.simulator", json.dumps(case)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise LaunchError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return dict(json.loads(done.stdout))


def _against_simpy(scale: Scale) -> dict[str, Any]:
    # Imported here: only this case needs it.
    from benchmarks.simpy_network import SimpyNetwork

    workers, rounds = 64, scale.pass_rounds
    passes = []
    for number in range(scale.passes):
        ours = network(workers, "static_backup", EXPONENTIAL, rounds, seed=number)
        taken = {"ours": _processor(ours.run)}
        ends = [[max(ours.ended_at), sum(ours.bytes_sent(rank) for rank in range(workers))]]
        for idiom, bare in (("documented", False), ("bare", True)):
            theirs = SimpyNetwork(
                graph(workers),
                [iter(stream) for stream in _streams(EXPONENTIAL, workers, number)],
                rounds=rounds,
                b=1,
                control=LINK.duration(0, 1, ours.control_bytes),
                model=LINK.duration(0, 1, MODEL_BYTES),
                bare=bare,
            )
            taken[idiom] = _processor(theirs.run)
            ends.append([theirs.ended, theirs.messages * ours.control_bytes + 2 * theirs.swaps * MODEL_BYTES])
        passes.append({**taken, "events": ours.kernel.events, "ends": ends})
    return {"workers": workers, "rounds": rounds, "passes": passes}


def _processor(run: Callable[[], None]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def report(result: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    return "\n".join([_growth(result), _by_pending(result["pending"]), _flood(result["flood"]), _simpy(result["simpy"])])


def _row(case: dict[str, Any]) -> list[object]:
    events, seconds = case["events"], case["processor_seconds"]
    rounds = case["rounds_made"] / case["workers"]
    numbers = [
        f"{rounds:.0f}",
        f"{events / 1e6:.2f}",
        f"{seconds:.1f}",
        f"{1e6 * seconds / events:.2f}",
        f"{events / seconds:,.0f}",
    ]
    return [case["workers"], *numbers, f"{case['peak_bytes'] / 2**30:.2f}"]


_HEADER = ("workers", "rounds each", "events, M", "processor, s", "per event, µs", "events a second", "peak, GiB")


def _growth(result: dict[str, Any]) -> str:
    most = result["most"]
    met = most["processor_seconds"] < SECONDS and most["peak_bytes"] < GIBIBYTES * 2**30
    text = table(_HEADER, [_row(case) for case in [*result["growth"], most]])
    return f"{text}\nTarget of the last row, {SECONDS:g} s and {GIBIBYTES:g} GiB: {verdict(met)}.\n"


def _kind(case: dict[str, Any]) -> tuple[int, int, bool]:
    return case["networks"], case["workers"], case["large_pages"]


def _by_pending(cases: Sequence[dict[str, Any]]) -> str:
    rows = []
    for steps in dict.fromkeys(case["steps"] for case in cases):
        costs, pending = {}, {}
        for key in dict.fromkeys(_kind(case) for case in cases):
            alike = [case for case in cases if case["steps"] == steps and _kind(case) == key]
            costs[key] = statistics.median(1e6 * case["processor_seconds"] / case["events"] for case in alike)
            pending[key] = statistics.mean(case["pending"] for case in alike)
        alone, apart, whole, large = costs
        growth = costs[whole] / costs[apart]
        logarithm = math.log(pending[whole]) / math.log(pending[apart])
        rows.append([
            steps, f"{apart[0]} x {apart[1]}", f"{pending[apart]:,.0f}", f"{pending[whole]:,.0f}",
            *(f"{costs[each]:.2f}" for each in (alone, apart, whole)),
            f"{growth:.2f}", f"{logarithm:.2f}", verdict(growth <= logarithm), f"{costs[large]:.2f}",
        ])  # fmt: skip
    header = [
        "steps", "networks x workers", "pending in each", "pending in one of all", "one alone, µs an event", "all in turns, µs",
        "one of all, µs", "one of all / in turns", "log pending, the same", "no faster", "one of all, large pages, µs",
    ]  # fmt: skip
    return table(header, rows)


def _flood(cases: Sequence[dict[str, Any]]) -> str:
    header = ["rule", *_HEADER, "build, s"]
    return table(header, [[case["rule"], *_row(case), f"{case['build_seconds']:.1f}"] for case in cases])


def _simpy(against: dict[str, Any]) -> str:
    passes = against["passes"]
    ours = [each["ours"] for each in passes]
    rate = spread([each["events"] / each["ours"] for each in passes])
    # Written independently, the two must come to the same end: the last rank's time, and all bytes sent.
    alike = all(
        math.isclose(a, b, rel_tol=1e-9) for p in passes for end in p["ends"][1:] for a, b in zip(p["ends"][0], end, strict=True)
    )
    rows = []
    for idiom in ("documented", "bare"):
        ratio = ratios([each[idiom] for each in passes], ours)
        quartiles = f"{ratio.middle:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        rows.append([idiom, against["workers"], quartiles, verdict(ratio.middle >= TO_SIMPY), "yes" if alike else "no"])
    text = table(["SimPy idiom", "workers", "SimPy's time / ours (quartiles)", f">= {TO_SIMPY:g}", "same end"], rows)
    met = verdict(rate.middle >= EVENTS_PER_SECOND)
    return f"{text}\nOurs: {rate.middle:,.0f} events a second of processor time; target of {EVENTS_PER_SECOND:,}: {met}.\n"


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(take_turns(asked) if "networks" in asked else measure(asked)))
