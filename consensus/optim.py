"""The two lines a training script needs: import consensus, and attach."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from torch.optim import Optimizer

from consensus.alike import flatten, start_alike
from consensus.allreduce import AllReduceHandle
from consensus.coded_handle import attach_coded
from consensus.errors import ConfigError
from consensus.group_options import GroupOptions
from consensus.handle import Handle
from consensus.names import suggestion
from consensus.neighbours import STUCK_AFTER, NeighbourHandle, Order
from consensus.protocol.messages import Message
from consensus.protocol.neighbour import Weights
from consensus.protocol.service import SERVER, Factor, PushMode
from consensus.recording.writer import EventWriter
from consensus.rules import RULES
from consensus.rules import build as build_rule
from consensus.serving import ServerHandle, WorkerHandle, served_handle, warn_of_local_buffers
from consensus.step_scale import StepScale
from consensus.transport.base import Transport
from consensus.transport.launched import default_transport
from consensus.types import Rank, Seconds

if TYPE_CHECKING:
    import networkx as nx

    from consensus.coding.gradient_code import GradientCode

ALLREDUCE = "allreduce"
"""The rule name under which :func:`attach` averages gradients over all ranks instead."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "order": ("adapt-combine", "combine-adapt"),
    "weights": ("static", "active"),
    "buffers": ("average", "local"),
    "step_scale": ("none", "participation"),
    "architecture": ("neighbours", "server", "coded"),
}


