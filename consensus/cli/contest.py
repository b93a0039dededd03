"""Runs of several rules and seeds, one after the other, each as a job of its own; and what is written about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from consensus.cli.entrants import Entrant
from consensus.cli.options import Mode
from consensus.cli.receipts import receipts
from consensus.cli.run import announce_interrupt, check_writable, override, rank_job
from consensus.cli.standings import Attempt, Row, representative, standings, to_markdown
from consensus.cli.supervise import supervise
from consensus.config import RunConfig, load
from consensus.errors import ConfigError


@dataclass(frozen=True)
class Contest:
    """Who runs against whom, on what.

    Parameters
    ----------
    file : str
        The run file.
    entrants : sequence of Entrant
        The rules; the others are compared with the first.
    changes : sequence of str
        To the run file, after each rule's own.
    seeds : int
        How many; the first is the run file's.
    data_dir : Path, optional
        In place of data.dir.
    kind : str
        What the folder's name begins with.
    """

    file: str
    entrants: Sequence[Entrant]
    changes: Sequence[str]
    seeds: int
    data_dir: Path | None = None
    kind: str = "compare"

    def check(self) -> RunConfig:
        """Find what is wrong with any of the runs before the first starts.

        Returns
        -------
        RunConfig
            Of the first.

        Raises
        ------
        ConfigError
            If one cannot be run; the message says which.
        """
        first = self.configs()[0]
        from consensus.run.prepare import check_names  # loads torch, and a misspelt rule needs none to be found

        check_writable(first.run.out)
        first.check(first.run.ranks or 1)
        check_names(first)
        return first

    def configs(self) -> list[RunConfig]:
        """What each rule runs; raises as :meth:`check` does."""
        return [self._load(entrant) for entrant in self.entrants]

    def _load(self, entrant: Entrant) -> RunConfig:
        try:
            return load(self.file, self._changes(entrant), self.data_dir)
        except ConfigError as error:
            raise ConfigError(f"rule {entrant.label}: {error}") from error

    def _changes(self, entrant: Entrant) -> list[str]:
        """To the run file: servers, or a master and edges, come on top, so that under all rules equally many ranks train."""
        changes = [*entrant.changes, *self.changes, "architecture="]
        # Sections of another architecture are of no concern to this rule, and it would refuse them.
        kind = load(self.file, [*changes, "run.ranks=", "server=", "coding="], self.data_dir).kind
        changes += [f"{section}=" for section, whose in (("server", "server"), ("coding", "coded")) if whose != kind]
        config = load(self.file, [*changes, "run.ranks="], self.data_dir)
        if config.kind == "neighbours":
            return changes
        plain = ["rule.name=full", *self.changes, "architecture=", "server=", "coding="]
        workers = load(self.file, plain, self.data_dir).run.ranks or 1
        return [*changes, f"run.ranks={config.ranks_for(workers)}"]

    def order(self, first_seed: int) -> Iterator[tuple[Entrant, int]]:
        """All rules with one seed, then all with the next: what else the machine does hits all rules alike."""
        for seed in range(first_seed, first_seed + self.seeds):
            for entrant in self.entrants:
                yield entrant, seed

    def hold(
        self,
        config: RunConfig,
        folder: Path,
        before: Callable[[Entrant, int, int], None],
        after: Callable[[Attempt], None],
        progress: Mode,
    ) -> tuple[list[Attempt], bool]:
        """Run all, or until somebody interrupts.

        Parameters
        ----------
        config : RunConfig
            Of the first.
        folder : Path
            For the results.
        before : callable
            Called with the rule, the seed and the number of the run, from 1.
        after : callable
            Called with what came of it.
        progress : Mode
            Of each run.

        Returns
        -------
        list of Attempt, bool
            What was run to its end, well or not, and whether it was interrupted.
        """
        attempts: list[Attempt] = []
        sizes = {entrant.label: self._load(entrant).run.ranks or 1 for entrant in self.entrants}
        for number, (entrant, seed) in enumerate(self.order(config.run.seed), 1):
            before(entrant, seed, number)
            settings = self.settings(folder, entrant, seed)
            size = sizes[entrant.label]
            with receipts(folder, entrant.slug) as signs:
                job = rank_job(self.file, settings, self.data_dir, size, progress, closing=False, signs=signs)
                outcome = supervise(
                    job, on_interrupt=announce_interrupt, done=signs.done.exists, failed=signs.failed.exists, tee_errors=True
                )
            if outcome.interrupted:
                return attempts, True
            attempts.append(self.result(folder, entrant, seed, outcome.errors.strip() or f"ended with code {outcome.code}"))
            after(attempts[-1])
        return attempts, False

    def settings(self, folder: Path, entrant: Entrant, seed: int) -> list[str]:
        """All changes to the run file that make one of the runs."""
        own = [*override("run.seed", seed), *override("run.out", _place(folder, entrant, seed))]
        return [*self._changes(entrant), *own]

    def result(self, folder: Path, entrant: Entrant, seed: int, otherwise: str) -> Attempt:
        """What one of the runs has written.

        Parameters
        ----------
        folder : Path
            Of the comparison.
        entrant, seed
            Which run.
        otherwise : str
            What went wrong, in case it has written nothing.
        """
        for path in sorted(_place(folder, entrant, seed).glob("*/summary.json")):
            return Attempt(entrant.label, seed, path.parent, json.loads(path.read_text(encoding="utf-8")))
        return Attempt(entrant.label, seed, None, None, otherwise)


def _place(folder: Path, entrant: Entrant, seed: int) -> Path:
    return folder / f"{entrant.slug}-seed-{seed}"


def make_folder(config: RunConfig, kind: str) -> Path:
    """A new folder for a comparison's results.

    Raises
    ------
    ConfigError
        If it cannot be made.
    """
    stem = f"{kind}-{config.run.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    root = Path(config.run.out)
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = {path.name for path in root.iterdir()}
        name = next(name for name in (stem, *(f"{stem}-{i}" for i in range(2, 1000))) if name not in taken)
        (root / name).mkdir()
    except OSError as error:
        raise ConfigError(
            f"run.out = {str(root)!r}: {error.strerror}; give a folder that you may write to: --out FOLDER"
        ) from error
    return root / name


def write_results(folder: Path, contest: Contest, attempts: Sequence[Attempt]) -> list[Row]:
    """Write ``compare.json``, ``compare.md`` and, if a run came to its end, ``compare.png``.

    Returns
    -------
    list of Row
        What was written.
    """
    from consensus.run.curves import draw_curves
    from consensus.run.results import dumps, read_metrics

    rows = standings(attempts)
    runs = [
        {
            "rule": attempt.label,
            "seed": attempt.seed,
            "folder": None if attempt.folder is None else str(attempt.folder.relative_to(folder)),
            "error": attempt.error or None,
            "summary": attempt.summary,
        }
        for attempt in attempts
    ]
    table = {"file": contest.file, "changes": list(contest.changes), "rows": [row.to_table() for row in rows], "runs": runs}
    (folder / "compare.json").write_text(dumps(table, indent=2) + "\n", encoding="utf-8")
    command = " ".join(f"--set {change}" for change in contest.changes)
    heading = f"# {contest.file} {command}".rstrip() + f"\n\nMedians over {contest.seeds} seeds.\n\n"
    (folder / "compare.md").write_text(heading + to_markdown(rows), encoding="utf-8")
    drawn = {
        f"{label} (seed {a.seed})": read_metrics(a.folder)
        for label, a in representative(attempts).items()
        if a.folder is not None
    }
    if drawn:
        draw_curves(drawn, folder / "compare.png")
    return rows
