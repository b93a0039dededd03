"""``--rule`` of ``consensus compare``."""

from __future__ import annotations

import pytest

from consensus.cli.entrants import TOPOLOGY, entrants
from consensus.errors import ConfigError


def test_parameters_follow_the_name() -> None:
    (gap,) = entrants("gap:quorum=2:window=10")
    assert gap.changes == ("rule.name=gap", "rule.quorum=2", "rule.window=10")
    assert gap.slug == "gap-quorum-2-window-10"


def test_order_is_kept() -> None:
    assert [entrant.label for entrant in entrants("full, dtur,allreduce")] == ["full", "dtur", "allreduce"]


@pytest.mark.parametrize("text", ["", ",", "full,full", "static_backup:b", "static_backup:=2", "static_backup:b=", ":b=2"])
def test_what_is_no_list_of_rules(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        entrants(text)


def test_graphs_and_their_files() -> None:
    assert [each.changes for each in entrants("ring,random_regular:degree=3,my/graph,graph.edgelist", TOPOLOGY)] == [
        ("topology.kind=ring",),
        ("topology.kind=random_regular", "topology.degree=3"),
        ("topology.file=my/graph",),
        ("topology.file=graph.edgelist",),
    ]
    with pytest.raises(ConfigError, match="--topology 'ring:n': expected .*random_regular:degree=4"):
        entrants("ring:n", TOPOLOGY)
