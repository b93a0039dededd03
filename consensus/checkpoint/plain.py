"""What a checkpoint can hold: tensors, arrays and JSON-like data, and nothing that would have to be executed to be read.

Arrays, NumPy's scalars and counters are not among what ``torch.load(weights_only=True)`` reads of old and new versions of torch;
they travel as tagged tensors and dictionaries.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consensus.errors import CheckpointError

_ARRAY = "\0array"
_SCALAR = "\0scalar"
_COUNTER = "\0counter"
_TAGS = frozenset({_ARRAY, _SCALAR, _COUNTER})
_SIMPLE = frozenset({str, int, float, bool, type(None)})
_NUMERIC = "biufc"
_ALLOWED = "expected tensors, arrays of numbers, dict, list, tuple, str, int, float, bool or None; keep it as one of them"


def encoded(value: object, path: str = "state") -> Any:
    """``value`` as ``torch.load(weights_only=True)`` reads it: a copy of the containers, with the tensors themselves in it.

    Parameters
    ----------
    value
        Nested dictionaries, lists and tuples of tensors (dense, of any dtype and device), arrays and scalars.
    path
        What to call it in messages.

    Raises
    ------
    CheckpointError
        If something else is in it; the message says where.

    Examples
    --------
    >>> decoded(encoded({"rounds": (3, 4.5), "draws": np.arange(3)}))
    {'rounds': (3, 4.5), 'draws': array([0, 1, 2])}
    >>> encoded({"rule": {"key": min}})
    Traceback (most recent call last):
        ...
    consensus.errors.CheckpointError: state.rule.key is <built-in function min>, which no checkpoint can hold; expected ...
    """
    kind = type(value)
    if kind in _SIMPLE:
        return value
    if isinstance(value, Tensor):
        return _dense(value, path)
    if isinstance(value, np.ndarray):
        return {_ARRAY: _array(value, path)}
    if isinstance(value, np.generic):
        return {_SCALAR: _array(np.asarray(value), path)}
    if isinstance(value, list | tuple) and kind in (list, tuple):
        return kind([encoded(item, f"{path}[{place}]") for place, item in enumerate(value)])
    if isinstance(value, dict) and kind in (dict, OrderedDict):
        return _table(value, path)
    if isinstance(value, Counter):
        return {_COUNTER: _table(value, path)}
    raise CheckpointError(f"{path} is {_shown(value)}, which no checkpoint can hold; {_ALLOWED}")


def decoded(value: Any) -> Any:
    """What :func:`encoded` was given; dictionaries come back as plain ones."""
    if isinstance(value, list | tuple):
        return type(value)([decoded(item) for item in value])
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), None) if len(value) == 1 else None
    if tag == _ARRAY:
        return _restored(value[_ARRAY])
    if tag == _SCALAR:
        return _restored(value[_SCALAR])[()]
    if tag == _COUNTER:
        return Counter(value[_COUNTER])
    return {key: decoded(item) for key, item in value.items()}


def copied(value: Any) -> Any:
    """``value`` with tensors (in host memory), arrays and containers of its own: changes of the one do not show in the other."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Counter):
        return Counter(value)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([copied(item) for item in value])
    return value


def _table(value: dict[Any, Any], path: str) -> dict[Any, Any]:
    for key in value:
        if type(key) not in _SIMPLE:
            raise CheckpointError(f"{path} has the key {_shown(key)}, expected str, int, float, bool or None")
        if key in _TAGS:
            raise CheckpointError(f"{path} has the key {key!r}, which checkpoints use themselves; choose another")
    return {key: encoded(item, f"{path}.{key}") for key, item in value.items()}


def _dense(tensor: Tensor, path: str) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        seen = f"of layout {tensor.layout}, dtype {tensor.dtype}, on {tensor.device}"
        raise CheckpointError(f"{path} is a tensor {seen}; expected a dense one with values")
    plain = tensor.detach().cpu()
    # Views are written with all of the memory that they look at: a parameter of a flat model would bring the whole model.
    whole = plain.untyped_storage().nbytes() == plain.numel() * plain.element_size() and type(plain) is Tensor
    return plain if whole else plain.as_subclass(Tensor).clone()


def _array(array: NDArray[Any], path: str) -> list[Any]:
    if array.dtype.kind not in _NUMERIC:
        raise CheckpointError(f"{path} is an array of dtype {array.dtype}, expected numbers")
    numbers = np.array(array, order="C")
    return [array.dtype.str, list(array.shape), torch.from_numpy(numbers.reshape(-1).view(np.uint8))]


def _restored(parts: Any) -> NDArray[Any]:
    dtype, shape, content = parts
    return np.array(content.numpy().view(np.dtype(dtype)).reshape(shape))


def _shown(value: object, most: int = 60) -> str:
    words = repr(value)
    return words if len(words) <= most else f"a {type(value).__module__}.{type(value).__qualname__}"
