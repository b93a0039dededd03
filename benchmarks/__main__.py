"""``python -m benchmarks [BENCHMARK ...] [--quick]``: measure, print tables, keep the figures."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import (
    coded,
    coding_cost,
    cpu,
    dbw,
    elastic,
    elastic_cifar,
    machine,
    memory,
    overhead,
    recording,
    regimes,
    scale,
    served,
    served_simulated,
    simulator,
    storage,
    stragglers,
    whatif,
    zipline,
)
from benchmarks.jobs import ROOT, say
from benchmarks.markdown import replaced
from consensus.errors import ConsensusError

KEPT = ROOT / "benchmarks"
"""Where results of full runs go, and the document that shows them."""

TRIED = ROOT / "build" / "benchmarks"
"""Where results of quick runs go: too rough to be shown."""


class Skipped(Exception):
    """What a benchmark needs is not here."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    quick: bool
    data_dir: Path | None
    seeds: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """How to measure, how to show it in Markdown, how to draw it into a folder, and how to write its page of the docs."""

    measure: Callable[[Request], dict[str, Any]]
    report: Callable[[dict[str, Any]], str]
    draw: Callable[[dict[str, Any], Path], list[Path]] = lambda result, folder: []
    publish: Callable[[dict[str, Any], Path], None] = lambda result, docs: None


def _of(module: Any) -> Callable[[Request], dict[str, Any]]:
    """How to measure what ``module`` measures, in full or roughly."""
    return lambda request: module.run(module.QUICK if request.quick else module.Scale())


def _stragglers(request: Request) -> dict[str, Any]:
    return stragglers.run(stragglers.QUICK if request.quick else stragglers.FULL, mnist(request.data_dir))


def _dbw(request: Request) -> dict[str, Any]:
    return dbw.run(dbw.QUICK if request.quick else dbw.FULL, mnist(request.data_dir))


def _whatif(request: Request) -> dict[str, Any]:
    return whatif.run(whatif.QUICK if request.quick else whatif.Scale(), mnist(request.data_dir))


def _served(request: Request) -> dict[str, Any]:
    scale = served.QUICK if request.quick else served.Scale()
    scale = replace(scale, seeds=scale.seeds[: request.seeds])
    return served.run(scale, None if request.quick else mnist(request.data_dir))


def _served_simulated(request: Request) -> dict[str, Any]:
    scale = served_simulated.QUICK if request.quick else served_simulated.Scale()
    return served_simulated.run(scale, mnist(request.data_dir))


def _elastic_cifar(request: Request) -> dict[str, Any]:
    if request.quick:
        return elastic_cifar.run(elastic_cifar.QUICK, None)
    return elastic_cifar.run(elastic_cifar.Scale(), cifar10(request.data_dir))


def _coded(request: Request) -> dict[str, Any]:
    if request.quick:
        return coded.run(coded.QUICK, {"digits": None})
    return coded.run(coded.FULL, {"mnist": mnist(request.data_dir), "cifar10": cifar10(request.data_dir)})


BENCHMARKS: Mapping[str, Benchmark] = {
    "overhead": Benchmark(_of(overhead), overhead.report),
    "cpu": Benchmark(_of(cpu), cpu.report),
    "stragglers": Benchmark(_stragglers, stragglers.report, stragglers.draw),
    "memory": Benchmark(_of(memory), memory.report),
    "simulator": Benchmark(_of(simulator), simulator.report),
    "recording": Benchmark(_of(recording), recording.report),
    "regimes": Benchmark(_of(regimes), regimes.report),
    "scale": Benchmark(_of(scale), scale.report, scale.draw, scale.publish),
    "whatif": Benchmark(_whatif, whatif.report),
    "dbw": Benchmark(_dbw, dbw.report, dbw.draw, dbw.publish),
    "elastic": Benchmark(_of(elastic), elastic.report),
    "zipline": Benchmark(_of(zipline), zipline.report),
    "served": Benchmark(_served, served.report, served.draw),
    "served_simulated": Benchmark(_served_simulated, served_simulated.report),
    "elastic_cifar": Benchmark(_elastic_cifar, elastic_cifar.report, elastic_cifar.draw),
    "coded": Benchmark(_coded, coded.report, coded.draw, coded.publish),
    "coding_cost": Benchmark(_of(coding_cost), coding_cost.report),
}