def attach(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    topology: nx.Graph | str | None = None,
    rule: Any = None,
    architecture: Literal["neighbours", "server", "coded"] = "neighbours",
    every: int = 1,
    order: Order = "adapt-combine",
    weights: Weights = "static",
    buffers: Literal["average", "local"] = "average",
    comm: Any = None,
    transport: Transport | None = None,
    stall_warning: Seconds = 30.0,
    stall_abort: Seconds = math.inf,
    stuck_after: Seconds = STUCK_AFTER,
    on_message: Callable[[Rank, Message], None] | None = None,
    recorder: EventWriter | None = None,
    step_scale: StepScale = "none",
    push: PushMode | None = None,
    learning_rate: Factor | str | Mapping[str, Any] = "constant",
    servers: int = 1,
    code: GradientCode | None = None,
    payload: str = "float32",
    approximate: bool = False,
    any_kappa: bool = False,
) -> Handle:
    """Make ``optimizer`` average the model with its fastest neighbours after its steps, or step through a server or a code.

    The optimizer is hooked, not replaced: parameter groups, schedulers, clipping, gradient accumulation, GradScaler (a skipped
    step is no round) and ``state_dict`` work as before. All ranks start from rank 0's parameters and buffers. Collective.

    Parameters
    ----------
    model : nn.Module
        On its device and in its dtype already; afterwards its exchanged parameters are views of one flat buffer per dtype.
    optimizer : torch.optim.Optimizer
        Any; those of its parameters that require a gradient are exchanged.
    topology : nx.Graph or str
        A connected graph on nodes 0..n-1, one per rank; or a family's name ("ring", "torus", ...) or an edge-list file. Neither
        the baseline "allreduce" nor a server uses one.
    rule : Rule, ServerRule or str
        When a round closes: a rule of :mod:`consensus.rules` or its name, "dtur" by default; "allreduce" averages all ranks'
        gradients instead, the baseline. With a server, when it makes an update: a rule of :mod:`consensus.rules.serving` or its
        name, "dbw" by default.
    architecture : "neighbours", "server" or "coded"
        With "server", rank 0 serves: its optimizer makes the updates, its call returns when training is over, and its handle's
        ``works`` is false. On the other ranks ``optimizer.step()`` pushes the gradient and fetches weights. With "coded" (exact
        gradients in spite of silent ranks) all ranks call :meth:`consensus.coded_handle.CodedHandle.train` instead of a loop.
    every : int
        Local steps per round, H >= 1.
    order : "adapt-combine" or "combine-adapt"
        Average after the step, or before the next forward pass in training mode.
    weights : "static" or "active"
        Metropolis-Hastings weights on base-graph degrees, or on the exchanges of the round (rules "full" and "dtur" only;
        keeps every neighbour's model until partners have closed, so it needs memory for all of them).
    buffers : "average" or "local"
        Average floating buffers too (BatchNorm's variance by the law of total variance; integer counters never), or leave all
        alone.
    comm : mpi4py.MPI.Comm, optional
        Communicator to duplicate; COMM_WORLD by default. Without an MPI launcher one rank trains alone and MPI is not loaded.
    transport : Transport, optional
        In place of ``comm``: any transport, for tests and emulated stragglers.
    stall_warning : float
        Seconds of waiting in a round after which what is waited for is logged; ``inf`` for never.
    stall_abort : float
        Seconds of waiting in a round after which :class:`consensus.errors.StallError` is raised, which says the same; ``inf`` for
        never. All-reduce waits inside MPI, where neither of the two can be noticed.
    stuck_after : float
        Of neighbours: seconds of waiting in a round after which neighbours that have not come are waited for no more, until they
        come (they may be stopped for good); ``inf`` for never. Rule "full" waits all the same.
    on_message : callable, optional
        Called with (rank, message) for application messages of other ranks.
    recorder : EventWriter, optional
        Takes down everything the exchange protocol is told on this rank, for ``consensus replay``; close it after the handle.

    step_scale : "none" or "participation"
        "participation": multiply each step by (mean rate of rounds of this rank and its neighbours / own rate), so that with
        unlike data the model does not lean towards fast ranks' (:mod:`consensus.step_scale`).
    push : "wait", "interrupt" or "pull", optional
        With a server: how weights get to the workers, see :data:`consensus.protocol.service.PushMode`. By default "wait" under
        rules that take gradients of the present weights only, "pull" under the others.
    learning_rate : callable, str or mapping
        With a server: the learning rate of an update of k of n gradients, in units of the optimizer's, as ``factor(k, n)``; or a
        name of :mod:`consensus.rules.rates`, or a table as in run files, ``{"name": "knee", "table": {1: 0.5, 8: 1.0}}``.
    servers : int
        With a server: how many ranks serve a share of the model each, ranks 0 to ``servers`` - 1. For models without averaged
        buffers.
    code : GradientCode, optional
        With coded gradients: who computes what, as ``consensus.coding.HierarchicalCode([3, 4, 5], parts=24, edge_stragglers=1,
        worker_stragglers=1)``; rank 0 is the master, the edges come next, then their workers, edge by edge.
    payload : "float32", "float64" or "bfloat16"
        With coded gradients: in which dtype they travel.
    approximate : bool
        With coded gradients: go on with the nearest gradient that there is when too few ranks are left for the exact one.
    any_kappa : bool
        With coded gradients: take a code that amplifies rounding errors more than ``payload`` should have to bear.

    Returns
    -------
    Handle
        A context manager; leaving it detaches and says goodbye to the other ranks.

    Raises
    ------
    ConfigError
        For a bad argument, or one that differs between ranks.
    TopologyError
        If the graph does not fit the ranks.

    Examples
    --------
    One rank alone, no MPI needed:

    >>> import torch, consensus
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with consensus.attach(model, optimizer, topology="ring") as handle:
    ...     model(torch.ones(1, 2)).sum().backward()
    ...     optimizer.step()
    >>> handle.statistics.rounds
    1
    """
    chosen = {"order": order, "weights": weights, "buffers": buffers, "step_scale": step_scale, "architecture": architecture}
    for name, value in chosen.items():
        if value not in _CHOICES[name]:
            raise ConfigError(f"{name} = {value!r}; {suggestion(str(value), _CHOICES[name])}")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ConfigError(f"every = {every!r}, expected a whole number of local steps per round, 1 or more")
    for name, seconds in (("stall_warning", stall_warning), ("stall_abort", stall_abort), ("stuck_after", stuck_after)):
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise ConfigError(f"{name} = {seconds!r}, expected seconds above 0, or math.inf for never")
    own = transport is None  # of the whole process, which ends with it
    transport = default_transport(comm) if transport is None else transport
    if architecture == "coded":
        coded = attach_coded(
            model,
            optimizer,
            code=_the_code(code, plain=topology is None and recorder is None and rule is None and servers == 1),
            buffers=buffers,
            transport=transport,
            payload=payload,
            push="wait" if push is None else push,
            approximate=approximate,
            any_kappa=any_kappa,
            stall_warning=stall_warning,
            stall_abort=stall_abort,
            on_message=on_message,
        )
        return _leaving(coded, own)
    if code is not None or payload != "float32" or approximate or any_kappa:
        raise ConfigError(
            'code, payload, approximate and any_kappa say how gradients are coded; add architecture="coded", or leave them out'
        )
    if architecture == "server":
        default = every == 1 and order == "adapt-combine" and weights == "static" and step_scale == "none"
        if topology is not None or recorder is not None or not default:
            raise ConfigError(
                'architecture = "server": topology, recorder, every, order, weights and step_scale do not apply to it; '
                "leave them out"
            )
        handle = attach_served(
            model,
            optimizer,
            rule="dbw" if rule is None else rule,
            buffers=buffers,
            transport=transport,
            push=push,
            learning_rate=learning_rate,
            servers=servers,
            stall_warning=stall_warning,
            stall_abort=stall_abort,
            on_message=on_message,
        )
        if isinstance(handle, ServerHandle):
            handle.serve()
        return _leaving(handle, own)
    if push is not None or learning_rate != "constant" or servers != 1:
        raise ConfigError(
            'push, learning_rate and servers say how a parameter server works; add architecture="server", or leave them out'
        )
    rule = "dtur" if rule is None else rule
    flat = flatten(model, optimizer, buffers)
    if rule == ALLREDUCE:
        if recorder is not None:
            raise ConfigError('rule "allreduce" has no events to record; leave out recorder')
        if every != 1 or order != "adapt-combine" or weights != "static" or step_scale != "none":
            raise ConfigError(
                'rule "allreduce" averages gradients at every step: every, order, weights and step_scale do not apply to it'
            )
        start_alike(transport, flat, {"model": flat.signature, "rule": ALLREDUCE})
        return AllReduceHandle(model, optimizer, flat, transport)
    if isinstance(rule, str):
        if rule not in RULES:
            raise ConfigError(f"unknown rule {rule!r}; {suggestion(rule, (*RULES, ALLREDUCE))}")
        rule = build_rule(rule)
    elif isinstance(rule, type) or not callable(getattr(rule, "decide", None)):
        raise ConfigError(f"rule = {rule!r}, expected a rule's name or a rule object, as consensus.rules.build('gap', window=5)")
    if topology is None:
        raise ConfigError('topology is missing: whose neighbour is whose? For example topology="ring", or any NetworkX graph')
    from consensus.topology import build as build_graph

    graph = build_graph(topology, transport.size)
    adjacency = {rank: tuple(sorted(graph[rank])) for rank in sorted(graph)}
    agreed = {"model": flat.signature, "rule": repr(rule), "every": every, "order": order, "weights": weights}
    agreed["topology"] = adjacency
    start_alike(transport, flat, agreed)
    neighbours = NeighbourHandle(
        model,
        optimizer,
        flat,
        transport,
        adjacency=adjacency,
        rule=rule,
        every=every,
        order=order,
        weights=weights,
        stall_warning=stall_warning,
        stall_abort=stall_abort,
        stuck_after=stuck_after,
        on_message=on_message,
        recorder=recorder,
        step_scale=step_scale,
    )
    return _leaving(neighbours, own)


