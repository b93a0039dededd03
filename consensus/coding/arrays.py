"""Types of the arrays that codes are made of."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
"""Coefficients and weights."""

Mask: TypeAlias = NDArray[np.bool_]
"""Who holds what, who came."""

Indices: TypeAlias = NDArray[np.intp]
"""Nodes or items."""

Vector: TypeAlias = NDArray[Any]
"""A gradient or a combination of gradients, shape (size,), of a floating dtype."""
