"""Handwritten digits by way of a DataLoader with worker processes.

    consensus launch -n 2 train_loader.py

Beside MPI its workers are not forked: consensus.loader_context() starts them from a process that has no MPI. They run this file
once more, to know what it defines; therefore all that trains is in main().
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import consensus


class Digits(Dataset):
    """Images of 64 numbers in 0..1, and which digits they show."""

    def __init__(self):
        digits = load_digits()
        self.images = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16
        self.labels = torch.tensor(digits.target)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]  # a worker's business: decoding, cropping, noise


def main():
    digits = Digits()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    test, train = order[:360], order[360:]
    context = consensus.loader_context()

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)

    with consensus.attach(model, optimizer, topology="ring") as handle:
        mine = Subset(digits, train[handle.rank :: handle.size])  # each rank trains on its own share
        loader = DataLoader(
            mine, batch_size=16, shuffle=True, num_workers=2, multiprocessing_context=context, persistent_workers=True
        )
        for _ in range(20):
            for images, labels in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
        handle.average()  # all ranks end with the mean of all models

    if handle.rank == 0:
        with torch.no_grad():
            accuracy = (model(digits.images[test]).argmax(1) == digits.labels[test]).float().mean()
        print(f"{handle.size} ranks, {handle.statistics.rounds} rounds on rank 0, test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
