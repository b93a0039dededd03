"""The flat model: views, chunks, mixing, snapshots, and what it says when a parameter is no longer a view."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from consensus.errors import ConfigError, ProtocolError
from consensus.flat import FlatModel


class Mixed(nn.Module):
    """Two dtypes, a 0-dim, an empty and a non-contiguous parameter, a frozen one, and a tied pair."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.embedding = nn.Parameter(torch.randn(5, 3, generator=draw))
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding
        self.scale = nn.Parameter(torch.randn((), generator=draw, dtype=torch.float64))
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.turned = nn.Parameter(torch.randn(4, 2, generator=draw).t())
        self.frozen = nn.Parameter(torch.randn(3, generator=draw), requires_grad=False)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x)) * self.scale.float()


def flatten(module: nn.Module, **options: Any) -> FlatModel:
    return FlatModel(module, [p for p in module.parameters() if p.requires_grad], **({"buffers": "average"} | options))


def vector(values: Sequence[float], dtype: torch.dtype = torch.float32) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(torch.tensor(values, dtype=dtype))])


def deliver(to: FlatModel, peer: int, source: FlatModel, chunks: slice = slice(None)) -> None:
    for index, data in list(enumerate(source.chunks))[chunks]:
        to.deliver(peer, index, data.copy())


def exchange(flats: Sequence[FlatModel], pairs: Sequence[tuple[int, int]], weight: float, known: bool = True) -> None:
    """One round of everybody: the pairs swap, then all mix."""
    partners: dict[int, list[int]] = {rank: [] for rank in range(len(flats))}
    for a, b in pairs:
        partners[a].append(b)
        partners[b].append(a)
    for flat in flats:
        flat.begin()
    for rank, flat in enumerate(flats):
        for peer in partners[rank]:
            flat.expect(peer, weight if known else None)
            deliver(flat, peer, flats[peer])
    for rank, flat in enumerate(flats):
        flat.mix([(peer, weight) for peer in partners[rank]])


def on_all(flats: Sequence[FlatModel], act: Callable[[FlatModel, Callable[[NDArray[Any]], None]], None]) -> None:
    """Run ``act`` at all ranks, one thread each, with a mean that is collective."""
    arrays: list[NDArray[Any]] = [np.empty(0)] * len(flats)
    barrier = threading.Barrier(len(flats), timeout=30)

    def work(rank: int) -> None:
        def mean(array: NDArray[Any]) -> None:
            arrays[rank] = array
            barrier.wait()
            result = sum(other.copy() for other in arrays) / len(arrays)
            barrier.wait()
            array[...] = result
            barrier.wait()

        act(flats[rank], mean)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(flats))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_values_shapes_and_gradients_survive() -> None:
    module = Mixed()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    flat = flatten(module)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.shape == before[name].shape
    module(torch.randn(4, 3)).sum().backward()
    assert module.head.weight.grad is module.embedding.grad is not None
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    optimizer.step()
    flat.begin()
    sent = torch.from_numpy(flat.chunks[0].copy()).view(torch.float32)
    assert torch.equal(sent[:15], module.embedding.detach().reshape(-1))


def test_one_region_a_dtype_without_frozen_and_tied() -> None:
    # float32: embedding 15, empty 0, turned 8, norm 3 + 3 and its statistics 3 + 3, each padded to 16; float64: scale 1, to 8.
    flat = flatten(Mixed())
    assert flat.layout == [(torch.float32, 6 * 16), (torch.float64, 8)]
    assert (flat.numel, flat.nbytes) == (104, 6 * 64 + 64)


