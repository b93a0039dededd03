"""How ranks come to an end without a barrier: each at its own time, told by messages; or together, by votes, under all-reduce."""

from __future__ import annotations

from abc import ABC, abstractmethod

from consensus.allreduce import AllReduceHandle
from consensus.config import RunConfig
from consensus.handle import Handle
from consensus.neighbours import NeighbourHandle
from consensus.protocol.messages import Message, Progress, Stop
from consensus.run.signals import Interruption
from consensus.run.stops import Conditions, Ended, Tally
from consensus.run.watch import TargetWatch
from consensus.serving import ServedHandle
from consensus.types import Rank, Seconds

_FOR_ALL = (Ended.TARGET, Ended.INTERRUPTED)
"""Reasons that only one rank may know of."""


class Ending(ABC):
    """One rank's judgement of whether the run is over.

    Parameters
    ----------
    config
        With the conditions.
    tally
        Counts samples.
    interruption
        Of this process.

    Attributes
    ----------
    tally : Tally
        Of samples, over all ranks.
    reason : Ended or None
        Why this rank stops; None while it goes on, and where it stops only because others do.
    watch : TargetWatch or None
        On rank 0, where the run has a target.
    """

    def __init__(self, config: RunConfig, tally: Tally, interruption: Interruption) -> None:
        stop = config.run.stop
        self.tally = tally
        self.watch: TargetWatch | None = None
        self._conditions = Conditions(stop.samples, stop.seconds, stop.rounds)
        self._interruption = interruption
        self.reason: Ended | None = None

    def hear(self, peer: Rank, message: Message) -> None:
        """Take an application message."""
        if isinstance(message, Progress):
            self.tally.hear(peer, message.samples)
        elif isinstance(message, Stop):
            self.reason = Ended(message.reason)

    @abstractmethod
    def bind(self, handle: Handle) -> None:
        """Take the handle through which other ranks are told."""

    @abstractmethod
    def look(self, seconds: Seconds, rounds: int) -> bool:
        """After each step, with the run's clock and this rank's rounds: whether this rank stops; :attr:`reason` says why."""

    def _judge(self, seconds: Seconds, rounds: int) -> Ended | None:
        if self._interruption.requested:
            return Ended.INTERRUPTED
        if self.watch is not None and self.watch.reached():
            return Ended.TARGET
        return self._conditions.met(samples=self.tally.total, seconds=seconds, rounds=rounds)


class EndByMessage(Ending):
    """Every rank stops when it knows enough, and tells the others what they cannot know."""

    def bind(self, handle: Handle) -> None:
        """See :class:`Ending`."""
        assert isinstance(handle, NeighbourHandle | ServedHandle)
        self._handle = handle

    def look(self, seconds: Seconds, rounds: int) -> bool:
        """See :class:`Ending`."""
        if self.reason is None:
            self.reason = self._judge(seconds, rounds)
            if self.reason in _FOR_ALL:
                self._handle.send_all(Stop(int(self.reason)))
        # The exact count lets the others end as soon as this rank does.
        count = self.tally.own if self.reason is Ended.SAMPLES else self.tally.announcement()
        if count is not None:
            self._handle.send_all(Progress(count))
        return self.reason is not None


class EndByMaster(Ending):
    """The master alone judges, and the others hear of it by its leaving."""

    def bind(self, handle: Handle) -> None:
        """See :class:`Ending`; nobody has to be told anything."""

    def look(self, seconds: Seconds, rounds: int) -> bool:
        """See :class:`Ending`."""
        if self.reason is None:
            self.reason = self._judge(seconds, rounds)
        return self.reason is not None


class EndByVote(Ending):
    """All ranks stop after the same step: one that wants to votes for it, and the next step tells all."""

    def bind(self, handle: Handle) -> None:
        """See :class:`Ending`."""
        assert isinstance(handle, AllReduceHandle)
        self._handle = handle

    def look(self, seconds: Seconds, rounds: int) -> bool:
        """See :class:`Ending`."""
        if self.reason is None:
            self.reason = self._judge(seconds, rounds)
            if self.reason is not None:
                self._handle.vote_to_stop()
        # All ranks have taken equally many steps, so no vote is needed on this one; it would come a step too late.
        return self._handle.stop_agreed or self.reason is Ended.ROUNDS
