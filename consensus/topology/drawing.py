"""Pictures of graphs, with the backbone marked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import networkx as nx

from consensus.errors import TopologyError
from consensus.topology.backbone import backbone

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

_EXACT_LAYOUT = 150
"""Up to this many ranks the layout by path lengths (Kamada-Kawai, no chance in it) is quick and clearer than springs."""


def draw(graph: nx.Graph[int], path: str | Path, *, title: str = "", seed: int = 0) -> None:
    """Draw ``graph`` into a file; the same graph and seed give the same picture.

    Parameters
    ----------
    graph
        As :func:`consensus.topology.build` returns it.
    path
        File to write; the suffix names the format (``.png``, ``.svg``, ``.pdf``).
    title
        Printed above the picture.
    seed
        Of the positions in large graphs.

    Raises
    ------
    TopologyError
        If the file cannot be written, or matplotlib knows no such format.
    """
    # Not pyplot, which would choose a window system: a figure with the Agg canvas needs no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = graph.number_of_nodes()
    positions = layout(graph, seed)
    chosen = backbone(graph.adj)
    others = [edge for edge in graph.edges() if (min(edge), max(edge)) not in set(chosen)]
    figure = Figure(figsize=(7, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_title(title)
    axes.set_aspect("equal", adjustable="datalim")
    size = min(420.0, 12_000 / n)
    nx.draw_networkx_edges(graph, positions, ax=axes, edgelist=others, edge_color="#9aa5b1", width=1.0, node_size=size)
    nx.draw_networkx_edges(graph, positions, ax=axes, edgelist=chosen, edge_color="#d1495b", width=2.6, node_size=size)
    nx.draw_networkx_nodes(graph, positions, ax=axes, node_color="#1f4e79", node_size=size)
    if n <= _EXACT_LAYOUT:
        font = 10 if n <= 40 else 5
        nx.draw_networkx_labels(graph, positions, ax=axes, font_size=font, font_color="white")
    axes.plot([], [], color="#d1495b", linewidth=2.6, label="backbone")
    axes.legend(loc="lower right", frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise TopologyError(f"cannot write the picture {path}: {error}") from None


def layout(graph: nx.Graph[int], seed: int = 0) -> Mapping[int, NDArray[np.float64]]:
    """Where to draw the ranks: [x, y] of each, the same for the same graph and seed.

    Parameters
    ----------
    graph
        As :func:`consensus.topology.build` returns it.
    seed
        Of the positions in large graphs.
    """
    circle = nx.circular_layout(graph)
    n = graph.number_of_nodes()
    if n < 3 or nx.density(graph) == 1:
        return circle
    if n <= _EXACT_LAYOUT:
        return nx.kamada_kawai_layout(graph, pos=circle)
    return nx.spring_layout(graph, seed=seed)
