r"""Which payloads a code may be sent in.

Every rounding of a payload, one at the workers and one at the edges, adds an error of at most :math:`u \kappa \sum_k |g_k|` to a
coordinate of the decoded gradient: u is the dtype's unit roundoff, kappa the code's amplification, and the sum that of the parts'
gradients in that coordinate. A sum without a code has kappa = 1.

The limits are ours. float32 (u = 2^-24) at kappa = 100 is still good to 2^-17 of that sum, five decimal digits, far below the
noise of any mini-batch. bfloat16 (u = 2^-8, an epsilon of 2^-7) has only 8 bits to begin with: kappa = 4 leaves 6 of them, an
error of 1.6 % that an optimiser takes for noise; at kappa = 100 it would be 39 %, and no gradient. float64 (u = 2^-53) could bear
more than the million it is allowed, but above that decoding weights lose the digits by which an exact sum is told from a wrong
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from consensus.errors import ConfigError
from consensus.names import lookup

LIMITS: Mapping[str, float] = MappingProxyType({"float64": 1e6, "float32": 100.0, "bfloat16": 4.0})
"""The largest kappa by the payload's dtype."""

UNIT_ROUNDOFF: Mapping[str, float] = MappingProxyType({"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8})
"""Largest relative error of one rounding."""


def check_precision(kappa: float, dtype: str, *, estimated: bool = False, allow: bool = False) -> None:
    """Refuse a payload in which a code's decoded gradients would not be worth having.

    Parameters
    ----------
    kappa : float
        The code's amplification.
    dtype : {"float64", "float32", "bfloat16"}
        Of the payload.
    estimated : bool
        Whether kappa is an estimate from below, for the message.
    allow : bool
        Let it pass all the same.

    Raises
    ------
    ConfigError
        If the dtype is unknown, or kappa is above its limit and ``allow`` is false.

    Examples
    --------
    >>> check_precision(5.8, "float32")
    >>> check_precision(5.8, "bfloat16")
    Traceback (most recent call last):
    consensus.errors.ConfigError: payload bfloat16: the code amplifies rounding errors 5.8 times (kappa), expected at most 4:
    errors of up to 2.3 % of the summed gradients; use payload float32, stragglers that need a better conditioned code (s + 1
    dividing the number of nodes is best), or allow it explicitly
    """
    limit = lookup("payload", dtype, LIMITS)
    if kappa <= limit or allow:
        return
    bearing = min((name for name in LIMITS if kappa <= LIMITS[name]), key=LIMITS.__getitem__, default=None)
    instead = f"payload {bearing}, " if bearing else ""
    raise ConfigError(
        f"payload {dtype}: the code amplifies rounding errors {'at least ' if estimated else ''}{kappa:.3g} times (kappa), "
        f"expected at most {limit:g}: errors of up to {100 * kappa * UNIT_ROUNDOFF[dtype]:.2g} % of the summed gradients; use "
        f"{instead}stragglers that need a better conditioned code (s + 1 dividing the number of nodes is best), or allow it "
        f"explicitly"
    )
