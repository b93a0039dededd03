"""From what a user says ("torus", a file, a networkx graph) to the graph that ranks average on."""

from __future__ import annotations

import inspect
import numbers
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, get_args, get_type_hints

import networkx as nx

from consensus import resources
from consensus.errors import TopologyError
from consensus.names import suggestion
from consensus.topology import random_graphs, shapes
from consensus.topology.files import locate, read_graph
from consensus.topology.validity import from_edges, validate
from consensus.types import Edge

Family: TypeAlias = Callable[..., Iterator[Edge]]
"""``family(n, *, parameters...) -> edges``; one that has a ``seed`` parameter is random."""

FAMILIES: Mapping[str, Family] = types.MappingProxyType(
    {
        family.__name__: family
        for family in (
            shapes.ring,
            shapes.path,
            shapes.star,
            shapes.complete,
            shapes.grid,
            shapes.torus,
            shapes.hypercube,
            shapes.exponential,
            shapes.tree,
            shapes.barbell,
            random_graphs.random_regular,
            random_graphs.erdos_renyi,
            random_graphs.watts_strogatz,
        )
    }
)
"""Every family by name. The order is that of the documentation."""


def build(spec: nx.Graph[Any] | str, n: int, *, seed: int = 0, **parameters: object) -> nx.Graph[int]:
    """Build the graph on which ``n`` ranks average.

    Parameters
    ----------
    spec
        A networkx graph on nodes 0 .. n-1; or the name of a family, of a file (``.edgelist``, ``.graphml``, ``.adj``, ``.npy``,
        ``.csv``, ``.txt``) or of a bundled topology.
    n
        Number of ranks.
    seed
        Of the random families; the others ignore it. The same seed, parameters and version of networkx give the same graph.
    **parameters
        Of the family, see `consensus topology list`.

    Returns
    -------
    networkx.Graph
        Connected, simple, on nodes 0 .. n-1, adjacency sorted, frozen.

    Raises
    ------
    TopologyError
        If the name is unknown, a parameter is not one of the family or out of range, a file is damaged, or ranks cannot
        average on the graph (see :func:`consensus.topology.validate`).

    Examples
    --------
    >>> list(build("ring", 4).edges)
    [(0, 1), (0, 3), (1, 2), (2, 3)]
    >>> build("random_regular", 16, degree=4, seed=1).number_of_edges()
    32
    >>> build("tours", 16)
    Traceback (most recent call last):
    ...
    consensus.errors.TopologyError: unknown topology 'tours'; did you mean 'torus'? Known: ring, path, ...
    """
    if not isinstance(n, numbers.Integral) or n < 1:
        raise TopologyError(f"the number of ranks must be a positive integer, got {n!r}")
    if not isinstance(spec, str):
        if parameters:
            raise TopologyError(
                f"a graph takes no parameters, got {', '.join(parameters)}; they belong to families given by name"
            )
        return validate(spec, n)
    if spec in FAMILIES:
        family = FAMILIES[spec]
        checked = _check_parameters(spec, parameters)
        if is_random(family):
            checked["seed"] = seed
        # With one rank there is nothing to connect, and degree=4 must not stop a script from being tried out alone.
        return from_edges(n, family(n, **checked) if n > 1 else ())
    found = locate(spec)
    if found is None:
        raise TopologyError(f"unknown topology {spec!r}; {suggestion(spec, [*FAMILIES, *resources.names('topologies')])}")
    if parameters:
        raise TopologyError(f"the file {spec!r} takes no parameters, got {', '.join(parameters)}; they belong to families")
    return validate(read_graph(found), n)


def is_random(family: Family) -> bool:
    """Whether ``family`` depends on a seed."""
    return "seed" in inspect.signature(family).parameters


def parameters_of(family: Family) -> dict[str, inspect.Parameter]:
    """What a user may set of ``family``: keyword parameters by name, without the seed."""
    found = inspect.signature(family).parameters
    return {name: p for name, p in found.items() if p.kind is p.KEYWORD_ONLY and name != "seed"}


def _check_parameters(name: str, given: Mapping[str, object]) -> dict[str, object]:
    accepted = parameters_of(FAMILIES[name])
    hints = get_type_hints(FAMILIES[name])
    for key, value in given.items():
        if key not in accepted:
            raise TopologyError(f"{name} has no parameter {key!r}; {suggestion(key, accepted) if accepted else 'it takes none'}")
        allowed = get_args(hints[key]) or (hints[key],)
        if not any(_fits(value, kind) for kind in allowed):
            words = " or ".join("none" if kind is type(None) else kind.__name__ for kind in allowed)
            raise TopologyError(f"{name}: {key} must be {words}, got {value!r}")
    return dict(given)


# numbers.* rather than int and float: a NumPy integer is as good. bool is an int to Python, but not to who writes degree=True.
_ABSTRACT = {int: numbers.Integral, float: numbers.Real}


def _fits(value: object, kind: type) -> bool:
    return isinstance(value, _ABSTRACT.get(kind, kind)) and not isinstance(value, bool)
