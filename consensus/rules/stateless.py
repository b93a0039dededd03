"""What rules without a memory and without news have in common."""

from __future__ import annotations

from consensus.protocol.decision import View
from consensus.protocol.messages import Established
from consensus.types import Rank


class Stateless:
    """A rule that judges by the open round alone; its state is None."""

    def start(self, view: View) -> None:
        """Return no state."""

    def hear(self, news: Established, view: View, state: None) -> None:
        """Ignore news: this rule never announces any."""

    def departure(self, rank: Rank, view: View, state: None) -> None:
        """Nothing to update: the engine keeps ``view.living``."""
