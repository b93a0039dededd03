"""Data sets, their partition over the ranks, and the sampler that walks one rank's share.

``load`` reads a data set, ``partition`` deals its samples to the ranks, ``Sampler`` draws one rank's mini-batches,
``Split.batch`` turns indices into tensors. Torch is imported by the last of them only.
"""

from __future__ import annotations
