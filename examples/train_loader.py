"""Handwritten digits by way of a DataLoader with worker processes.

    consensus launch -n 2 train_loader.py

Beside MPI workers are better not forked: consensus.loader_context() starts them from a process that has no MPI. They run this
file once more, to know what it defines. Therefore all that trains, and all that only training needs, is in main().
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import consensus


class Noisy(Dataset):
    """Images that are never twice the same: the work of the loader's processes."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index] + 0.05 * torch.randn(64), self.labels[index]


def main():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order[:360], order[360:]

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    with consensus.attach(model, optimizer, topology="ring") as handle:
        mine = Subset(Noisy(images, labels), train[handle.rank :: handle.size])  # each rank trains on its own share
        loader = DataLoader(
            mine,
            batch_size=16,
            shuffle=True,
            num_workers=2,
            persistent_workers=True,
            multiprocessing_context=consensus.loader_context(),
        )
        for _ in range(10):
            for inputs, targets in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
        handle.average()  # all ranks end with the mean of all models

    if handle.rank == 0:
        with torch.no_grad():
            accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
        print(f"{handle.size} ranks, {handle.statistics.rounds} rounds on rank 0, test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
