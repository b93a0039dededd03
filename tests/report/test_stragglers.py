"""Who is found to be slow, on traces of which it is known."""

from __future__ import annotations

import pytest
from made_runs import COMPUTE, MIX, TRANSFER, in_step, ring

from consensus.report import stragglers
from consensus.report.stragglers import Kind, Verdict, assess
from consensus.report.transfers import transfers
from consensus.report.words import verdicts
from consensus.trace import Trace, TracedRound
from consensus.types import Edge, Rank, Round

NOBODY = "No rank and no edge is slower than the others by enough to matter."


def found(traces: list[Trace]) -> list[tuple[Verdict, dict[str, Kind]]]:
    return [(rank.verdict, rank.slow) for rank in assess(traces).ranks]


CALM = (Verdict.NONE, {})


def test_equal_ranks() -> None:
    findings = assess(in_step())
    assert (findings.step, findings.transfer) == (pytest.approx(COMPUTE), pytest.approx(TRANSFER))
    assert [rank.verdict for rank in findings.ranks] == [Verdict.NONE] * 4
    for rank in findings.ranks:
        assert rank.rounds == 41
        assert (rank.compute.median, rank.compute.mean) == (pytest.approx(COMPUTE), pytest.approx(COMPUTE))
        assert rank.mix.p95 == pytest.approx(MIX)
        assert rank.computing is not None
        assert (rank.computing.score, rank.computing.tail) == (pytest.approx(1), 0)
        assert rank.computing.lost == pytest.approx(0, abs=1e-9)
    assert list(verdicts(findings)) == [NOBODY]


def test_a_rank_that_always_computes_slowly() -> None:
    findings = assess(in_step(compute=lambda rank, k: 2 * COMPUTE if rank == 2 else COMPUTE))
    slow = findings.ranks[2]
    assert slow.computing is not None
    assert slow.computing.score == pytest.approx(2)
    # 20 ms of computing, 2 of waiting for the model, 1 of averaging.
    assert slow.computing.lost == pytest.approx(10 / 23)
    assert found(in_step(compute=lambda rank, k: 2 * COMPUTE if rank == 2 else COMPUTE)) == [
        CALM, CALM, (Verdict.COMPUTE, {"compute": Kind.PERSISTENT}), CALM
    ]  # fmt: skip
    (sentence,) = verdicts(findings)
    assert sentence == "Rank 2: compute is slow, always (2.0 times the typical step); 43 % of the time lost."


def test_of_two_ranks_the_slower_stands_out() -> None:
    def compute(rank: Rank, k: Round) -> float:
        return 3 * COMPUTE if rank == 0 else COMPUTE

    assert found(in_step(2, compute=compute)) == [(Verdict.COMPUTE, {"compute": Kind.PERSISTENT}), CALM]


def test_a_rank_that_stalls_now_and_then() -> None:
    def compute(rank: Rank, k: Round) -> float:
        return 10 * COMPUTE if rank == 1 and k % 10 == 0 else COMPUTE

    traces = in_step(compute=compute)
    assert found(traces) == [CALM, (Verdict.COMPUTE, {"compute": Kind.OCCASIONAL}), CALM, CALM]
    stalling = assess(traces).ranks[1].computing
    assert stalling is not None
    assert (stalling.score, stalling.tail) == (pytest.approx(1), pytest.approx(4 / 40))
    assert stalling.lost == pytest.approx(4 * 90 / (40 * 13 + 4 * 90))


def test_slowness_that_costs_little_is_left_alone() -> None:
    # Twice as slow, but the step is a hundredth of the round.
    def compute(rank: Rank, k: Round) -> float:
        return COMPUTE * (2 if rank == 2 else 1)

    assert found(in_step(compute=compute, transfer=lambda edge, k: 100 * COMPUTE)) == [CALM] * 4


def test_the_first_round_is_left_out() -> None:
    def compute(rank: Rank, k: Round) -> float:
        return 100 * COMPUTE if k == 1 and rank == 0 else COMPUTE

    assert found(in_step(compute=compute, transfer=lambda edge, k: 1.0 if k == 1 and 0 in edge else TRANSFER)) == [CALM] * 4


