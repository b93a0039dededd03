"""A graph of one's own and a rule object with parameters of one's own.

    consensus launch -n 8 own_graph.py

The ranks form two groups, as on two machines: everybody talks with everybody inside a group, and two bridges join the groups.
Every rank knows one number, its own rank; together they minimise the sum of the squared distances to all of them, whose solution
is their mean.
"""

import networkx as nx
import torch
from mpi4py import MPI

import consensus
from consensus.rules.gap import Gap


def two_groups(size: int) -> nx.Graph:
    """Nodes 0 .. size-1, one per rank."""
    half = size // 2
    graph = nx.disjoint_union(nx.complete_graph(half), nx.complete_graph(size - half))
    graph.add_edges_from((k, half + k) for k in range(min(2, half)))
    return graph


class Guess(torch.nn.Module):
    """One number; called with a rank's own number, it gives the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(()))

    def forward(self, number: float) -> torch.Tensor:
        return 0.5 * (self.value - number) ** 2


comm = MPI.COMM_WORLD
model = Guess()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.99)

# Close a round after one exchange, but let no edge of the backbone go unused for more than two rounds.
with consensus.attach(model, optimizer, topology=two_groups(comm.size), rule=Gap(quorum=1, window=2), comm=comm) as handle:
    for _ in range(200):
        optimizer.zero_grad()
        model(comm.rank).backward()
        optimizer.step()
        schedule.step()
    with handle.averaged():
        mean = model.value.item()

statistics = handle.statistics
report = (
    f"rank {handle.rank}: own guess {model.value.item():.2f}, mean of all {mean:.2f}; {statistics.rounds} rounds, "
    f"{statistics.exchanges} exchanges, on average {statistics.mean_backups:.2f} backup workers"
)
for line in comm.gather(report) or []:
    print(line)
