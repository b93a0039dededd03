"""A process of its own, of low priority, that evaluates marks while the ranks train and says when the target is reached.

``python -m consensus.run.evaluator RUN_FOLDER`` is started by rank 0 (:mod:`consensus.run.watch`). It ends when its
standard input does: rank 0 has closed it, or is gone.
"""

from __future__ import annotations

import json
import os
import select
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch

from consensus import config as run_files
from consensus.run.evaluation import Evaluator
from consensus.run.folder import SNAPSHOTS, write_atomically
from consensus.run.marks import kept
from consensus.run.prepare import load_data
from consensus.run.snapshots import SnapshotFolder, snapshot_folder
from consensus.run.watch import EVALUATED, STOP
from consensus.types import Seconds

_LOOK_EVERY: Seconds = 0.05


def newest(snapshots: SnapshotFolder, limit: int, after: int) -> int | None:
    """The last mark later than ``after`` that all ranks that live have a model of.

    The last, not the next: where evaluating takes longer than the time between marks, going through all of them would find the
    target ever later. Those left out are evaluated after the run.
    """
    snapshots = snapshots.living()
    seen = snapshots.marks(rank=snapshots.ranks[0])
    candidates = [mark for mark in (kept(seen[-1], limit) if seen else ()) if mark > after]
    return next((mark for mark in reversed(candidates) if snapshots.complete(mark)), None)


def main(run: Path) -> None:
    """Evaluate until the target is reached or standard input ends."""
    config = run_files.loads((run / "config.toml").read_text(encoding="utf-8"), str(run / "config.toml"))
    target, every, limit = config.run.stop.target, config.evaluation.every, config.evaluation.marks
    snapshots = snapshot_folder(config, run / SNAPSHOTS, config.run.ranks or 1)
    evaluator = Evaluator(config, load_data(config))
    latest = 0
    with (run / SNAPSHOTS / EVALUATED).open("w", encoding="utf-8", buffering=1) as lines:
        while not select.select([sys.stdin], [], [], 0 if latest else _LOOK_EVERY)[0]:
            mark = newest(snapshots, limit, latest)
            if mark is None:
                if select.select([sys.stdin], [], [], _LOOK_EVERY)[0]:
                    return
                continue
            latest = mark
            with suppress(FileNotFoundError):  # dropped since; a later mark will be evaluated
                evaluated = evaluator.mark(snapshots.living(), mark)
                lines.write(json.dumps(asdict(evaluated)) + "\n")
                if target is not None and evaluated.reaches(target):
                    stop = {**target.model_dump(), "reached": getattr(evaluated, target.metric), "seconds": mark * every}
                    write_atomically(run / STOP, json.dumps(stop) + "\n")
                    return


if __name__ == "__main__":
    os.nice(10)
    if hasattr(os, "sched_setaffinity"):
        # Launchers bind a rank to a processor, and this process would share rank 0's.
        with suppress(OSError):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
