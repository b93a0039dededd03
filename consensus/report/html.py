"""The report: one HTML file that needs nothing else, no network either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from consensus import __version__
from consensus.report import tables
from consensus.report.figures.backups import backups
from consensus.report.figures.curves import disagreement, quality
from consensus.report.figures.network import DRAWABLE, network
from consensus.report.figures.time_split import time_split, time_split_of_runs
from consensus.report.load import LoadedRun, labels
from consensus.report.stragglers import assess
from consensus.report.words import facts, verdicts

# The browser itself refuses whatever would need the network.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

_HERE = Path(__file__).parent


def render(runs: Sequence[LoadedRun]) -> str:
    """The page about one or several runs.

    Parameters
    ----------
    runs
        At least one; several are drawn on the same axes where that says something, and then one by one.

    Returns
    -------
    str
        HTML; around 5 MB, nearly all of it the library that draws.
    """
    named = dict(zip(labels(runs), runs, strict=True))
    title = f"{runs[0].config.run.name}: {next(iter(named))}" if len(runs) == 1 else f"{len(runs)} runs compared"
    body = [f"<h1>{escape(title)}</h1>", *_overview(named)]
    for number, (label, run) in enumerate(named.items()):
        body += _section(f"run-{number}", label, run, alone=len(runs) == 1)
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="consensus-sgd {__version__}">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n"
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n{chr(10).join(body)}\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _overview(named: Mapping[str, LoadedRun]) -> Iterator[str]:
    table = {label: facts(run) for label, run in named.items()}
    yield tables.definitions(next(iter(table.values()))) if len(table) == 1 else tables.comparison(table)
    if len(named) == 1:
        yield from _notes(next(iter(named.values())))
    metrics = {label: run.metrics for label, run in named.items() if run.metrics}
    yield "<h2>The averaged model</h2>"
    curves = quality(metrics)
    if curves is None:
        yield "<p>Accuracy and loss are not known: no run has evaluated its model.</p>"
    else:
        yield '<p class="what">The mean of all ranks’ models, or the server’s, on the test samples, at marks of the clock.</p>'
        yield _chart("quality", curves)
    distance = disagreement(metrics)
    if distance is not None:
        yield '<p class="what">How far the ranks’ models are from their mean: sqrt(mean ‖x<sub>i</sub> − mean‖²).</p>'
        yield _chart("disagreement", distance)
    split = {label: run.columns for label, run in named.items() if run.columns}
    if len(split) > 1:
        yield '<h2>Where the time went</h2><p class="what">Of each run, the mean over its ranks.</p>'
        yield _chart("time-split", time_split_of_runs(split))


def _notes(run: LoadedRun) -> Iterator[str]:
    for note in run.notes:
        yield f'<p class="note">{escape(note)}</p>'


def _section(key: str, label: str, run: LoadedRun, *, alone: bool) -> Iterator[str]:
    if not alone:
        yield f"<h2>{escape(label)}</h2>"
        yield f'<p class="what">{escape(str(run.folder))}</p>'
        yield from _notes(run)
    if not any(rank.closed.size for rank in run.columns):
        return
    heading = "h2" if alone else "h3"
    findings = assess(run.traces)
    yield f"<{heading}>Where the ranks’ time went</{heading}>{_chart(f'{key}-time-split', time_split(run.columns))}"
    yield f"<{heading}>Who is slow</{heading}>"
    yield f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in verdicts(findings))}</ul>"
    yield (
        '<p class="what">Scores are medians in relation to the typical rank or edge; “&gt; 3×” is how often a step or a transfer '
        "takes over three times the typical one, “lost” the share of the rank’s time beyond the typical. "
        "First rounds are left out.</p>"
    )
    yield tables.stragglers(findings.ranks)
    if not findings.edges:
        yield "<p>No models were exchanged over edges, so nothing is said about the network, and nobody was a backup.</p>"
        return
    yield '<p class="what">The slowest edges, by the time from agreement until both models had arrived:</p>'
    yield tables.edges(findings.edges)
    yield f"<{heading}>Backups over time</{heading}>"
    yield '<p class="what">How many neighbours a round did without, on average; blank where a rank closed no round.</p>'
    yield _chart(f"{key}-backups", backups(run.columns, run.seconds))
    yield f"<{heading}>Who was whose backup</{heading}>"
    if run.ranks > DRAWABLE:
        yield f"<p>The graph is not drawn: it has {run.ranks} ranks, and over {DRAWABLE} nothing can be made out.</p>"
        return
    yield '<p class="what">The graph; edges are coloured by the share of rounds in which they were used.</p>'
    yield _chart(f"{key}-network", network(run.traces, run.edges))


def _chart(key: str, figure: go.Figure) -> str:
    # JSON knows no "<" outside strings, and in strings it may be written so: no text can end the element.
    data = str(figure.to_json()).replace("<", "\\u003c")
    height = figure.layout.height
    return f'<div class="chart" id="{key}" style="height:{height}px"></div>\n<script type="application/json">{data}</script>'
