"""Gradient codes: exact gradients in spite of silent edges and workers.

Setting and trade-off are those of Tang, Li, Chen, Chen, arXiv 2406.10831, gradient coding that of Tandon et al., ICML 2017. The
papers' bodies were not at hand: placement, coefficients and decoding are ours.
"""

from consensus.coding.flat import FlatCode
from consensus.coding.gradient_code import GradientCode
from consensus.coding.greedy import GreedyCode
from consensus.coding.hierarchical import HierarchicalCode
from consensus.coding.layer import Combination, Layer
from consensus.coding.layer_code import LayerCode
from consensus.coding.load import least_load
from consensus.coding.schemes import SCHEMES, construct

__all__ = [
    "SCHEMES", "Combination", "FlatCode", "GradientCode", "GreedyCode", "HierarchicalCode", "Layer", "LayerCode", "construct",
    "least_load",
]
