"""A master's edges and their workers, as far as time goes: what a node's computing and its link are expected to take."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from consensus.errors import ConfigError
from consensus.names import suggestion
from consensus.timing.checks import SECONDS, Domain, Duration, ParameterError, settle
from consensus.types import Seconds

_SMALLEST = sys.float_info.min
"""The least number whose reciprocal is finite."""

Rate: TypeAlias = Annotated[float, Domain(_SMALLEST, math.inf, "parts per second above 0 (inf: no random part)")]
Loss: TypeAlias = Annotated[float, Domain(0.0, math.nextafter(1.0, 0.0), "a probability of loss, from 0 to below 1")]

N = TypeVar("N", bound="Node")


@dataclass(frozen=True, kw_only=True)
class Node:
    r"""The link of a node to the one above it, which carries one vector down and one up in an iteration.

    A transfer takes :math:`\tau N` seconds; N, how often the vector is sent until it gets through, is geometric:
    :math:`P(N > k) = p^k`. On links that lose nothing p stands for the scatter of their transfers, whatever its cause.

    Parameters
    ----------
    tau : float
        Seconds of one transmission of a vector, either way.
    p : float
        Probability that a transmission is lost, 0 to below 1.
    """

    tau: Duration = 0.0
    p: Loss = 0.0

    def __post_init__(self) -> None:
        problems = [*settle(self), *self._settle_others()]
        if problems:
            raise ParameterError(type(self).__name__, problems)

    def _settle_others(self) -> list[str]:
        """Problems with parameters that are not plain numbers."""
        return []

    @property
    def mean_transfers(self) -> Seconds:
        r"""Seconds that the way down and the way up are expected to take, :math:`2 \tau / (1 - p)`."""
        return 2.0 * self.tau / (1.0 - self.p)


@dataclass(frozen=True, kw_only=True)
class Worker(Node):
    r"""A node that computes gradients: of D parts in :math:`D c + X` seconds, X exponential with mean :math:`D / \gamma`.

    Parameters
    ----------
    c : float
        Seconds that each part takes at least.
    gamma : float
        Rate of the random part, parts per second: the more, the steadier; infinite if there is none.
    measured : sequence of float
        Seconds per part that were measured, by quantiles of equal weight, if any were; kept in ascending order. Where the
        runtime model draws what a part takes, it draws from these in place of c + X; c and gamma, fitted to the same times,
        stay what expectations are made of. Times that are long only now and then are no shifted exponential.
    tau, p : float
        The link to the edge, as in :class:`Node`.

    Examples
    --------
    >>> Worker(c=0.25, gamma=4.0, tau=0.5, p=0.5).mean(load=3)
    3.5
    """

    c: Duration
    gamma: Rate = math.inf
    measured: Sequence[float] = field(default=(), repr=False)

    def _settle_others(self) -> list[str]:
        values = self.measured
        if not isinstance(values, Sequence) or isinstance(values, str):
            return [f"measured = {values!r}: expected a list of seconds per part, or none at all"]
        wrong = [
            f"measured[{number}] = {value!r}: expected {SECONDS.wording}"
            for number, value in enumerate(values)
            if value not in SECONDS
        ]
        if not wrong:
            object.__setattr__(self, "measured", tuple(sorted(map(float, values))))
        return wrong

    @property
    def mean_part(self) -> Seconds:
        r"""Seconds that one part is expected to take, :math:`c + 1 / \gamma`."""
        return self.c + 1.0 / self.gamma

    def mean(self, load: int) -> Seconds:
        r"""Seconds until the edge is expected to have the vector, :math:`E W = D (c + 1 / \gamma) + 2 \tau / (1 - p)`.

        Parameters
        ----------
        load : int
            D, how many parts the worker computes.
        """
        return load * self.mean_part + self.mean_transfers


@dataclass(frozen=True, kw_only=True)
class Edge(Node):
    r"""A node that combines its workers' vectors and computes nothing that takes time.

    Its own expected time :math:`E U` is :attr:`~Node.mean_transfers`.

    Parameters
    ----------
    workers : sequence of Worker
        At least one.
    tau, p : float
        The link to the master, as in :class:`Node`.
    """

    workers: Sequence[Worker]

    def _settle_others(self) -> list[str]:
        object.__setattr__(self, "workers", tuple(self.workers))
        return [] if self.workers else ["workers is empty: expected at least one; leave out an edge without workers"]


@dataclass(frozen=True)
class System:
    """The edges of a master.

    Parameters
    ----------
    edges : sequence of Edge
        At least one.

    Raises
    ------
    ConfigError
        If there is no edge. Edges and workers refuse numbers that they cannot have when they are made.

    Examples
    --------
    >>> steady, shaky = Worker(c=0.02, gamma=100.0), Worker(c=0.02, gamma=10.0)
    >>> System([Edge(workers=[steady] * 3), Edge(workers=[steady, shaky], tau=0.1)]).workers_per_edge
    (3, 2)
    """

    edges: Sequence[Edge]

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(self.edges))
        if not self.edges:
            raise ParameterError("System", ["edges is empty: expected at least one edge with its workers"])

    @property
    def workers_per_edge(self) -> tuple[int, ...]:
        """How many workers each edge has."""
        return tuple(len(edge.workers) for edge in self.edges)

    def to_dict(self) -> dict[str, Any]:
        """Lists, dictionaries and finite numbers, as any JSON or TOML file can hold them.

        An infinite gamma is left out, and so is ``measured`` where nothing was.
        """
        return {"edges": [{**_numbers(edge), "workers": [_of_worker(worker) for worker in edge.workers]} for edge in self.edges]}

    def write(self, path: Path) -> None:
        """Write a file for :meth:`read`: JSON, a line for each edge.

        Parameters
        ----------
        path : Path
            What is there is replaced.

        Raises
        ------
        ConfigError
            If it cannot be written.
        """
        edges = ",\n".join(json.dumps(edge, allow_nan=False) for edge in self.to_dict()["edges"])
        try:
            path.write_text(f'{{"edges": [\n{edges}\n]}}\n', encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror}); give another file") from error

    @classmethod
    def read(cls, path: Path) -> System:
        """Read a file that holds what :meth:`to_dict` gives, as JSON.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        System
            The system.

        Raises
        ------
        ConfigError
            If there is no such file, or it does not describe a system; all that is wrong is listed.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: no system can be read from it: {error}") from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> System:
        """Read what :meth:`to_dict` wrote.

        Parameters
        ----------
        data : mapping
            ``{"edges": [{"tau": ..., "p": ..., "workers": [{"c": ..., "gamma": ..., "tau": ..., "p": ...}]}]}``, and in a
            worker's table ``measured``, a list. What has a default may be left out: tau and p are then 0, gamma infinite, and
            nothing measured.

        Returns
        -------
        System
            The system.

        Raises
        ------
        ConfigError
            If a key is missing or unknown or a number out of range; all places at fault are listed, like
            ``edges[1].workers[0].p``.

        Examples
        --------
        >>> system = System.from_dict({"edges": [{"tau": 0.1, "workers": [{"c": 0.02}]}]})
        >>> system.edges[0].workers[0].mean(load=3)
        0.06
        >>> System.from_dict({"edges": [{"workers": [{"c": 0.02, "gama": 60}]}]})
        Traceback (most recent call last):
        consensus.timing.checks.ParameterError: System: edges[0].workers[0].gama = 60: unknown key; did you mean 'gamma'?
        Known: tau, p, c, gamma, measured
        """
        if not isinstance(data, Mapping):
            raise ParameterError("System", [f"{type(data).__name__}: expected a table with the key edges"])
        problems: list[str] = []
        edges = [_edge(place, entry, problems) for place, entry in _entries("", "edges", data, problems)]
        problems += [f"{key} = {data[key]!r}: unknown key; {suggestion(str(key), ['edges'])}" for key in data if key != "edges"]
        if problems:
            raise ParameterError("System", problems)
        return cls([edge for edge in edges if edge is not None])