@pytest.mark.parametrize("staging", [None, True])
@pytest.mark.parametrize("known", [True, False])
def test_mix_is_the_weighted_mean(staging: bool | None, known: bool) -> None:
    modules = [Mixed(seed) for seed in range(3)]
    flats = [flatten(module, staging=staging) for module in modules]
    before = [{name: p.detach().clone() for name, p in module.named_parameters()} for module in modules]
    exchange(flats, [(0, 1), (0, 2)], 0.25, known)
    for name, parameter in modules[0].named_parameters():
        want = before[0][name] if name == "frozen" else 0.5 * before[0][name] + 0.25 * (before[1][name] + before[2][name])
        torch.testing.assert_close(parameter.detach(), want)
    assert modules[0].head.weight is modules[0].embedding


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.float64, 1e-14), (torch.complex64, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
def test_every_dtype(dtype: torch.dtype, tolerance: float) -> None:
    values = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    modules = [nn.ParameterList([nn.Parameter(row.clone())]) for row in values]
    exchange([flatten(module, chunk_bytes=512) for module in modules], [(0, 1), (1, 2), (0, 2)], 1 / 3)
    exact = values.to(torch.complex128).mean(0)
    for module in modules:
        torch.testing.assert_close(module[0].detach().to(torch.complex128), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("values", "weight", "mean"),
    [
        # Exactly 1.00625; bfloat16 has 8 bits, and each partial sum rounded to them would leave 1.0.
        ((1.0, 1.0078125, 1.0078125, 1.0078125), 0.2, 1.0078125),
        # Exactly 1.20625; the product rounded to 8 bits would lead to 1.2109375.
        ((1.0, 1.6875), 0.3, 1.203125),
    ],
)
def test_low_precision_is_accumulated_in_float32(values: tuple[float, ...], weight: float, mean: float) -> None:
    modules = [vector([value], torch.bfloat16) for value in values]
    exchange([flatten(module) for module in modules], [(0, peer) for peer in range(1, len(values))], weight)
    assert modules[0][0].item() == mean


def test_mean_is_preserved_on_a_ring_with_random_exchanges() -> None:
    draw = random.Random(1)
    values = torch.randn(4, 777, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    modules = [nn.ParameterList([nn.Parameter(row.float())]) for row in values]
    flats = [flatten(module, chunk_bytes=1024) for module in modules]
    before = torch.stack([module[0].detach().double() for module in modules]).mean(0)
    ring = [(0, 1), (1, 2), (2, 3), (0, 3)]
    for _ in range(300):
        exchange(flats, draw.sample(ring, draw.randint(0, 4)), 1 / 3, draw.random() < 0.5)
    after = torch.stack([module[0].detach().double() for module in modules])
    torch.testing.assert_close(after.mean(0), before, rtol=0.0, atol=3e-6)
    torch.testing.assert_close(after, after.mean(0).expand_as(after), rtol=0.0, atol=3e-6)


def test_rounded_weights_do_not_make_the_model_grow() -> None:
    # 1/3 and 1 - 2/3, each rounded to float32, sum to 1 + 3e-8: 1.2e-5 in these rounds, and always upwards. The noise stands for
    # training; without it, rounding would hold models that agree where they are.
    draw = torch.Generator().manual_seed(0)
    modules = [nn.ParameterList([nn.Parameter(torch.rand(4000, generator=draw) + 0.5)]) for _ in range(3)]
    flats = [flatten(module) for module in modules]

    def total() -> float:
        return float(sum(module[0].detach().double().sum() for module in modules))

    before, added = total(), 0.0
    for _ in range(500):
        without = total()
        for module in modules:
            module[0].data.add_(torch.randn(4000, generator=draw), alpha=1e-3)
        added += total() - without
        exchange(flats, [(0, 1), (1, 2), (0, 2)], 1 / 3)
    assert abs((total() - added) / before - 1.0) < 5e-6


def test_order_of_arrival_matters_only_to_rounding() -> None:
    values = torch.randn(4, 200, generator=torch.Generator().manual_seed(2))
    results = []
    for order in ([1, 2, 3], [3, 1, 2]):
        flats = [flatten(nn.ParameterList([nn.Parameter(row.clone())])) for row in values]
        for flat in flats:
            flat.begin()
        for peer in order:
            flats[0].expect(peer, 0.25)
            deliver(flats[0], peer, flats[peer])
        flats[0].mix([(peer, 0.25) for peer in (1, 2, 3)])
        results.append(torch.from_numpy(flats[0].snapshot()[0]).view(torch.float32))
    torch.testing.assert_close(*results)


def test_without_weights_nothing_is_touched() -> None:
    module = Mixed()
    flat = flatten(module, staging=True)
    before = [data.tobytes() for data in flat.snapshot()]
    flat.begin()
    flat.expect(1, 0.5)
    deliver(flat, 1, flatten(Mixed(1)), slice(1))
    flat.forget(1)
    flat.mix(())
    assert [data.tobytes() for data in flat.snapshot()] == before


@pytest.mark.parametrize("size", [64, 100, 1 << 20])
def test_chunks_cover_the_model_within_bounds(size: int) -> None:
    flat = flatten(Mixed(), chunk_bytes=size)
    assert all(0 < chunk.nbytes <= size and chunk.nbytes % 8 == 0 for chunk in flat.chunks)
    assert sum(chunk.nbytes for chunk in flat.chunks) == flat.nbytes
    assert b"".join(chunk.tobytes() for chunk in flat.chunks) == b"".join(data.tobytes() for data in flat.snapshot())
    assert len(flat.chunks) == (2 if size > 1000 else 7)


def test_chunks_are_of_about_equal_size() -> None:
    flat = flatten(nn.Linear(520, 520, bias=False))  # 1.03 of a chunk
    assert [chunk.nbytes for chunk in flat.chunks] == [540800, 540800]


@pytest.mark.parametrize("chunk_bytes", [64, 192, 256, 1 << 20])
def test_tail_and_body_may_share_a_chunk(chunk_bytes: int) -> None:
    modules = [nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(20)) for _ in range(2)]
    for value, module in enumerate(modules):
        nn.init.constant_(module[0].weight, value)
        module[1].get_buffer("running_mean").copy_(torch.arange(20.0) + 2 * value)
    exchange([flatten(module, chunk_bytes=chunk_bytes) for module in modules], [(0, 1)], 0.5)
    assert modules[0][0].weight.unique().tolist() == [0.5]
    assert modules[0][1].get_buffer("running_mean").tolist() == [value + 1.0 for value in range(20)]
    assert modules[0][1].get_buffer("running_var").unique().tolist() == [2.0]


def test_a_lost_peers_chunks_keep_rows_stochastic() -> None:
    modules = [vector([float(rank)] * 32) for rank in range(3)]
    flats = [flatten(module, chunk_bytes=64) for module in modules]
    flats[0].begin()
    for peer in (1, 2):
        flats[0].expect(peer, 0.25)
    deliver(flats[0], 1, flats[1])
    deliver(flats[0], 2, flats[2], slice(1))
    flats[0].forget(2)
    flats[0].mix(((1, 0.25),))
    assert modules[0][0].tolist() == [0.75] * 16 + [0.25] * 16
    # Nothing of it is left in the next round.
    exchange(flats[:2], [(0, 1)], 0.5)
    assert modules[0][0].tolist() == [0.875] * 16 + [0.625] * 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chunk_is_mixed_once_it_has_been_swapped_with_everybody(dtype: torch.dtype) -> None:
    modules = [vector([float(rank)] * 64, dtype) for rank in range(3)]
    flats = [flatten(module, chunk_bytes=128, buffers="local") for module in modules]
    own, half = modules[0][0], 128 // dtype.itemsize
    flat = flats[0]
    flat.begin()
    flat.expect(1, 0.25)
    deliver(flat, 1, flats[1], slice(1))
    flat.release(1, 0)
    assert own.unique().tolist() == [0.0]  # another exchange may come
    flat.expect(2, 0.25, last=True)
    flat.release(2, 0)
    assert own.unique().tolist() == [0.0]
    deliver(flat, 2, flats[2], slice(1))
    assert own[:half].unique().tolist() == [0.75]
    assert own[half:].unique().tolist() in ([0.0], [])
    for peer in (1, 2):
        deliver(flat, peer, flats[peer], slice(1, None))
    assert own[half:].unique().tolist() in ([0.0], [])  # arrived, but still on its way to both
    for peer in (1, 2):
        for index in range(1, len(flat.chunks)):
            flat.release(peer, index)
    assert own.unique().tolist() == [0.75]
    flat.mix(((1, 0.25), (2, 0.25)))
    assert own.unique().tolist() == [0.75]


def test_after_a_loss_chunks_wait_for_the_end_of_the_round() -> None:
    modules = [vector([float(rank)] * 32) for rank in range(3)]
    flats = [flatten(module, chunk_bytes=64) for module in modules]
    flat = flats[0]
    flat.begin()
    flat.expect(1, 0.25)
    deliver(flat, 1, flats[1])
    flat.release(1, 0)
    flat.forget(1)
    flat.expect(2, 0.25, last=True)
    deliver(flat, 2, flats[2])
    assert modules[0][0].unique().tolist() == [0.0]  # chunk 1 came twice, and has left for nobody
    flat.mix(((2, 0.25),))
    assert modules[0][0].unique().tolist() == [0.75]


def test_equal_models_stay_bit_for_bit() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(3)).tolist()
    modules = [vector(values) for _ in range(4)]
    flats = [flatten(module) for module in modules]
    before = modules[0][0].detach().clone()
    for _ in range(20):
        exchange(flats, [(0, 1), (1, 2), (0, 2), (2, 3)], 0.3)
    assert all(torch.equal(module[0], before) for module in modules)


