"""Every error the package raises on purpose, in one tree.

A message says what was expected, what was seen and what to do about it. Catch :class:`ConsensusError` to catch them all.
"""

from __future__ import annotations


class ConsensusError(Exception):
    """Root of all errors raised by this package."""


class ConfigError(ConsensusError, ValueError):
    """What the user asked for cannot be done as it is written."""


class TopologyError(ConfigError):
    """The graph is not one that ranks can average on (disconnected, self-loop, wrong size ...)."""


class DataError(ConfigError):
    """A data set is missing, damaged, or leaves a rank without samples."""


class LaunchError(ConsensusError, RuntimeError):
    """Ranks could not be started, or started in a way that cannot work."""


class ProtocolError(ConsensusError, RuntimeError):
    """The exchange protocol was broken; a defect here or a foreign message, never a user's mistake."""


class DeadRanks(ProtocolError):
    """Ranks have died without whom the others cannot go on."""


class NonFiniteLoss(ConsensusError, ArithmeticError):
    """A rank's loss became NaN or infinite."""


class StallError(ConsensusError, RuntimeError):
    """A rank has waited in one round for as long as ``stall_abort`` allows; the message says for whom and why."""


class CodingError(ConsensusError, RuntimeError):
    """A gradient cannot be encoded or decoded from the vectors at hand: too few came, or they do not fit together."""


class CheckpointError(ConsensusError, RuntimeError):
    """A checkpoint is missing, damaged, of something else, or holds what no checkpoint can."""
