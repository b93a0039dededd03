r"""Coefficients of one ring: what each node multiplies its items by, so that any s silent nodes can be done without.

Let C be a matrix of s + 1 rows and a column for each of the q nodes, and v a vector of s + 1 numbers. The coefficients b of an
item are those on its s + 1 holders P that solve :math:`C_P b = v`. If the nodes S, at most s, are silent, a :math:`\lambda \ne 0`
with :math:`\lambda^T C_S = 0` exists, and :math:`a = C^T \lambda / (\lambda^T v)` is zero on S and sums every item to one.
Gradient coding is due to Tandon, Lei, Dimakis, Karampatziakis (ICML 2017), and a Gaussian C is the literature's choice; the
paper's body was not at hand, and the other choices of C are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import inf
from types import MappingProxyType

import numpy as np

from consensus.coding.arcs import Ring
from consensus.coding.arrays import Floats, Indices, Mask
from consensus.coding.patterns import silent_sets
from consensus.errors import ConfigError
from consensus.names import suggestion

STARTS = 10
"""Random starts from which the balance of a trigonometric code is sought."""
SINGULAR = 1e-10
"""Relative size below which a pivot counts as zero."""


def coefficients(ring: Ring, stragglers: int, kind: str, seed: int) -> tuple[str, Floats]:
    """The coefficients of one ring's code.

    Parameters
    ----------
    ring : Ring
        Who holds what.
    stragglers : int
        s, its nodes that may be silent.
    kind : {"auto", "ones", "trig", "gaussian"}
        ``ones``, plain sums, need a ring that is tiled; ``auto`` takes them there and ``trig`` elsewhere.
    seed : int
        Of what is drawn.

    Returns
    -------
    kind : str
        The one that was taken.
    matrix : ndarray, shape (nodes, items), float64
        Row by row in the order of ``ring.nodes``.

    Raises
    ------
    ConfigError
        If the kind is unknown, or it is ``ones`` and the ring is not tiled, or no draw gives a code.
    """
    if kind not in {"auto", *KINDS}:
        raise ConfigError(f"kind = {kind!r}: unknown kind of code; {suggestion(kind, ['auto', *KINDS])}")
    if kind == "auto":
        kind = "ones" if ring.tiled else "trig"
    held = np.zeros((len(ring.nodes), ring.size), dtype=bool)
    for row, arc in enumerate(ring.arcs):
        held[row, list(arc)] = True
    return kind, KINDS[kind](ring, held, stragglers, seed)


def _ones(ring: Ring, held: Mask, stragglers: int, seed: int) -> Floats:
    if not ring.tiled:
        raise ConfigError(
            f"kind = 'ones': nodes {', '.join(map(str, ring.nodes))} hold {', '.join(map(str, ring.counts))} of {ring.size} "
            f"items, which do not fall into {stragglers + 1} sets that each hold all; use 'auto', or numbers of nodes that "
            f"{stragglers + 1} divides"
        )
    return held.astype(np.float64)


def _gaussian(ring: Ring, held: Mask, stragglers: int, seed: int) -> Floats:
    drawn = np.random.default_rng(seed).standard_normal((stragglers + 1, len(held)))
    matrix = np.zeros(held.shape)
    for item, holders in enumerate(held.T):
        matrix[holders, item] = np.linalg.solve(drawn[:, holders], np.ones(stragglers + 1))
    return matrix


def _trigonometric(ring: Ring, held: Mask, stragglers: int, seed: int) -> Floats:
    """The best of several codes that differ in the order of the nodes on the circle and in the last row of C.

    The first s rows are Chebyshev systems on the circle: any s columns are independent, and v = (0, ..., 0, 1) then makes every
    pattern decodable. They fix each item's coefficients up to a factor, which the last row r settles. For items whose holders are
    neighbours on the circle these coefficients alternate in sign, and r = (+1, -1, +1, ...) suits them all. Where holders are no
    neighbours, or s and q are both odd and the circle does not close, it suits some badly or not at all. Then r is
    :func:`_balanced`. What is best is measured.
    """
    columns, where = np.unique(held, axis=1, return_inverse=True)
    silent, _ = silent_sets(len(held), stragglers, at_most=300, drawn=100)
    best, least = None, inf
    for top, last in _candidates(ring, columns, stragglers, seed):
        matrix = _scaled(top, last, columns)
        if matrix is not None:
            kappa = _kappa(top, last, matrix, silent)
            # A thousandth: candidates that differ by rounding alone do not change places from machine to machine.
            if kappa < least * 0.999:
                best, least = matrix, kappa
    if best is None:
        raise ConfigError(
            f"kind = 'trig': no code was found for arcs of {', '.join(map(str, ring.counts))} on a ring of {ring.size} items "
            f"with {stragglers} stragglers; use kind = 'gaussian', another seed, or another number of parts"
        )
    return best[:, where.ravel()]


def _candidates(ring: Ring, columns: Mask, stragglers: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """First s rows and last row of C."""
    nodes = len(ring.nodes)
    random = np.random.default_rng(seed)
    by_arc = np.argsort(np.asarray(ring.starts) % ring.size, kind="stable")
    for order in (by_arc, np.arange(nodes)):
        place = np.empty(nodes)
        place[order] = np.arange(nodes)
        top = _circle(place, stragglers)
        alternating = (-1.0) ** place
        yield top, alternating
        starts = [alternating, *random.standard_normal((STARTS, nodes))]
        yield from ((top, _balanced(top, start, columns)) for start in starts)


def _circle(place: Floats, stragglers: int) -> Floats:
    """The first s real trigonometric functions: whole frequencies if s is odd, half-integer ones if it is even."""
    angle = 2 * np.pi * place / len(place)
    frequencies = np.arange(1, stragglers // 2 + 1) - (0.0 if stragglers % 2 else 0.5)
    waves = [wave(frequency * angle) for frequency in frequencies for wave in (np.cos, np.sin)]
    constant = [np.full(len(place), np.sqrt(0.5))] * (stragglers % 2)
    return np.array([*constant, *waves]).reshape(stragglers, len(place))


def _directions(top: Floats, columns: Mask) -> Floats | None:
    """Coefficients of each item up to a factor: the null vector of ``top`` on its holders, of absolute sum 1."""
    # Every item has as many holders, in rising order.
    holders = np.nonzero(columns.T)[1].reshape(columns.shape[1], -1)
    _, sizes, turned = np.linalg.svd(top[:, holders].transpose(1, 0, 2), full_matrices=True)
    if sizes.shape[1] and (sizes[:, -1] < SINGULAR * sizes[:, 0]).any():
        return None
    found = np.zeros(columns.shape)
    null = turned[:, -1]
    found[holders.T, np.arange(columns.shape[1])] = (null / np.abs(null).sum(axis=1, keepdims=True)).T
    return found


def _scaled(top: Floats, last: Floats, columns: Mask) -> Floats | None:
    """Coefficients of which ``last`` makes one; nothing if some item's have no part along it."""
    directions = _directions(top, columns)
    if directions is None:
        return None
    along = last @ directions
    if np.abs(along).min() < SINGULAR * np.abs(last).max():
        return None
    return np.asarray(directions / along)


def _balanced(top: Floats, start: Floats, columns: Mask) -> Floats:
    """A last row that meets every item's direction about equally.

    Least squares towards the signs that it has, over and over: the sum of squares falls until signs no longer change.
    """
    directions = _directions(top, columns)
    if directions is None:
        return start
    row, signs = start, np.zeros(columns.shape[1])
    for _ in range(columns.shape[1]):
        new = np.where(row @ directions < 0, -1.0, 1.0)
        if np.array_equal(new, signs):
            break
        signs = new
        row = np.asarray(np.linalg.lstsq(directions.T, signs, rcond=None)[0], dtype=np.float64)
    return row


def _kappa(top: Floats, last: Floats, matrix: Floats, silent: Indices) -> float:
    """Amplification by the decoding vectors of the construction, a = r + mu C with mu such that a is zero on S."""
    stacked = top[:, silent].transpose(1, 2, 0)
    factors = np.linalg.solve(stacked, -last[silent][..., np.newaxis])[..., 0]
    return float((np.abs(last + factors @ top) @ np.abs(matrix)).max())


KINDS: Mapping[str, Callable[[Ring, Mask, int, int], Floats]] = MappingProxyType(
    {"ones": _ones, "trig": _trigonometric, "gaussian": _gaussian}
)
