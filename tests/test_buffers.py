"""Buffers: pooled BatchNorm statistics, what stays local, and buffers that modules replace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from consensus.buffers import averaged_buffers
from consensus.errors import ConfigError
from consensus.flat import FlatModel


class Replacing(nn.Module):
    """Replaces its buffer instead of writing into it."""

    average: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("average", torch.full((3,), value))
        self.register_buffer("constant", torch.full((4,), value), persistent=False)
        self.register_buffer("flags", torch.tensor([value > 0]))


def swap(models: list[FlatModel], weight: float | None = 0.5, share: float = 0.5) -> None:
    """Let two ranks exchange."""
    for model in models:
        model.begin()
    for me, model in enumerate(models):
        model.expect(1 - me, weight)
        for index, data in enumerate(models[1 - me].chunks):
            model.deliver(1 - me, index, data.copy())
    for me, model in enumerate(models):
        model.mix(((1 - me, share),))


def flatten(modules: list[Any], **options: Any) -> list[FlatModel]:
    return [FlatModel(module, module.parameters(), **({"buffers": "average"} | options)) for module in modules]


@pytest.mark.parametrize("staging", [None, True])
@pytest.mark.parametrize("mean", [0.0, 3000.0])
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_pooled_statistics_are_those_of_the_pooled_data(kind: type[nn.Module], mean: float, staging: bool | None) -> None:
    # With a mean of 3000 and a variance of 1, E[x^2] - mean^2 has no correct digit in float32.
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(2, 500, 5, generator=generator, dtype=torch.float64) + torch.tensor([[[mean]], [[mean + 2.0]]])
    norms: list[Any] = [kind(5), kind(5)]
    for norm, rows in zip(norms, data, strict=True):
        norm.running_mean.copy_(rows.mean(0))
        norm.running_var.copy_(rows.var(0, correction=0))
    swap(flatten(norms, staging=staging))
    pooled = data.reshape(-1, 5)
    for norm in norms:
        torch.testing.assert_close(norm.running_mean, pooled.mean(0).float(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(norm.running_var, pooled.var(0, correction=0).float(), rtol=1e-3, atol=0.0)


def test_weights_of_the_mixture() -> None:
    norms = [nn.BatchNorm1d(1), nn.BatchNorm1d(1)]
    for norm, mean, variance in zip(norms, (0.0, 4.0), (1.0, 3.0), strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.fill_(mean)
        norm.running_var.fill_(variance)
    swap(flatten(norms), weight=None, share=0.25)
    # Rank 0: mean 1, variance .75 (1 + 1) + .25 (3 + 9).
    assert (norms[0].running_mean, norms[0].running_var) == (torch.tensor([1.0]), torch.tensor([4.5]))
    assert (norms[1].running_mean, norms[1].running_var) == (torch.tensor([3.0]), torch.tensor([5.5]))


def test_counters_stay_local() -> None:
    norms = [nn.BatchNorm2d(2), nn.BatchNorm2d(2)]
    for count, norm in enumerate(norms):
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.fill_(10 + count)
    swap(flatten(norms))
    assert [int(norm.state_dict()["num_batches_tracked"]) for norm in norms] == [10, 11]


def test_policy_local_touches_no_buffer() -> None:
    norms = [nn.BatchNorm1d(2), nn.BatchNorm1d(2)]
    norms[1].get_buffer("running_mean").fill_(5.0)
    flats = flatten(norms, buffers="local")
    swap(flats)
    assert [norm.get_buffer("running_mean").tolist() for norm in norms] == [[0.0, 0.0], [5.0, 5.0]]
    assert flats[0].numel == 32  # weight and bias, padded


def test_without_running_statistics() -> None:
    assert averaged_buffers(nn.BatchNorm1d(2, track_running_stats=False), "average") == {}


def test_instance_norm_is_averaged_plainly() -> None:
    norms = [nn.InstanceNorm1d(1, affine=True, track_running_stats=True) for _ in range(2)]
    norms[1].get_buffer("running_mean").fill_(4.0)
    norms[1].get_buffer("running_var").fill_(3.0)
    swap(flatten(norms))
    assert [norm.get_buffer("running_var").item() for norm in norms] == [2.0, 2.0]


@pytest.mark.parametrize("staging", [None, True])
def test_a_module_may_replace_its_buffer(staging: bool | None) -> None:
    modules = [Replacing(0.0), Replacing(1.0)]
    flats = flatten(modules, staging=staging)
    for module in modules:
        module.average = module.average + 2.0
    swap(flats)
    for module, constant in zip(modules, (0.0, 1.0), strict=True):
        assert module.average.tolist() == [2.5, 2.5, 2.5]
        # Left out of the state dict: a constant that a rank derives for itself. And flags are no numbers.
        assert module.get_buffer("constant").tolist() == [constant] * 4
        assert module.get_buffer("flags").tolist() == [constant > 0]


@pytest.mark.parametrize("value", [torch.zeros(4), None])
def test_a_buffer_that_changes_its_shape(value: Tensor | None) -> None:
    module = Replacing(0.0)
    (flat,) = flatten([module])
    module.average = value  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"'average' had shape \(3,\).* now; .*buffers='local'"):
        flat.begin()


def test_constants_do_not_drift() -> None:
    modules = [Replacing(0.1), Replacing(0.1)]
    flats = flatten(modules)
    for _ in range(10):
        swap(flats, weight=1 / 3, share=1 / 3)
    assert torch.equal(modules[0].average, torch.full((3,), 0.1))


def test_bfloat16_model_with_float32_statistics() -> None:
    modules = [nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(2)]
    for value, module in enumerate(modules):
        module[0].to(torch.bfloat16)
        module[1].get_buffer("running_mean").fill_(value)
    flats = flatten(modules)
    swap(flats)
    assert [dtype for dtype, _ in flats[0].layout] == [torch.bfloat16, torch.float32]
    assert modules[0][1].get_buffer("running_mean").tolist() == [0.5] * 3


def test_statistics_of_two_precisions_are_averaged_plainly() -> None:
    norms = [nn.BatchNorm1d(1) for _ in range(2)]
    for value, norm in enumerate(norms):
        norm.running_var = torch.tensor([1.0 + value], dtype=torch.float64)
        norm.get_buffer("running_mean").fill_(value)
    swap(flatten(norms))
    assert norms[0].get_buffer("running_var").item() == 1.5


def test_a_lost_peers_buffers_do_not_count() -> None:
    norms = [nn.BatchNorm1d(1), nn.BatchNorm1d(1), nn.BatchNorm1d(1)]
    for value, norm in enumerate(norms):
        norm.get_buffer("running_mean").fill_(value)
    flats = flatten(norms)
    for flat in flats:
        flat.begin()
    for peer in (1, 2):
        flats[0].expect(peer, 0.25)
        flats[0].deliver(peer, 0, flats[peer].chunks[0])
    flats[0].forget(2)
    flats[0].mix(((1, 0.25),))
    assert norms[0].get_buffer("running_mean").item() == 0.25


def test_mean_over_ranks_pools_statistics() -> None:
    norm = nn.BatchNorm1d(1)
    norm.get_buffer("running_mean").fill_(1000.0)
    (flat,) = flatten([norm])

    def mean_in_place(array: NDArray[Any]) -> None:
        # The other rank's weight and bias are zero, its mean is 1002 and its variance 1, so its squared deviation from 1001 is 1.
        if array.dtype == np.float64 and array.size == 32:
            array[0] += 1002.0
            array[16] += 1.0
        elif array.dtype == np.float64:
            array[0] += 1.0
        array /= 2

    flat.mean_over(mean_in_place)
    assert norm.get_buffer("running_mean").item() == 1001.0
    assert norm.get_buffer("running_var").item() == 2.0


def test_unknown_policy() -> None:
    with pytest.raises(ConfigError, match="'mean' is not known; use one of 'average', 'local'"):
        averaged_buffers(nn.Linear(1, 1), "mean")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_buffer() -> None:
    with pytest.raises(ConfigError, match=r"'running_mean' has no shape yet"):
        averaged_buffers(nn.LazyBatchNorm1d(), "average")