def _leaving(handle: Handle, own: bool) -> Handle:
    """``handle``, which leaves at the latest when the process does."""
    if own and handle.size > 1:
        handle.leave_at_exit()
    return handle


def _the_code(code: GradientCode | None, plain: bool) -> GradientCode:
    if code is None:
        raise ConfigError(
            'architecture = "coded": code is missing: who computes what? For example code=consensus.coding.HierarchicalCode('
            "[3, 4, 5], parts=24, edge_stragglers=1, worker_stragglers=1)"
        )
    if not plain:
        raise ConfigError('architecture = "coded": topology, rule, recorder and servers do not apply to it; leave them out')
    return code


def attach_served(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    rule: Any,
    buffers: Literal["average", "local"],
    transport: Transport,
    push: PushMode | None,
    learning_rate: Factor | str | Mapping[str, Any],
    servers: int = 1,
    stall_warning: Seconds,
    stall_abort: Seconds,
    on_message: Callable[[Rank, Message], None] | None = None,
) -> ServerHandle | WorkerHandle:
    """As :func:`attach` with a server, but on the serving rank return at once, before :meth:`ServerHandle.serve`."""
    from consensus.rules.rates import as_factor, described
    from consensus.rules.serving import build_server

    if isinstance(servers, bool) or not isinstance(servers, int):
        raise ConfigError(f"servers = {servers!r}, expected how many ranks serve, a whole number, 1 or more")
    if isinstance(rule, str):
        rule = build_server(rule)
    elif isinstance(rule, type) or not hasattr(rule, "synchronous"):
        raise ConfigError(
            f"rule = {rule!r}, expected a server rule's name or a server rule object, as "
            "consensus.rules.serving.build_server('backup', b=2)"
        )
    factor = as_factor(learning_rate, max(transport.size - servers, 1))
    flat = flatten(model, optimizer, buffers, servers)
    agreed = {
        "model": flat.signature,
        "optimizer": GroupOptions(optimizer).signature,
        "rule": repr(rule),
        "push": push,
        "learning_rate": described(factor),
        "servers": servers,
    }
    start_alike(transport, flat, agreed)
    if transport.rank == SERVER:
        warn_of_local_buffers(model, buffers)
    return served_handle(
        model,
        optimizer,
        flat,
        transport,
        rule=rule,
        push=push,
        factor=factor,
        servers=servers,
        stall_warning=stall_warning,
        stall_abort=stall_abort,
        on_message=on_message,
    )
