"""Handwritten digits: an ordinary PyTorch script and two lines of consensus.

    python train_digits.py                              one rank alone, no MPI needed
    consensus launch -n 8 train_digits.py               eight ranks
    mpirun -n 8 python -m mpi4py train_digits.py        the same, by hand
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import consensus  # line one

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16
labels = torch.tensor(digits.target)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
test, train = order[:360], order[360:]

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

with consensus.attach(model, optimizer, topology="ring") as handle:  # line two
    mine = train[handle.rank :: handle.size]  # each rank trains on its own share
    for _ in range(20):
        for batch in mine[torch.randperm(len(mine))].split(16):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    handle.average()  # all ranks end with the mean of all models

if handle.rank == 0:
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
    print(f"{handle.size} ranks, {handle.statistics.rounds} rounds on rank 0, test accuracy {accuracy:.3f}")