def test_a_rank_with_a_slow_network() -> None:
    traces = in_step(6, transfer=lambda edge, k: 10 * TRANSFER if 3 in edge else TRANSFER)
    assert found(traces) == [CALM, CALM, CALM, (Verdict.NETWORK, {"network": Kind.PERSISTENT}), CALM, CALM]
    findings = assess(traces)
    assert [(edge.edge, edge.slow) for edge in findings.edges[:3]] == [((2, 3), True), ((3, 4), True), ((0, 1), False)]
    assert findings.edges[0].score == pytest.approx(10)


def test_one_slow_link_is_not_its_ends_fault() -> None:
    traces = in_step(6, transfer=lambda edge, k: 10 * TRANSFER if edge == (2, 3) else TRANSFER)
    assert found(traces) == [CALM] * 6
    (sentence,) = verdicts(assess(traces))
    assert sentence == "Edge 2 – 3 is slow (10.0 times the typical transfer, 20.00 ms)."


def test_a_network_that_is_slow_now_and_then() -> None:
    traces = in_step(6, transfer=lambda edge, k: 50 * TRANSFER if 3 in edge and k % 8 == 0 else TRANSFER)
    assert found(traces)[3] == (Verdict.NETWORK, {"network": Kind.OCCASIONAL})
    assert [verdict for verdict, _ in found(traces)].count(Verdict.NETWORK) == 1


def test_both() -> None:
    def transfer(edge: Edge, k: Round) -> float:
        return 10 * TRANSFER if 3 in edge else TRANSFER

    traces = in_step(6, compute=lambda rank, k: 4 * COMPUTE if rank == 3 else COMPUTE, transfer=transfer)
    assert found(traces)[3] == (Verdict.BOTH, {"compute": Kind.PERSISTENT, "network": Kind.PERSISTENT})


def test_without_exchanges_the_network_is_not_judged() -> None:
    findings = assess(in_step(unused=lambda k: ring(4)))
    assert [rank.talking for rank in findings.ranks] == [None] * 4
    assert (findings.edges, findings.transfer) == ((), 0.0)


@pytest.mark.parametrize("rounds", [0, 1])
def test_too_few_rounds_to_say_anything(rounds: int) -> None:
    findings = assess(in_step(rounds=rounds))
    assert [(rank.rounds, rank.computing, rank.talking) for rank in findings.ranks] == [(rounds, None, None)] * 4
    assert list(verdicts(findings)) == [NOBODY]


def test_the_shorter_of_both_ends_times_is_the_transfers() -> None:
    def trace(rank: Rank, peer: Rank, agreed: float) -> Trace:
        exchanges = ((peer, 3 - rank, agreed, 2.0),)
        return Trace(rank, 0.0, [TracedRound(2 + rank, 1.0, 2.0, 0.5, 1.0, 0.0, exchanges, (), "")])

    (on_edge,) = transfers([trace(0, 1, 1.25), trace(1, 0, 1.75)]).values()
    assert (on_edge.edge, on_edge.rounds, on_edge.seconds.tolist()) == ((0, 1), ((2, 3),), [0.25])


def test_a_transfer_that_one_end_alone_tells_of_counts() -> None:
    assert transfers(in_step(rounds=3)[:1]).keys() == {(0, 1), (0, 3)}


def test_many_alike_are_one_sentence() -> None:
    def compute(rank: Rank, k: Round) -> float:
        return (2 + rank / 10) * COMPUTE if rank in (0, 4, 5, 6) else COMPUTE

    (sentence,) = verdicts(assess(in_step(9, compute=compute)))
    assert sentence.startswith("Ranks 0, 4 to 6: compute is slow, always (2.0 to 2.6 times the typical step); ")


def test_many_slow_edges_are_counted() -> None:
    slow = ring(20)[:8]
    sentences = list(verdicts(assess(in_step(20, transfer=lambda edge, k: 5 * TRANSFER if edge in slow else TRANSFER))))
    assert sum(sentence.startswith("Edge ") for sentence in sentences) == 5
    assert sentences[-1] == "So are 3 more edges."


def test_the_thresholds_are_those_of_the_documentation() -> None:
    assert (stragglers.SLOW_COMPUTE, stragglers.SLOW_NETWORK, stragglers.TAIL, stragglers.MATERIAL) == (1.25, 2, 3, 0.05)
