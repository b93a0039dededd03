"""Nothing that a pickle names is run."""

from __future__ import annotations

import builtins
import collections
import functools
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consensus.data.restricted_pickle import read_pickle
from consensus.errors import DataError


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_in_every_protocol(tmp_path: Path, protocol: int, order: Any) -> None:
    array = np.array(np.arange(24, dtype=np.uint8).reshape(4, 6), order=order)
    content = {b"data": array, "text": ["a", b"\xff", 3, None, True]}
    read = read_pickle(written(tmp_path, pickle.dumps(content, protocol)))
    assert isinstance(read, dict)
    np.testing.assert_array_equal(read[b"data"], array)
    assert read["text"] == ["a", b"\xff", 3, None, True]


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    # What Python 2's cPickle wrote for {'labels': [3], 'data': numpy.array([[7, 200]], dtype='uint8')} with protocol 2.
    content = (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03K\x03aU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06"
        b"K\x00\x85U\x01b\x87Rq\x07(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x02\x07\xc8tbu."
    )
    read = read_pickle(written(tmp_path, content))
    assert isinstance(read, dict)
    assert read[b"labels"] == [3]
    assert read[b"data"].tolist() == [[7, 200]]


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        (Call(os.system, "touch pwned"), r"(posix|nt)\.system"),
        (Call(eval, "open('pwned', 'w')"), r"(__builtin__|builtins)\.eval"),
        (Call(builtins.getattr, "text", "upper"), r"(__builtin__|builtins)\.getattr"),
        (Call(np.load, "somewhere", None, True), r"numpy\.load"),
        (functools.partial(print), r"functools\.partial"),
        (collections.OrderedDict(a=1), r"collections\.OrderedDict"),
        (np.float64(1.0), r"numpy\._?core\.multiarray\.scalar"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_other_globals_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thing: object, named: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, pickle.dumps({"data": thing}, protocol))
    with pytest.raises(DataError, match=f"refused to load the global {named};"):
        read_pickle(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["numpy.core", "core.multiarray", "numpy._core.multiarray.x"])
def test_near_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="refused"):
        read_pickle(written(tmp_path, f"c{name}\n_reconstruct\n.".encode()))


# Crafted states: an array that claims more than it has, that has no dtype, that is never filled; a codec by name.
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
DTYPE = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR"


@pytest.mark.parametrize(
    "content",
    [
        ARRAY + b"(I1\n(I9\nt" + DTYPE + b"I00\nS'ab'\ntb.",
        ARRAY + b"(I1\n(I-2\nI-1\nt" + DTYPE + b"I00\nS'ab'\ntb.",
        ARRAY + b"(I1\n(I2\ntNI00\nS'ab'\ntb.",
        ARRAY + b".",
        b"c_codecs\nencode\n(S'ab'\nS'zlib'\ntR.",
        b"not a pickle",
        b"I1",
    ],
    ids=["too little", "negative", "no dtype", "never filled", "codec", "text", "no end"],
)
def test_crafted_pickles(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="file: damaged, truncated or not a pickle of plain data"):
        read_pickle(written(tmp_path, content))


def test_attributes_that_a_pickle_sets_do_not_outlive_it(tmp_path: Path) -> None:
    assert vars(read_pickle(written(tmp_path, b"cnumpy\nndarray\n(dS'x'\nI1\nsb."))) == {b"x": 1}
    assert vars(read_pickle(written(tmp_path, b"cnumpy\nndarray\n."))) == {}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_byte_is_read_or_is_a_data_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps({b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), b"labels": [1, 2]}, protocol=2))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickle(written(tmp_path, bytes(content)))
    except DataError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017 - either outcome is right
