"""What might have been run instead: rules, graphs and numbers of ranks, each in place of the recorded run's."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from itertools import product
from typing import TypeAlias

import networkx as nx
import tomli_w

from consensus import config as run_files
from consensus.config import RunConfig
from consensus.config.overrides import override
from consensus.config.section import OpenSection
from consensus.errors import ConfigError
from consensus.report.load import LoadedRun
from consensus.timing import ComputeTime
from consensus.types import Rank
from consensus.whatif.fit import Fitted
from consensus.whatif.predict import Setting

Choice: TypeAlias = tuple[str, tuple[str, ...]]
"""A label, and changes to a run file as ``--set`` takes them."""

RULES: tuple[Choice, ...] = (
    ("full", ("rule.name=full",)),
    *((f"static_backup:b={b}", ("rule.name=static_backup", f"rule.b={b}")) for b in (1, 2, 3)),
    ("dtur", ("rule.name=dtur",)),
    ("pathsearch", ("rule.name=pathsearch",)),
    ("gap", ("rule.name=gap",)),
)
"""Looked at on the recorded graph if nothing is asked for."""

TOPOLOGIES: tuple[Choice, ...] = tuple((kind, (f"topology.kind={kind}",)) for kind in ("ring", "torus", "complete"))
"""Looked at under the recorded rule if nothing is asked for."""

_AS_RECORDED: tuple[Choice, ...] = (("", ()),)


def spelt(section: OpenSection) -> str:
    """A section as the command line spells it.

    Examples
    --------
    >>> from consensus.config.schema import WaitRule
    >>> spelt(WaitRule(name="static_backup", b=2))
    'static_backup:b=2'
    """
    name = next(value for key in section.selectors if (value := getattr(section, key)) is not None)
    return ":".join([str(name), *(f"{key}={value}" for key, value in section.parameters.items())])


def recorded(run: LoadedRun) -> Setting:
    """What was run."""
    graph: nx.Graph[Rank] = nx.Graph(sorted(run.edges))
    graph.add_nodes_from(range(run.ranks))
    return Setting(spelt(run.config.rule), _topology(run.config), run.config, graph)


def alternatives(
    run: LoadedRun,
    fitted: Fitted,
    rules: Sequence[Choice] = (),
    topologies: Sequence[Choice] = (),
    ranks: Sequence[int] = (),
    stragglers: Choice | None = None,
) -> tuple[list[Setting], list[str]]:
    """All combinations of what is asked for; what is not asked for stays as it was recorded.

    Parameters
    ----------
    run : LoadedRun
    fitted : Fitted
        Its model.
    rules, topologies : sequence of (str, tuple of str)
        See :data:`Choice`. If there are none of either and no ``ranks``: :data:`RULES` on the recorded graph, and
        :data:`TOPOLOGIES` under the recorded rule, as far as they fit.
    ranks : sequence of int
        Numbers of ranks.
    stragglers : (str, tuple of str), optional
        How long local steps take, in place of what was recorded: changes to the run file's stragglers.

    Returns
    -------
    list of Setting
        Each once; without what was recorded, unless its steps take another time.
    list of str
        What of the default ones does not fit, a sentence each.

    Raises
    ------
    ConfigError
        If one that is asked for cannot be.
    """
    found: list[Setting] = []
    notes: list[str] = []
    before = recorded(run)
    compute = None if stragglers is None else _compute(run.config, stragglers)
    if rules or topologies or ranks:
        for rule, topology, size in product(rules or _AS_RECORDED, topologies or _AS_RECORDED, ranks or (run.ranks,)):
            _add(found, before, _setting(run, fitted, rule, topology, size, compute))
        return found, notes
    defaults = [*product(RULES, _AS_RECORDED), *product(_AS_RECORDED, TOPOLOGIES)]
    if compute is not None:
        defaults = [*product(_AS_RECORDED, _AS_RECORDED), *defaults]
    for rule, topology in defaults:
        try:
            _add(found, before, _setting(run, fitted, rule, topology, run.ranks, compute))
        except ConfigError as error:
            notes.append(f"Left out: {error}.")
    return found, notes


def _add(found: list[Setting], before: Setting, setting: Setting) -> None:
    if not any(_same(setting, other) for other in (before, *found)):
        found.append(setting)


def _same(one: Setting, other: Setting) -> bool:
    return (
        one.compute == other.compute
        and one.config.rule.build() == other.config.rule.build()
        and one.graph.nodes == other.graph.nodes
        and set(map(frozenset, one.graph.edges)) == set(map(frozenset, other.graph.edges))
    )


def _compute(config: RunConfig, stragglers: Choice) -> ComputeTime:
    found = _changed(config, stragglers[1]).stragglers.build()
    if found is None:
        raise ConfigError(f"--stragglers {stragglers[0]}: no model of compute times; leave it out for the recorded times")
    return found


def _setting(run: LoadedRun, fitted: Fitted, rule: Choice, topology: Choice, size: int, compute: ComputeTime | None) -> Setting:
    name = ", ".join(filter(None, [rule[0], topology[0], f"{size} ranks" if size != run.ranks else ""])) or "the recorded run"
    if compute is None and size > fitted.ranks:
        raise ConfigError(
            f"--ranks {size}: the trace has times of {fitted.ranks} ranks, expected at most so many: nothing is known of the "
            "others; say how long steps take on all of them, as in --stragglers transient:seconds=0.02:probability=0.05:factor=10"
        )
    try:
        config = _changed(run.config, [*rule[1], *topology[1]])
        if config.rule.is_allreduce:
            raise ConfigError(
                "an all-reduce exchanges over no edges, and the trace does not tell how long it takes; leave it out"
            )
        if config.serves:
            raise ConfigError("a parameter server's links are not those of the trace; compare server rules by `consensus sim`")
        if config.codes:
            raise ConfigError("the links of coded gradients are not those of the trace; compare schemes by `consensus sim`")
        if compute is not None:
            compute.fit(size)
        as_recorded = not topology[1] and size == run.ranks
        graph = recorded(run).graph if as_recorded else config.topology.build(size, config.run.seed)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    return Setting(rule[0] or spelt(config.rule), topology[0] or _topology(config), config, graph, compute)


def _topology(config: RunConfig) -> str:
    # Of a file the end of its path is name enough.
    return spelt(config.topology).rpartition("/")[2]


def _changed(config: RunConfig, changes: Iterable[str]) -> RunConfig:
    table = tomllib.loads(run_files.dumps(config))
    return run_files.loads(tomli_w.dumps(override(table, changes)), "what was asked for")
