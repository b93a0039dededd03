"""What rules without a memory and without news have in common, and one decision of all partial rules."""

from __future__ import annotations

from consensus.protocol.decision import Close, View
from consensus.protocol.messages import Established
from consensus.types import Rank

_ALL = Close("all living neighbours have exchanged")
_ALL_BUT_SILENT = Close("all neighbours have exchanged but those that are silent")


class Stateless:
    """A rule that judges by the open round alone; its state is None."""

    def start(self, view: View) -> None:
        """Return no state."""

    def hear(self, news: Established, view: View, state: None) -> None:
        """Ignore news: this rule never announces any."""

    def departure(self, rank: Rank, view: View, state: None) -> None:
        """Nothing to update: the engine keeps ``view.living``."""


def closed_with_all(view: View) -> Close:
    """The decision of a partial rule when nobody is left to wait for: all awaited neighbours have exchanged."""
    return _ALL if view.awaited is view.living else _ALL_BUT_SILENT
