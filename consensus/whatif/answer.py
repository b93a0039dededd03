"""The whole answer to a what-if: the run, the simulator's idea of it, and the alternatives in order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from consensus.report.load import LoadedRun
from consensus.whatif.alternatives import recorded
from consensus.whatif.fit import Fitted
from consensus.whatif.predict import Pace, Setting, measured, predict, samples_per_round

FINEST = 0.05
"""Fraction by which two predicted paces differ at least if they are told apart, however well the recorded run came out, which may
be luck: rules that were not run are predicted no better (`python -m benchmarks whatif`)."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    rule, topology : str
        As the command line spells them.
    ranks : int
        How many.
    pace : Pace
        How fast it goes.
    """

    rule: str
    topology: str
    ranks: int
    pace: Pace


@dataclass(frozen=True)
class Answer:
    """What :func:`ask` finds.

    Attributes
    ----------
    run : LoadedRun
    fitted : Fitted
        Its model.
    samples : float
        That all rows' seconds lead to.
    measured, simulated : Row
        The run as it was, and as the simulator has it.
    alternatives : tuple of Row
        The fastest first.
    starts : int
        How many simulations each prediction is of.
    """

    run: LoadedRun
    fitted: Fitted
    samples: float
    measured: Row
    simulated: Row
    alternatives: tuple[Row, ...]
    starts: int

    @property
    def rows(self) -> tuple[Row, ...]:
        """All of them."""
        return (self.measured, self.simulated, *self.alternatives)

    @property
    def error(self) -> float:
        """By what fraction the simulator's throughput of the run is above the measured one."""
        return self.simulated.pace.samples_per_second / self.measured.pace.samples_per_second - 1

    @property
    def margin(self) -> float:
        """Fraction by which two predictions differ if the model can tell them apart, chance aside."""
        return max(FINEST, abs(self.error))

    def alike(self, one: Row, other: Row) -> bool:
        """Whether the model cannot tell which of two alternatives is faster: its own error is larger, or chance is.

        Chance is two standard errors of the difference, from the spread between starts.
        """
        low, high = sorted((one.pace.samples_per_second, other.pace.samples_per_second))
        chance = 2 * math.hypot(one.pace.spread, other.pace.spread) / math.sqrt(self.starts)
        return high / low - 1 < max(self.margin, chance)

    def places(self, row: Row) -> tuple[int, int]:
        """The best and the worst place among the alternatives that ``row`` may have in truth, from 1."""
        apart = [other.pace.samples_per_second for other in self.alternatives if not self.alike(row, other)]
        ahead = sum(pace > row.pace.samples_per_second for pace in apart)
        return ahead + 1, len(self.alternatives) - (len(apart) - ahead)

    def to_table(self) -> dict[str, Any]:
        """As what JSON can hold, but for numbers that are not finite."""
        fitted = self.fitted
        return {
            "run": str(self.run.folder),
            "finished": self.run.finished,
            "samples": self.samples,
            "error": self.error,
            "margin": self.margin,
            "model": {
                "latency_seconds": fitted.latency,
                "swap_seconds": fitted.work,
                "round_overhead_seconds": fitted.steps.overhead,
                "swaps_at_a_time": asdict(fitted.sharing),
            },
            "measured": asdict(self.measured),
            "simulated": asdict(self.simulated),
            "alternatives": [{**asdict(row), "places": self.places(row)} for row in self.alternatives],
        }


def ask(run: LoadedRun, fitted: Fitted, settings: Sequence[Setting], samples: float | None, starts: int) -> Answer:
    """Simulate the run and the settings.

    Parameters
    ----------
    run : LoadedRun
    fitted : Fitted
        Its model.
    settings : sequence of Setting
        The alternatives.
    samples : float, optional
        To be reached; by default as many as the run took.
    starts : int
        How many simulations of each, from different moments of the run.
    """
    per_round = samples_per_round(run)
    wanted = samples if samples is not None else per_round * sum(len(trace.rounds) for trace in run.traces)

    def simulate(setting: Setting) -> Row:
        pace = predict(fitted, setting, wanted, per_round, range(1, starts + 1))
        return Row(setting.rule, setting.topology, len(setting.graph), pace)

    before = recorded(run)
    first = Row(before.rule, before.topology, run.ranks, measured(run, fitted, wanted))
    rows = sorted(map(simulate, settings), key=lambda row: row.pace.seconds)
    return Answer(run, fitted, wanted, first, simulate(before), tuple(rows), starts)
