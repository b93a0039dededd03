"""The report's tables, as HTML. Every text goes through :func:`html.escape` here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from consensus.report.stragglers import Delay, EdgeFinding, RankFinding, Spread

_EDGES = 20

_NOTHING = "–"

_GROUPS = (("", 3), ("compute", 3), ("network", 3), ("compute, ms", 3), ("wait, ms", 3), ("mix, ms", 3))
_COLUMNS = ("rank", "slow", "rounds", *("score", "&gt; 3×", "lost") * 2, *("median", "mean", "p95") * 3)


def definitions(facts: Mapping[str, str]) -> str:
    """Names and what they stand for."""
    return f"<dl>{''.join(f'<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>' for name, text in facts.items())}</dl>"


def comparison(facts: Mapping[str, Mapping[str, str]]) -> str:
    """A row for each run, a column for each fact that is not the same of all; what it is the same of is said once."""
    runs = list(facts.values())
    names = list(dict.fromkeys(name for run in runs for name in run))
    differing = [name for name in names if len({run.get(name) for run in runs}) > 1 and name != "folder"]
    common = {name: runs[0][name] for name in names if name not in differing and name != "folder"}
    head = "".join(f"<th>{escape(name)}</th>" for name in ("run", *differing))
    rows = (_row(label, [run.get(name, _NOTHING) for name in differing]) for label, run in facts.items())
    return _table("words", f"<tr>{head}</tr>", rows) + (f"<p>The same of all:</p>{definitions(common)}" if common else "")


def stragglers(ranks: Sequence[RankFinding]) -> str:
    """A row for each rank."""
    groups = "".join(f'<th colspan="{span}">{name}</th>' for name, span in _GROUPS)
    head = f"<tr>{groups}</tr><tr>{''.join(f'<th>{name}</th>' for name in _COLUMNS)}</tr>"
    return _table("stragglers", head, (_rank(rank) for rank in ranks))


def edges(found: Sequence[EdgeFinding]) -> str:
    """A row for each of the slowest edges."""
    columns = ("edge", "slow", "exchanges", "score", "&gt; 3×", "median, ms")
    head = f"<tr>{''.join(f'<th>{name}</th>' for name in columns)}</tr>"
    return _table("edges", head, (_edge(edge) for edge in found[:_EDGES]))


def _table(name: str, head: str, rows: Iterable[str]) -> str:
    return f'<div class="wide"><table class="{name}"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _rank(rank: RankFinding) -> str:
    spreads = [cell for spread in (rank.compute, rank.wait, rank.mix) for cell in _spread(spread)]
    delays = [cell for delay in (rank.computing, rank.talking) for cell in _delay(delay)]
    slow = "; ".join(f"{what}, {kind}" for what, kind in rank.slow.items())
    return _row(str(rank.rank), [slow or "no", str(rank.rounds), *delays, *spreads], marked=bool(slow))


def _row(name: str, cells: Iterable[str], *, marked: bool = False) -> str:
    start = '<tr class="slow">' if marked else "<tr>"
    return f"{start}<th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _spread(spread: Spread) -> list[str]:
    return [f"{1e3 * seconds:.2f}" for seconds in (spread.median, spread.mean, spread.p95)]


def _delay(delay: Delay | None) -> list[str]:
    return [_NOTHING] * 3 if delay is None else [f"{delay.score:.2f}", f"{100 * delay.tail:.1f} %", f"{100 * delay.lost:.1f} %"]


def _edge(edge: EdgeFinding) -> str:
    i, j = edge.edge
    numbers = (str(edge.exchanges), f"{edge.score:.2f}", f"{100 * edge.tail:.1f} %", f"{1e3 * edge.median:.3f}")
    return _row(f"{i} – {j}", ("yes" if edge.slow else "no", *numbers), marked=edge.slow)