def _numbers(node: Node) -> dict[str, float]:
    """Fields that are numbers, in their order, but for infinite ones: those are defaults, and JSON has no word for them."""
    values = {known.name: getattr(node, known.name) for known in fields(node)}
    return {name: value for name, value in values.items() if isinstance(value, float) and math.isfinite(value)}


def _of_worker(worker: Worker) -> dict[str, Any]:
    return {**_numbers(worker), **({"measured": list(worker.measured)} if worker.measured else {})}


def _entries(path: str, name: str, table: Mapping[str, Any], problems: list[str]) -> list[tuple[str, Mapping[str, Any]]]:
    """Tables of the list ``name`` with their places, none if it is no such list."""
    found = table.get(name)
    if isinstance(found, Sequence) and not isinstance(found, str) and all(isinstance(entry, Mapping) for entry in found):
        return [(f"{path}{name}[{index}]", entry) for index, entry in enumerate(found)]
    problems.append(f"{path}{name} = {found!r}: expected a list of tables, one for each of the {name}")
    return []


def _edge(place: str, entry: Mapping[str, Any], problems: list[str]) -> Edge | None:
    before = len(problems)
    workers = [_make(Worker, where, found, problems) for where, found in _entries(f"{place}.", "workers", entry, problems)]
    # Stand-ins for workers that were refused, so that what the edge itself has wrong is found in the same go.
    refused = [Worker(c=0.0)] * (len(problems) > before)
    return _make(Edge, place, {**entry, "workers": [worker for worker in workers if worker] + refused}, problems)


def _make(kind: type[N], place: str, entry: Mapping[str, Any], problems: list[str]) -> N | None:
    known = {one.name: one for one in fields(kind)}
    wrong = [f"{key} = {value!r}: unknown key; {suggestion(str(key), known)}" for key, value in entry.items() if key not in known]
    wrong += [f"{name}: missing" for name, one in known.items() if one.default is MISSING and name not in entry]
    made = None
    if not wrong:
        try:
            made = kind(**entry)
        except ParameterError as error:
            wrong = list(error.problems)
    problems += [f"{place}.{problem}" for problem in wrong]
    return made
