"""Training on three hosts whose links are slow or down, whose ranks are killed, and one of which crashes: ``make hosts-test``.

The hosts are network namespaces of this machine, two ranks on each, joined by TCP alone (tests/hosts/network.py). Every run is
started on the first host by ``consensus run`` with a hostfile, as on a real cluster, and its results are compared with what
docs/survival.md promises. How fast anything is, is printed and not judged. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.hosts.network import Network, lacking
from tests.slurm.cluster import until

ROOT = Path(__file__).resolve().parents[2]
HOSTS, SLOTS = 3, 2
FAR = HOSTS
"""The host to which things happen; its ranks are the last."""

ALL = list(range(HOSTS * SLOTS))
FAR_RANKS = ALL[-SLOTS:]
NEAR_RANKS = ALL[:-SLOTS]
SLOW_LINK = ("8mbit", "400ms")
LOST_AFTER = 10
ENOUGH = 0.85
"""Accuracy that every run reaches, whatever happened."""

# Steps take 50 ms, so that nothing is over before it has happened. Nothing here depends on how much longer they take.
SETTINGS = ("stragglers.model=constant", "stragglers.seconds=0.05", "topology.kind=complete", "run.stall_warning=3")
BY_ROUNDS = "run.stop={ rounds = 250 }"
BY_SECONDS = "run.stop={ seconds = 25 }"


class Done(NamedTuple):
    """How a run ended."""

    code: int
    said: str
    folders: list[Path]

    @property
    def summary(self) -> dict[str, Any]:
        """Of the newest of its folders; empty if it has none."""
        path = self.folders[-1] / "summary.json" if self.folders else Path("nowhere")
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return found

    def accuracy(self) -> float:
        """Of the averaged model at the end."""
        return float((self.summary.get("final") or {}).get("accuracy") or 0.0)


class Trial:
    """One run on the hosts; what is not as promised is in ``complaints``."""

    complaints: list[str]

    def __init__(self, network: Network, folder: Path, name: str) -> None:
        self.network, self.name = network, name
        self.folder = folder / name
        self.folder.mkdir()
        self.complaints = []
        print(f"{name} ...", flush=True)

    def run(self, *options: object, ranks: int = len(ALL), meanwhile: Callable[[Callable[[], str]], None] | None = None) -> Done:
        """Start a run on the first host, do ``meanwhile`` when it trains, and wait until it has ended."""
        log = self.folder / "log"
        log.touch()
        before = len(log.read_text())

        def said() -> str:
            return log.read_text(errors="replace")[before:]

        argv = [sys.executable, "-m", "consensus", "run", "digits", "--ranks", str(ranks)]
        argv += [word for setting in SETTINGS for word in ("--set", setting)]
        argv += ["--hostfile", str(self.network.hostfile), "--out", str(self.folder / "runs"), *map(str, options)]
        environment = {"PYTHONPATH": str(ROOT), "PRTE_MCA_plm_ssh_agent": str(self.network.agent)}
        job = self.network.start(1, argv, log, **environment)
        try:
            until(lambda: " samples, " in said() or job.poll() is not None, 300, f"the first rounds of {self.name}")
            if meanwhile is not None and job.poll() is None:
                meanwhile(said)
            job.wait(timeout=600)
        except subprocess.TimeoutExpired:
            print(said()[-5000:])
            sys.exit(f"{self.name}: the run did not end")
        return Done(job.returncode, said(), sorted((self.folder / "runs").glob("digits-*")))

    def expect(self, **kept: bool) -> None:
        """Note which of some promises, with underscores in the place of spaces, were not kept."""
        self.complaints += [f"{self.name}: not so: {promise.replace('_', ' ')}" for promise, true in kept.items() if not true]

    def expect_good_end(self, done: Done, lost: list[int]) -> None:
        """Expect a run that has ended well, without the ranks ``lost``."""
        self.expect(
            the_exit_code_is_0=done.code == 0,
            the_right_ranks_are_lost=done.summary.get("lost") == lost,
            the_model_has_learnt=done.accuracy() >= ENOUGH,
        )
        print(f"  exit code {done.code}, lost {done.summary.get('lost')}, accuracy {done.accuracy():.3f}", flush=True)
        if self.complaints:
            print(done.said[-5000:], flush=True)


def healthy(trial: Trial) -> None:
    """Two ranks on each of the hosts."""
    seen: list[int] = []
    done = trial.run("--set", BY_ROUNDS, meanwhile=lambda said: seen.extend(map(trial.network.ranks_on, trial.network.hosts)))
    trial.expect_good_end(done, [])
    trial.expect(there_are_two_ranks_on_each_host=seen == [SLOTS] * HOSTS)


def slow_link(trial: Trial) -> None:
    """On a ring, under a rule that waits for one neighbour of two, it slows down those at its ends and nobody else."""
    trial.network.limit(FAR, *SLOW_LINK)
    found: list[int] = []
    for graph, rule in (("complete", "full"), ("complete", "static_backup:2"), ("ring", "full"), ("ring", "static_backup:1")):
        name, _, backups = rule.partition(":")
        changes = [BY_SECONDS, f"topology.kind={graph}", f"rule.name={name}", *([f"rule.b={backups}"] if backups else [])]
        done = trial.run(*(word for change in changes for word in ("--set", change)))
        trial.expect(the_exit_code_is_0=done.code == 0, nobody_is_lost=done.summary.get("lost") == [])
        found = list(done.summary.get("rounds", ALL))
        print(f"  {graph}, {rule}: rounds in 25 s, rank by rank: {found}", flush=True)
    inner, outer = NEAR_RANKS[1:-1], (NEAR_RANKS[0], NEAR_RANKS[-1])
    trial.expect(ranks_without_a_slow_link_have_more_rounds=min(found[r] for r in inner) > max(found[r] for r in outer))


def link_down_for_a_while(trial: Trial) -> None:
    """Nobody is lost: all wait, and say so, until the link is there again."""

    def meanwhile(said: Callable[[], str]) -> None:
        trial.network.cut(FAR)
        until(lambda: "stalled" in said(), 120, "a report of the stall")
        trial.network.mend(FAR)

    done = trial.run("--set", BY_ROUNDS, "--set", "rule.name=gap", meanwhile=meanwhile)
    trial.expect_good_end(done, [])


def link_down(trial: Trial) -> None:
    """With --lost-after those beyond it count as dead, and end; the others go on."""
    done = trial.run(
        "--set", BY_ROUNDS, "--set", "rule.name=gap", "--lost-after", LOST_AFTER,
        meanwhile=lambda said: trial.network.cut(FAR),
    )  # fmt: skip
    trial.expect_good_end(done, FAR_RANKS)
    trial.expect(those_cut_off_have_ended=trial.network.ranks_on(FAR) == 0)
    trial.network.crash(FAR)
    trial.network.mend(FAR)


def ranks_killed(trial: Trial) -> None:
    """The others go on."""
    done = trial.run("--set", BY_ROUNDS, "--set", "rule.name=gap", meanwhile=lambda said: trial.network.kill_ranks(FAR))
    trial.expect_good_end(done, FAR_RANKS)


def host_crashed(trial: Trial) -> None:
    """Open MPI ends the job, which the command does not take for success; the run goes on on the hosts that are left."""
    checkpoints = ("--set", BY_ROUNDS, "--set", "rule.name=gap", "--set", 'checkpoint.every="20 rounds"')

    def meanwhile(said: Callable[[], str]) -> None:
        manifests = trial.folder / "runs"
        until(lambda: any(manifests.glob("digits-*/checkpoints/*.json")), 120, "a complete set of checkpoints")
        trial.network.crash(FAR)

    done = trial.run(*checkpoints, meanwhile=meanwhile)
    print(f"  the launcher has lost a host: exit code {done.code}", flush=True)
    trial.expect(it_is_no_success=done.code != 0, there_are_no_results=not done.summary)
    again = trial.run(*checkpoints, "--resume", "latest", ranks=len(NEAR_RANKS))
    trial.expect_good_end(again, [])
    trial.expect(the_second_run_goes_on_from_the_first=bool(again.summary.get("resumed")))


TRIALS = (healthy, slow_link, link_down_for_a_while, link_down, ranks_killed, host_crashed)


def main() -> None:
    """Run the trials; the exit code is 0 if all is as promised."""
    names = [trial.__name__ for trial in TRIALS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="a new folder for all files, which stays; by default they are removed")
    parser.add_argument("--only", choices=names, nargs="+", default=names, help="which trials; all by default")
    options = parser.parse_args()
    # Where distributions keep programs for administrators.
    os.environ["PATH"] += os.pathsep + os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))
    if problem := lacking():
        sys.exit(problem)
    # Killed or not, it leaves no hosts behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.keep is not None:
            folder = options.keep.absolute()
            folder.mkdir(parents=True)
        complaints = check(folder, options.only)
    if complaints:
        sys.exit("\n".join(complaints))
    print("all is as promised")


def check(folder: Path, names: list[str]) -> list[str]:
    """Do the trials of these names; returns what is not as promised."""
    complaints: list[str] = []
    for trial in TRIALS:
        if trial.__name__ in names:
            with Network(folder, HOSTS, SLOTS) as network:
                told = Trial(network, folder, trial.__name__)
                trial(told)
            complaints += told.complaints
    return complaints


if __name__ == "__main__":
    main()
