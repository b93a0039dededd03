"""What a checkpoint can hold comes back as it was; what it cannot is refused with the place named."""

from __future__ import annotations

import io
import math
import random
from collections import Counter, OrderedDict, defaultdict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from consensus.checkpoint.plain import copied, decoded, encoded
from consensus.errors import CheckpointError


def through_torch(value: object) -> Any:
    file = io.BytesIO()
    torch.save(encoded(value), file)
    file.seek(0)
    return decoded(torch.load(file, weights_only=True))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -7,
        1 << 127,
        "Grüße\0",
        {"a": [1, 2.5, (None, False)], 3: {}, None: ()},
        {"\0arrays": 1, "\0array": 2, "rest": 3}["rest"],
        OrderedDict(b=1, a=2),
        Counter({3: 2, 5: 1}),
        random.getstate(),
    ],
)
def test_plain_data_comes_back(value: object) -> None:
    back = through_torch(value)
    assert back == value
    assert type(back) is (dict if type(value) is OrderedDict else type(value))


def test_float_specials_come_back() -> None:
    assert through_torch(math.inf) == math.inf
    assert math.isnan(through_torch(math.nan))
    assert math.copysign(1.0, through_torch(-0.0)) == -1.0


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_tensors_come_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 3).to(dtype)
    back = through_torch(torch.nn.Parameter(tensor, requires_grad=False))
    assert type(back) is torch.Tensor
    assert (back.dtype, back.shape) == (dtype, tensor.shape)
    assert torch.equal(back, tensor)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint32).reshape(2, 3).T,
        np.array(2.5, dtype=">f4"),
        np.zeros((0, 3), dtype=np.int16),
        np.array([True, False]),
        np.array([1 + 2j]),
    ],
)
def test_arrays_come_back(array: np.ndarray) -> None:
    back = through_torch({"a": array})["a"]
    assert isinstance(back, np.ndarray)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array)
    back[...] = 0  # own, writable memory


def test_numpy_scalars_keep_their_type() -> None:
    back = through_torch([np.float32(0.1), np.float64(0.1), np.int8(3), np.bool_(True)])
    assert [type(item) for item in back] == [np.float32, np.float64, np.int8, np.bool_]
    assert back == [np.float32(0.1), 0.1, 3, True]


def test_a_view_is_written_without_the_memory_it_looks_at() -> None:
    region = torch.zeros(100_000)
    file = io.BytesIO()
    torch.save(encoded({"weight": region[:10]}), file)
    assert len(file.getvalue()) < 10_000


Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"rule": [0, {"key": min}]}, r"state\.rule\[1\]\.key is <built-in function min>"),
        ({"a": {1, 2}}, r"state\.a is \{1, 2\}"),
        (b"bytes", "state is b'bytes'"),
        (defaultdict(int), "state is defaultdict"),
        ([Pair(1, 2)], r"state\[0\] is Pair"),
        (torch.device("cpu"), "state is device"),
        (random.Random(), "state is "),
        ({(1, 2): 3}, r"state has the key \(1, 2\)"),
        ({"x": {"\0array": 1}}, r"state\.x has the key '\\x00array'"),
        (np.array([object()]), "state is an array of dtype object"),
        (np.array(["word"]), "state is an array of dtype <U4"),
        (torch.zeros(2, 2).to_sparse(), "layout torch.sparse_coo"),
        (torch.zeros(2, device="meta"), "on meta"),
    ],
)
def test_anything_else_is_refused(value: object, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        encoded(value)


def test_a_copy_shares_nothing() -> None:
    original = {"t": torch.ones(2), "a": [np.ones(2)], "n": (1, [2]), "c": Counter(x=1)}
    copy = copied(original)
    original["t"].zero_()
    original["a"][0][:] = 0
    original["n"][1].append(3)
    original["c"]["x"] += 1
    assert copy["t"].tolist() == [1, 1]
    assert copy["a"][0].tolist() == [1, 1]
    assert copy["n"] == (1, [2])
    assert copy["c"] == Counter(x=1)
