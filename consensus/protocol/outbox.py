"""What one rank sends to one peer, bounded while the peer takes nothing.

A rank announces every round to every neighbour. A neighbour that computes for long takes none of it, and its MPI library would
store thousands of small messages it did not expect. An :class:`Outbox` stops that: after ``limit`` messages without a sign of
life from the peer it holds back what may be held, and lets go at the next sign.

*What may be held.* The announcement of a round, ``Ready(a)``; a rule's news of the newest epoch, ``Established``; and for the
application the newest ``Progress``. If the round closes while its Ready is held, both are dropped: the peer never knew. News of
an epoch void those of earlier ones, for their receiver would follow to the newer epoch and forget the rest. Everything else is
written through, behind what was held:

- ``Closed(a)`` of a Ready that is on the wire. The peer may have offered itself to that round, and could not close until this
  rank has finished computing if the withdrawal were held. So a held box never hides that a round has closed.
- ``Engage``: it answers a Ready of the peer, and this rank cannot close before the peer has answered it in turn.
- ``Stop`` and ``Leave``: others wait for them, and they are said once.

So a silent peer stores at most ``limit`` messages, one Closed with what was held before it, and those few; this rank holds two,
and the news that it has made in one epoch.

*Why holding cannot deadlock.* A Ready is held only by a rank that is open, hence handling what arrives. Let a peer wait for it:
the peer is open and lacks the exchange with this rank. It sent its own Ready when it opened, a sign of life at which the held one
goes out; and if that came before the messages that filled the box, each Ready among those was answered by an Engage, another
sign. There may be none among them (an application's Progress fills a box as well), and a peer that only listens never speaks. So
the transport adds a sign of its own: :attr:`Outbox.probing` is true when the message just released is the last one before
holding; the transport sends that one such that it learns when the peer has taken it, and then calls :meth:`Outbox.heard`. An open
peer takes all that is on the wire, so every hold ends, whatever the protocol above does.
"""

from __future__ import annotations

from consensus.errors import ConfigError
from consensus.protocol.messages import Closed, Established, Message, Progress, Ready


class Outbox:
    """The messages from this rank to one peer.

    It expects what an engine sends: rounds one after the other, each ``Ready(a)``, then its Engages, then ``Closed(a)``.

    Parameters
    ----------
    limit
        How many messages may be released since the last sign of life before holding begins; at least 1.

    Raises
    ------
    ConfigError
        If ``limit`` is less than 1.

    Examples
    --------
    >>> box = Outbox(limit=2)
    >>> box.push(Ready(1)), box.push(Closed(1, 0))
    ([Ready(round=1)], [Closed(round=1, exchanges=0)])
    >>> box.push(Ready(2)), box.push(Closed(2, 0)), box.push(Ready(3))
    ([], [], [])
    >>> box.heard()
    [Ready(round=3)]
    """

    __slots__ = ("_held", "_limit", "_released")

    def __init__(self, limit: int = 32) -> None:
        if limit < 1:
            raise ConfigError(f"an outbox must release at least 1 message, not {limit}, before it waits for a sign of life")
        self._limit = limit
        self._held: list[Message] = []
        self._released = 0

    def push(self, message: Message) -> list[Message]:
        """Hand over ``message``.

        Parameters
        ----------
        message
            The next message to the peer.

        Returns
        -------
        list of Message
            What to put on the wire now, in this order.
        """
        if self._released < self._limit:
            self._released += 1
            return [message]
        kind = type(message)
        if kind is Ready:
            self._held.append(message)
            return []
        if kind is Progress:
            self._held = [held for held in self._held if type(held) is not Progress]
            self._held.append(message)
            return []
        if kind is Established:
            self._held = [held for held in self._held if not _void(held, message)]
            self._held.append(message)
            return []
        if isinstance(message, Closed) and Ready(message.round) in self._held:
            self._held.remove(Ready(message.round))
            return []
        released = [*self._held, message]
        self._held.clear()
        self._released += len(released)
        return released

    def heard(self) -> list[Message]:
        """Note a sign of life from the peer: any message from it, or that it has taken a probing one.

        Returns
        -------
        list of Message
            What was held, to be put on the wire now, in this order.
        """
        if not self._held:
            self._released = 0
            return []
        released, self._held = self._held, []
        self._released = min(len(released), self._limit)
        return released

    @property
    def probing(self) -> bool:
        """Whether the last of the messages just released is the one whose arrival the transport should learn of."""
        return self._released == self._limit


def _void(held: Message, news: Message) -> bool:
    """Whether ``news`` make ``held`` say nothing any more: of an earlier epoch, or from before a departure."""
    if not (isinstance(held, Established) and isinstance(news, Established)):
        return False
    same = (held.departed, held.digest) == (news.departed, news.digest)
    return held.epoch < news.epoch if same else held.departed < news.departed