def mnist(data_dir: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder with MNIST's files: as given, or as tests find it.

    Raises
    ------
    Skipped
        If they are not there.
    """
    given = _given(data_dir, environment)
    return _holding(
        "train-images*", [given, given / "mnist", given / "MNIST" / "raw"], f"MNIST files in {given}", "four IDX files"
    )


def cifar10(data_dir: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder with CIFAR-10's files, of either of its layouts; as :func:`mnist`."""
    given = _given(data_dir, environment)
    below = [given / name for name in ("cifar-10-batches-bin", "cifar-10-batches-py")]
    return _holding("data_batch_1*", [given, *below], f"CIFAR-10 files in {given}", "unpacked data set")


def _given(data_dir: Path | None, environment: Mapping[str, str]) -> Path:
    return data_dir or Path(environment.get("CONSENSUS_TEST_DATA") or ROOT.parent / "shared" / "data")


def _holding(pattern: str, folders: Sequence[Path], what: str, wanted: str) -> Path:
    found = next((folder for folder in folders if any(folder.glob(pattern))), None)
    if found is None:
        raise Skipped(f"no {what}; give the folder with the {wanted}: --data-dir FOLDER")
    return found.resolve()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure this package on this machine.")
    parser.add_argument("which", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(BENCHMARKS)}; all of them by default")
    parser.add_argument("--quick", action="store_true", help="minutes, and rough; results go to build/benchmarks")
    parser.add_argument("--render", action="store_true", help="measure nothing; write the tables again from old results")
    parser.add_argument(
        "--data-dir", type=Path, help="where the data set's files are (default: $CONSENSUS_TEST_DATA, ../shared/data)"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="of served: the first N seeds alone; quicker, and says less")
    given = parser.parse_args(arguments)
    if given.seeds is not None and given.seeds < 1:
        parser.error(f"--seeds {given.seeds}: expected 1 or more")
    unknown = [name for name in given.which if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    out = TRIED if given.quick else KEPT
    command = shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if arguments is None else arguments)])
    failed = False
    for name in given.which or BENCHMARKS:
        kept = out / "results" / f"{name}.json"
        try:
            if not given.render:
                _measure(name, Request(given.quick, given.data_dir, given.seeds), command, kept)
            elif not kept.exists():
                raise Skipped(f"{kept} is not there; measure first")
            _show(name, storage.read(kept), out)
        except Skipped as reason:
            say(f"{name}: skipped: {reason}")
        except ConsensusError as error:
            say(f"{name}: failed: {error}")
            failed = True
    return int(failed)


def _measure(name: str, request: Request, command: str, kept: Path) -> None:
    began = time.monotonic()
    described = machine.describe(command)
    result = BENCHMARKS[name].measure(request)
    took = round(time.monotonic() - began)
    storage.write(kept, {"benchmark": name, "machine": described, "took_seconds": took, **result})
    say(f"{name}: took {took} s")


def _show(name: str, result: dict[str, Any], out: Path) -> None:
    benchmark = BENCHMARKS[name]
    pictures = [f"![{path.stem}](figures/{path.name})" for path in benchmark.draw(result, out / "figures")]
    footer = machine.sentence(result["machine"], result["mpi"])
    text = "\n\n".join([benchmark.report(result).strip(), *pictures, footer])
    print(f"\n## {name}\n\n{text}\n", flush=True)
    document = out / "README.md"
    if document.exists():
        document.write_text(replaced(document.read_text(encoding="utf-8"), name, text), encoding="utf-8")
        benchmark.publish(result, ROOT / "docs")


if __name__ == "__main__":
    sys.exit(main())
