"""Who came, checked, and what to say when they are too few."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from consensus.errors import CodingError


def present(name: str, alive: Iterable[int], size: int, participants: Collection[int]) -> list[int]:
    """Those of the nodes that came that hold something.

    Raises
    ------
    CodingError
        If one of them is no node of the layer.

    Examples
    --------
    >>> present("edge 0", [2, 0, 0], size=3, participants={0, 1})
    [0]
    """
    came = sorted(set(alive))
    for node in came:
        if not 0 <= node < size:
            raise CodingError(f"{name}: node {node} came, but its nodes are 0 to {size - 1}; number them from 0, layer by layer")
    return [node for node in came if node in participants]


def too_few(name: str, child: str, came: Collection[int], participants: Collection[int], needed: int) -> CodingError:
    """The error for a layer whose nodes do not suffice.

    Examples
    --------
    >>> print(too_few("edge 2", "worker", [1], {0, 1, 2}, needed=2))
    edge 2: 1 of 3 workers came (1), 2 are needed, as 1 may be silent; wait for more, lay the code out for more stragglers, or
    accept a gradient that lacks some parts (approximate = true)
    """
    silent = len(participants) - needed
    who = f" ({', '.join(map(str, came))})" if came else ""
    verb = "is" if needed == 1 else "are"
    return CodingError(
        f"{name}: {len(came)} of {len(participants)} {child}s came{who}, {needed} {verb} needed, as {silent} may be silent; wait "
        f"for more, lay the code out for more stragglers, or accept a gradient that lacks some parts (approximate = true)"
    )
