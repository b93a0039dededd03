"""Handwritten digits with coded gradients: exact steps, though an edge and a worker of each other edge may be silent.

    consensus launch -n 10 train_coded.py
    mpirun -n 10 python -m mpi4py train_coded.py        the same, by hand
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import consensus
from consensus.coding import HierarchicalCode

PARTS = 12

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16
labels = torch.tensor(digits.target)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
test, train = order[:360], order[360:]

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)


def part_loss(step: int, part: int) -> tuple[torch.Tensor, int]:
    """The sum of the losses of a part's samples at a step: a part is computed by several workers, and must be the same at all."""
    share = train[part::PARTS]
    batch = share[torch.randint(len(share), (16,))]  # torch's generator is seeded by (step, part)
    return nn.functional.cross_entropy(model(images[batch]), labels[batch], reduction="sum"), len(batch)


# A master, three edges with two workers each.
code = HierarchicalCode([2, 2, 2], PARTS, edge_stragglers=1, worker_stragglers=1)
with consensus.attach(model, optimizer, architecture="coded", code=code) as handle:
    handle.train(part_loss, steps=200)  # all ranks call it; each does what it is for
    handle.average()  # all ranks end with the master's model

if handle.rank == 0:
    model.eval()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
    print(f"{handle.size} ranks, {handle.statistics.rounds} rounds on rank 0, test accuracy {accuracy:.3f}")
