"""Handwritten digits with a parameter server: rank 0 serves, the others train, and nobody waits for the slowest.

    consensus launch -n 5 train_server.py
    mpirun -n 5 python -m mpi4py train_server.py        the same, by hand
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import consensus

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16
labels = torch.tensor(digits.target)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
test, train = order[:360], order[360:]

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

with consensus.attach(model, optimizer, architecture="server", rule="dbw") as handle:  # rank 0 is back when training is over
    if handle.works:
        mine = train[handle.rank - 1 :: handle.size - 1]  # each worker trains on its own share
        for _ in range(20):
            for batch in mine[torch.randperm(len(mine))].split(16):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
                loss.backward()
                handle.report_loss(loss.item())  # dbw decides by it
                optimizer.step()  # pushes the gradient and comes back with newer weights
    handle.average()  # all ranks end with the server's model

if handle.rank == 0:
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
    print(f"{handle.size} ranks, {handle.statistics.rounds} rounds on rank 0, test accuracy {accuracy:.3f}")
