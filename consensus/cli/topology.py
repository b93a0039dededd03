"""``consensus topology``: choose a graph by its numbers and its picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from consensus import resources
from consensus.errors import TopologyError
from consensus.topology import FAMILIES, build, read_graph, summarise, validate
from consensus.topology.families import is_random, parameters_of
from consensus.topology.files import header, locate
from consensus.topology.readme import table

if TYPE_CHECKING:
    import networkx as nx

app = typer.Typer(help="Graphs of ranks: list them, see their numbers, draw them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A family, a bundled topology, or a graph file.")]
Nodes = Annotated[int | None, typer.Option("-n", "--nodes", help="Number of ranks; a file brings its own.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the family; repeatable.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the random families.")]
FromFile = Annotated[bool, typer.Option("--file", help="Read NAME as a file, even if a family has that name.")]


@app.command("list")
def list_all(
    markdown: Annotated[bool, typer.Option("--markdown", help="The bundled topologies as a Markdown table.")] = False,
) -> None:
    """List the families with their parameters, and the bundled topologies."""
    if markdown:
        print(table(), end="")
        return
    console = Console()
    families = Table("family", "parameters", "what", title="Families", title_justify="left")
    for name, family in FAMILIES.items():
        settings = [f"{p.name}={'auto' if p.default is None else p.default}" for p in parameters_of(family).values()]
        families.add_row(
            name, " ".join([*settings, *(["seed"] if is_random(family) else [])]), (family.__doc__ or "").split("\n")[0]
        )
    console.print(families)
    bundled = Table("name", "nodes", "edges", "what", title="Bundled topologies", title_justify="left")
    for name in resources.names("topologies"):
        path = resources.find("topologies", name)
        graph = read_graph(path)
        bundled.add_row(name, str(graph.number_of_nodes()), str(graph.number_of_edges()), header(path)[0])
    console.print(bundled)


@app.command()
def show(name: Name, n: Nodes = None, settings: Settings = None, seed: Seed = 0, from_file: FromFile = False) -> None:
    """Print a graph in numbers: degrees, diameter, how fast it mixes, its backbone."""
    summary = summarise(_graph(name, n, settings or [], seed, from_file))
    rounds = "never" if math.isinf(summary.mixing_time) else f"{summary.mixing_time:.0f} rounds to 1 % of the disagreement"
    lines = Table("", name, show_header=True, title_justify="left")
    lines.add_row("nodes", str(summary.nodes))
    lines.add_row("edges", str(summary.edges))
    lines.add_row("degree min / mean / max", f"{summary.degree_min} / {summary.degree_mean:.2f} / {summary.degree_max}")
    lines.add_row("diameter", str(summary.diameter))
    lines.add_row("spectral gap", f"{summary.spectral_gap:.6g} (Metropolis weights)")
    lines.add_row("mixing time", rounds)
    lines.add_row("backbone", summary.backbone)
    Console().print(lines)


@app.command()
def draw(
    name: Name,
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture to write: .png, .svg or .pdf.")],
    n: Nodes = None,
    settings: Settings = None,
    seed: Seed = 0,
    from_file: FromFile = False,
) -> None:
    """Draw a graph with its backbone highlighted."""
    from consensus.topology.drawing import draw as draw_graph  # matplotlib is slow to load

    graph = _graph(name, n, settings or [], seed, from_file)
    draw_graph(graph, output, title=f"{name}, n = {graph.number_of_nodes()}", seed=seed)
    Console().print(f"wrote {output}", highlight=False, soft_wrap=True)


def _graph(name: str, n: int | None, settings: list[str], seed: int, from_file: bool) -> nx.Graph[int]:
    parameters = dict(_setting(text) for text in settings)
    if name in FAMILIES and not from_file:
        if n is None:
            raise TopologyError(f"{name} is a family, of any size; say how many ranks, as in: {name} -n 8")
        return build(name, n, seed=seed, **parameters)
    if parameters:
        raise TopologyError(f"--set {next(iter(parameters))}: only families have parameters, and {name!r} is none")
    path = Path(name) if from_file else locate(name)
    if path is None:
        return build(name, n or 1)  # which says what names there are
    graph = read_graph(path)
    return validate(graph, n or graph.number_of_nodes())


def _setting(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise TopologyError(f"--set expects KEY=VALUE, as in degree=4; got {text!r}")
    if key in {"n", "seed", "spec"}:
        raise TopologyError(f"--set {key}: not a parameter of a family; the size is -n, the seed --seed, the name comes first")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value  # text, which build refuses naming the type it wants
