"""Runs as Chrome trace events, which Perfetto and chrome://tracing open.

A run is a process and a rank a thread in it. A round is a slice each for the local step, waiting and averaging; an exchange an
arrow from the end that agreed to it first to the other end, where it was complete; backups are counters.

References
----------
Trace Event Format, JSON object form. Times are microseconds, to which traces are rounded anyway.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from consensus.errors import ConfigError
from consensus.report.load import LoadedRun
from consensus.trace import TracedRound
from consensus.types import Rank, Round, Seconds

_Event: TypeAlias = dict[str, Any]

_PROCESSES = 1 << 10


def write_perfetto(runs: Mapping[str, LoadedRun], path: Path) -> None:
    """Write the traces of runs into one file.

    Parameters
    ----------
    runs
        By label.
    path
        The file, by custom ``.json``.

    Raises
    ------
    ConfigError
        If no run has traces, or the file cannot be written.
    """
    if not any(run.traces for run in runs.values()):
        raise ConfigError("--perfetto: none of the runs has traces; record one with run.trace = true, which is the default")
    encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
            for number, event in enumerate(events(runs)):
                file.write((",\n" if number else "") + encode(event))
            file.write("\n]}\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); give another file: --perfetto=FILE") from error


def events(runs: Mapping[str, LoadedRun]) -> Iterator[_Event]:
    """All events, names first, the others in order of time."""
    # Some viewers keep process 0 and thread 0 for the idle task.
    processes = [_Process(pid, label, run) for pid, (label, run) in enumerate(runs.items(), 1) if run.traces]
    for process in processes:
        yield from process.names()
    yield from heapq.merge(*(stream for process in processes for stream in process.streams()), key=_time)


class _Span(NamedTuple):
    """When, in microseconds, a round's step began, its waiting, its averaging, and its end."""

    step: int
    wait: int
    mix: int
    end: int

    @property
    def instant(self) -> bool:
        """Whether the round was over, to the microsecond, when it opened."""
        return self.end == self.wait

    def within(self, seconds: Seconds) -> int:
        """That moment, or the nearest in the round at which a slice is open: an arrow needs one to hang on."""
        return max(self.wait, min(_us(seconds), self.end - 1))


def _us(seconds: Seconds) -> int:
    return round(seconds * 1e6)


def _spans(rounds: Sequence[TracedRound]) -> Iterator[_Span]:
    """Slices of one thread must not overlap; the clock is read a moment earlier for durations than for when a round opened."""
    before = 0
    for record in rounds:
        wait = max(before, _us(record.opened))
        step = max(before, min(wait, _us(record.opened - record.compute)))
        mix = wait + _us(record.wait)
        before = mix + _us(record.mix)
        yield _Span(step, wait, mix, before)


class _Process:
    """One run."""

    def __init__(self, pid: int, label: str, run: LoadedRun) -> None:
        self._pid = pid
        self._label = label
        self._traces = run.traces
        self._spans = [list(_spans(trace.rounds)) for trace in run.traces]

    def names(self) -> Iterator[_Event]:
        """What the viewer calls the run and its ranks, and their order."""
        yield self._name("process_name", 0, name=self._label)
        yield self._name("process_sort_index", 0, sort_index=self._pid)
        for rank in range(len(self._traces)):
            yield self._name("thread_name", rank + 1, name=f"rank {rank}")
            yield self._name("thread_sort_index", rank + 1, sort_index=rank)

    def streams(self) -> Iterator[Iterator[_Event]]:
        """Each rank's events, in order of time."""
        return (self._of_rank(rank) for rank in range(len(self._traces)))

    def _of_rank(self, rank: Rank) -> Iterator[_Event]:
        for record, span in zip(self._traces[rank].rounds, self._spans[rank], strict=True):
            found = [*self._slices(rank, record, span), *self._arrows(rank, record)]
            found.append(self._event("C", rank, span.end, f"backups of rank {rank}", args={"backups": len(record.backups)}))
            yield from sorted(found, key=_time)

    def _slices(self, rank: Rank, record: TracedRound, span: _Span) -> Iterator[_Event]:
        for name, (begin, end) in zip(("compute", "wait", "mix"), pairwise(span), strict=True):
            if end > begin:
                told = {"round": record.round, "closed because": record.reason} if name == "wait" else {"round": record.round}
                yield self._event("X", rank, begin, name, dur=end - begin, cat="round", args=told)

    def _arrows(self, rank: Rank, record: TracedRound) -> Iterator[_Event]:
        """This rank's ends of its exchanges; the other rank's stream has the other ends, and comes to the same conclusions."""
        for peer, theirs, agreed, complete in record.exchanges:
            answer = self._answer(rank, record.round, peer, theirs)
            if answer is None:
                continue
            span, other = self._spans[rank][record.round - 1], self._spans[peer][theirs - 1]
            starts = (agreed, rank) < (answer[0], peer)
            start = span.within(agreed) if starts else other.within(answer[0])
            end = other.within(answer[1]) if starts else span.within(complete)
            # Hosts' clocks may differ by more than a transfer takes: no arrow, then, rather than one into the past.
            if start <= end and not span.instant and not other.instant:
                phase, at, extra = ("s", start, {}) if starts else ("f", end, {"bp": "e"})
                number = self._number(rank, record.round, peer, theirs)
                yield self._event(phase, rank, at, "exchange", cat="exchange", id=number, **extra)

    def _answer(self, rank: Rank, round_: Round, peer: Rank, theirs: Round) -> tuple[Seconds, Seconds] | None:
        """When the other end agreed to an exchange, and had it complete; None where its trace ends before."""
        if theirs > len(self._traces[peer].rounds):
            return None
        exchanges = self._traces[peer].rounds[theirs - 1].exchanges
        return next((exchange[2:] for exchange in exchanges if exchange[:2] == (rank, round_)), None)

    def _number(self, rank: Rank, round_: Round, peer: Rank, theirs: Round) -> int:
        """Both ends' number for one exchange, unlike all others'; a viewer would read text as hexadecimal."""
        low, high, round_of_low = (rank, peer, round_) if rank < peer else (peer, rank, theirs)
        size = len(self._traces)
        return ((round_of_low * size + low) * size + high) * _PROCESSES + self._pid

    def _name(self, kind: str, tid: int, **args: object) -> _Event:
        return {"ph": "M", "pid": self._pid, "tid": tid, "ts": 0, "name": kind, "args": args}

    def _event(self, phase: str, rank: Rank, at: int, name: str, **more: object) -> _Event:
        return {"ph": phase, "pid": self._pid, "tid": rank + 1, "ts": at, "name": name, **more}


def _time(event: _Event) -> int:
    return int(event["ts"])