@pytest.mark.parametrize("staging", [None, True])
def test_snapshot_and_restore(staging: bool | None) -> None:
    modules = [Mixed(0), Mixed(1)]
    flats = [flatten(module, staging=staging) for module in modules]
    modules[1].norm.get_buffer("running_mean").fill_(3.0)
    flats[0].restore(flats[1].snapshot())
    for name, value in modules[1].state_dict().items():
        assert torch.equal(modules[0].state_dict()[name], value) == (name != "frozen"), name


def test_a_snapshot_is_a_copy() -> None:
    module = vector([1.0, 2.0])
    flat = flatten(module)
    snapshot = flat.snapshot()
    nn.init.zeros_(module[0])
    flat.restore(snapshot)
    assert module[0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("staging", [None, True])
def test_initial_state_covers_frozen_parameters_and_all_buffers(staging: bool | None) -> None:
    modules = [Mixed(0), Mixed(1)]
    modules[0].norm(torch.randn(4, 3))
    flats = [flatten(module, staging=staging) for module in modules]
    state = flats[1].initial_state()
    for mine, root in zip(state, flats[0].initial_state(), strict=True):
        mine[:] = root
    flats[1].load_initial_state(state)
    for name, value in modules[0].state_dict().items():
        assert torch.equal(modules[1].state_dict()[name], value), name


def test_initial_state_writes_through_copies_of_noncontiguous_buffers() -> None:
    modules = [nn.Linear(2, 2), nn.Linear(2, 2)]
    for value, module in enumerate(modules):
        module.register_buffer("turned", torch.arange(6).reshape(2, 3).t() + value)
        module.register_buffer("expanded", torch.tensor(value).expand(4))
    flats = [flatten(module, buffers="local") for module in modules]
    state = flats[1].initial_state()
    for mine, root in zip(state, flats[0].initial_state(), strict=True):
        mine[:] = root
    flats[1].load_initial_state(state)
    assert torch.equal(modules[1].get_buffer("turned"), modules[0].get_buffer("turned"))


@pytest.mark.parametrize("staging", [None, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.complex64])
def test_mean_over_ranks(dtype: torch.dtype, staging: bool | None) -> None:
    modules = []
    for rank in range(3):
        module = nn.Sequential(nn.BatchNorm1d(4), nn.ParameterList([nn.Parameter(torch.full((9,), 3.0 * rank, dtype=dtype))]))
        module[0].get_buffer("running_mean").fill_(rank)
        modules.append(module)
    on_all([flatten(module, staging=staging) for module in modules], lambda flat, mean: flat.mean_over(mean))
    for module in modules:
        torch.testing.assert_close(module[1][0].detach(), torch.full((9,), 3.0, dtype=dtype))
        torch.testing.assert_close(module[0].get_buffer("running_mean"), torch.ones(4))
        torch.testing.assert_close(module[0].get_buffer("running_var"), torch.full((4,), 1 + 2 / 3))


def test_mean_over_one_rank_changes_nothing() -> None:
    flat = flatten(Mixed())
    before = [data.tobytes() for data in flat.snapshot()]
    flat.mean_over(lambda array: None)
    assert [data.tobytes() for data in flat.snapshot()] == before


def move(module: Mixed) -> None:
    module.double()


def assign(module: Mixed) -> None:
    module.turned.data = module.turned.data.clone()


def replace(module: Mixed) -> None:
    module.turned = nn.Parameter(module.turned.detach().clone())


@pytest.mark.parametrize(("change", "name"), [(move, "embedding"), (assign, "turned"), (replace, "turned")])
def test_a_parameter_that_is_no_view_any_more_is_named(change: Callable[[Mixed], None], name: str) -> None:
    module = Mixed()
    flat = flatten(module)
    flat.begin()
    change(module)
    with pytest.raises(ConfigError, match=rf"'{name}' was moved, cast or re-assigned .*attach after model\.to"):
        flat.begin()


def test_state_dict_round_trip_keeps_views() -> None:
    module, other = Mixed(0), Mixed(1)
    flat = flatten(module)
    module.load_state_dict(other.state_dict())
    flat.begin()
    assert torch.equal(torch.from_numpy(flat.chunks[0]).view(torch.float32)[:15], other.embedding.detach().reshape(-1))


def test_a_deep_copy_is_independent() -> None:
    module = Mixed()
    flat = flatten(module)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.zero_()
    flat.begin()
    assert all(value.any() for name, value in module.state_dict().items() if name in ("embedding", "scale", "norm.running_var"))
    assert twin.head.weight is twin.embedding


def test_parameters_tied_by_memory_stay_tied() -> None:
    first = nn.Parameter(torch.ones(3))
    module = nn.ParameterList([first, nn.Parameter(first.data)])
    flat = flatten(module)
    with torch.no_grad():
        module[0].fill_(2.0)
    assert module[1].tolist() == [2.0, 2.0, 2.0]
    assert flat.numel == 16


def test_channels_last_keeps_values() -> None:
    module = nn.Conv2d(3, 4, 3)
    want = module.weight.detach().clone()
    flatten(module.to(memory_format=torch.channels_last))
    assert torch.equal(module.weight, want)


def test_signature_tells_models_apart() -> None:
    assert flatten(Mixed(0)).signature == flatten(Mixed(1)).signature
    same_numbers = flatten(nn.Linear(4, 2, bias=False)).signature, flatten(nn.Linear(2, 4, bias=False)).signature
    assert same_numbers[0] != same_numbers[1]
    assert "16 float32" in same_numbers[0]
    assert flatten(Mixed(), buffers="local").signature != flatten(Mixed()).signature


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([], "no parameter to exchange"),
        ([nn.Parameter(torch.zeros(0))], "no parameter to exchange"),
        ([nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)], r"'#0 of those given' is of dtype torch\.int64"),
        ([nn.Parameter(torch.zeros(2, device="meta"))], "on the meta device"),
        ([nn.UninitializedParameter()], "has no shape yet; run one forward pass"),
    ],
)
def test_what_cannot_be_exchanged(parameters: list[nn.Parameter], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FlatModel(nn.Linear(1, 1), parameters, buffers="average")


def test_chunk_bytes_too_small() -> None:
    with pytest.raises(ConfigError, match="chunk_bytes=8 is too small; use at least 64"):
        flatten(nn.Linear(1, 1), chunk_bytes=8)


def expect_twice(flat: FlatModel, data: NDArray[np.uint8]) -> None:
    flat.expect(1, 0.5)


def deliver_unexpected(flat: FlatModel, data: NDArray[np.uint8]) -> None:
    flat.deliver(2, 0, data)


def deliver_out_of_order(flat: FlatModel, data: NDArray[np.uint8]) -> None:
    flat.deliver(1, 1, data)


def deliver_too_much(flat: FlatModel, data: NDArray[np.uint8]) -> None:
    for index in range(len(flat.chunks) + 1):
        flat.deliver(1, index, data)


def deliver_other_size(flat: FlatModel, data: NDArray[np.uint8]) -> None:
    flat.deliver(1, 0, data[:8])


def mix_incomplete(flat: FlatModel, data: NDArray[np.uint8]) -> None:
    flat.deliver(1, 0, data)
    flat.mix(((1, 0.5),))


def mix_other_weight(flat: FlatModel, data: NDArray[np.uint8]) -> None:
    for index in range(len(flat.chunks)):
        flat.deliver(1, index, data)
    flat.mix(((1, 0.25),))


def leave_out(flat: FlatModel, data: NDArray[np.uint8]) -> None:
    flat.mix(())


@pytest.mark.parametrize(
    ("breach", "message"),
    [
        (expect_twice, "rank 1 is expected already"),
        (deliver_unexpected, "from rank 2, of which nothing was expected"),
        (deliver_out_of_order, r"chunk 1 .* from rank 1, of which chunk 0 of 64 bytes"),
        (deliver_too_much, r"chunk 2 .* from rank 1, of which chunk 2 of 0 bytes"),
        (deliver_other_size, "of 8 bytes came"),
        (mix_incomplete, "1 of its 2 chunks arrived"),
        (mix_other_weight, r"accumulated with weight 0\.5, not 0\.25"),
        (leave_out, r"ranks \[1\] were expected and are neither mixed nor forgotten"),
    ],
)
def test_breaches_of_the_protocol(breach: Callable[[FlatModel, NDArray[np.uint8]], None], message: str) -> None:
    flat = flatten(vector([0.0] * 32), chunk_bytes=64)
    flat.begin()
    flat.expect(1, 0.5)
    with pytest.raises(ProtocolError, match=message):
        breach(flat, np.zeros(64, np.uint8))
