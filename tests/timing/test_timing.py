"""Models of stragglers: closed forms, reproducibility, and what they refuse."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest

from consensus import timing
from consensus.errors import ConfigError

STEPS = 20_000

FIRST = (0.2846528479818455, 0.9759744224570965, 0.12713672206321372)

REGIMES = {
    "constant": (timing.Constant(0.02), 0.02),
    "shifted_exponential": (timing.ShiftedExponential(shift=0.5, mean=0.25), 0.75),
    "pareto": (timing.Pareto(scale=0.1, shape=4.0), 0.4 / 3.0),
    "transient": (timing.Transient(0.02, probability=0.05, factor=10), 0.02 * (1 + 0.05 * 9)),
    "stall": (timing.Stall(0.055, probability=0.02, stall_seconds=1.0), 0.055 + 0.02),
    "persistent": (timing.Persistent(0.02, ranks=(0,), factor=4), 0.08),
    "markov": (timing.Markov(0.02, factor=5, slow_after=30, fast_after=10), 0.02 * (1 + 0.25 * 4)),
    "replay": (timing.Replay([[0.1, 0.3], [0.2]]), 0.2),
}
"""Name: a model, and the mean duration of rank 0's steps in seconds."""


def draw(model: timing.ComputeTime, *, rank: int = 0, seed: int = 7, steps: int = STEPS) -> np.ndarray:
    return np.array(list(itertools.islice(model.stream(rank, seed), steps)))


def test_every_model_has_a_regime() -> None:
    assert set(REGIMES) == set(timing.MODELS)
    assert all(type(REGIMES[name][0]) is kind for name, kind in timing.MODELS.items())


@pytest.mark.parametrize("name", REGIMES)
def test_mean(name: str) -> None:
    model, mean = REGIMES[name]
    times = draw(model)
    # Slow spells of the Markov model last 10 steps: far fewer independent draws, hence the wider band.
    assert times.mean() == pytest.approx(mean, rel=0.08 if name == "markov" else 0.03)
    assert (times > 0).all()


@pytest.mark.parametrize("name", REGIMES)
def test_a_stream_depends_on_model_seed_and_rank_alone(name: str) -> None:
    model, _ = REGIMES[name]
    alone = draw(model, rank=1, steps=50)
    streams = [model.stream(rank, 7) for rank in range(2)]
    interleaved = [(streams[0].next(), streams[1].next())[1] for _ in range(50)]
    assert alone.tolist() == interleaved
    assert pickle.loads(pickle.dumps(model)) == model
    assert hash(model) == hash(pickle.loads(pickle.dumps(model)))


@pytest.mark.parametrize("name", ["shifted_exponential", "pareto", "transient", "stall", "markov"])
def test_ranks_and_seeds_differ(name: str) -> None:
    model, _ = REGIMES[name]
    base = draw(model, steps=1000)
    assert (base != draw(model, rank=1, steps=1000)).any()
    assert (base != draw(model, seed=8, steps=1000)).any()


def test_ranks_are_uncorrelated() -> None:
    model = timing.ShiftedExponential(0.0, 1.0)
    correlation = np.corrcoef(draw(model, rank=0), draw(model, rank=1))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(STEPS)


def test_first_numbers_stay() -> None:
    """Recorded: a new numpy or an edit that changes them makes old runs irreproducible."""
    times = draw(timing.ShiftedExponential(0.0, 1.0), rank=2, seed=1, steps=3)
    assert times == pytest.approx(FIRST, rel=1e-12)


@pytest.mark.parametrize("t", [0.6, 0.75, 1.0, 1.5])
def test_exponential_tail(t: float) -> None:
    times = draw(timing.ShiftedExponential(shift=0.5, mean=0.25))
    assert times.min() >= 0.5
    assert np.mean(times > t) == pytest.approx(math.exp(-(t - 0.5) / 0.25), abs=0.015)


@pytest.mark.parametrize("t", [0.12, 0.2, 0.5])
def test_pareto_tail(t: float) -> None:
    times = draw(timing.Pareto(scale=0.1, shape=1.5))
    assert times.min() >= 0.1
    assert np.mean(times > t) == pytest.approx((0.1 / t) ** 1.5, abs=0.015)


def test_transient_and_stall_take_two_values() -> None:
    slow = draw(timing.Transient(0.02, 0.05, 10))
    assert set(slow) == {0.02, 0.2}
    assert np.mean(slow == 0.2) == pytest.approx(0.05, abs=0.007)
    stalled = draw(timing.Stall(0.5, 0.02, 1.0))
    assert set(stalled) == {0.5, 1.5}
    assert np.mean(stalled == 1.5) == pytest.approx(0.02, abs=0.005)


def test_transient_slowness_is_independent_between_steps() -> None:
    slow = draw(timing.Transient(0.02, 0.2, 10)) > 0.02
    assert np.mean(slow[1:] & slow[:-1]) == pytest.approx(0.04, abs=0.007)


def test_persistent_touches_its_ranks_only() -> None:
    model = timing.Persistent(0.02, ranks=[1, 3], factor=4)
    assert [model.stream(rank, 0).next() for rank in range(4)] == [0.02, 0.08, 0.02, 0.08]


def test_markov_spells() -> None:
    slow = draw(timing.Markov(1.0, factor=2, slow_after=30, fast_after=10)) == 2.0
    lengths: dict[bool, list[int]] = {True: [], False: []}
    for state, spell in itertools.groupby(slow):
        lengths[bool(state)].append(len(list(spell)))
    assert np.mean(lengths[True]) == pytest.approx(10, rel=0.15)
    assert np.mean(lengths[False]) == pytest.approx(30, rel=0.15)


def test_markov_begins_stationary() -> None:
    model = timing.Markov(1.0, factor=2, slow_after=30, fast_after=10)
    first = [model.stream(rank, 0).next() for rank in range(2000)]
    assert np.mean(np.array(first) == 2.0) == pytest.approx(0.25, abs=0.04)


def test_replay_begins_anew_and_knows_its_ranks() -> None:
    model = timing.Replay([[0.1, 0.3], [2]])
    assert draw(model, steps=5).tolist() == [0.1, 0.3, 0.1, 0.3, 0.1]
    assert draw(model, rank=1, steps=2).tolist() == [2.0, 2.0]
    with pytest.raises(ConfigError, match=r"durations: recorded for 2 ranks, expected 3 lists or more"):
        model.stream(2, 0)


@pytest.mark.parametrize(
    ("rank", "seed", "culprit"), [(-1, 0, "rank = -1"), (0, -3, "seed = -3"), (0, 1.5, r"seed = 1\.5"), (True, 0, "rank")]
)
def test_stream_refuses(rank: int, seed: int, culprit: str) -> None:
    with pytest.raises(ConfigError, match=f"{culprit}.*expected an integer, 0 or more"):
        timing.Constant(1.0).stream(rank, seed)


@pytest.mark.parametrize(
    ("name", "parameters", "culprit"),
    [
        ("constant", {"seconds": -0.1}, r"seconds = -0\.1: expected a finite number of seconds"),
        ("constant", {"seconds": math.nan}, r"seconds = nan"),
        ("constant", {"seconds": math.inf}, r"seconds = inf"),
        ("constant", {"seconds": "fast"}, r"seconds = 'fast'"),
        ("constant", {"seconds": True}, r"seconds = True"),
        ("shifted_exponential", {"shift": 0.0, "mean": -1}, r"mean = -1"),
        ("pareto", {"scale": 1.0, "shape": 0}, r"shape = 0: expected a finite number above 0"),
        (
            "transient",
            {"seconds": 1, "probability": 1.5, "factor": 2},
            r"probability = 1\.5: expected a probability, from 0 to 1",
        ),
        ("transient", {"seconds": 1, "probability": 0.5, "factor": 0.5}, r"factor = 0\.5: expected a finite factor, 1"),
        ("stall", {"seconds": 1, "probability": 0.5, "stall_seconds": -1}, r"stall_seconds = -1"),
        ("persistent", {"seconds": 1, "ranks": [-1], "factor": 2}, r"ranks = \[-1\]: expected a list of ranks"),
        ("persistent", {"seconds": 1, "ranks": 3, "factor": 2}, r"ranks = 3"),
        (
            "markov",
            {"seconds": 1, "factor": 2, "slow_after": 0.5, "fast_after": 3},
            r"slow_after = 0\.5: expected a mean number of steps",
        ),
        ("replay", {"durations": []}, r"durations = \[\]: expected one non-empty list"),
        ("replay", {"durations": [[]]}, r"durations = \[\[\]\]"),
        ("replay", {"durations": [1.0]}, r"durations = \[1\.0\]"),
        ("replay", {"durations": [[1.0], [0.5, -2]]}, r"durations\[1\]\[1\] = -2"),
        ("constant", {"second": 1}, r"second = 1: unknown parameter; did you mean 'seconds'"),
        ("constant", {}, r"constant: seconds: missing; constant takes seconds"),
    ],
)
def test_build_refuses(name: str, parameters: dict[str, object], culprit: str) -> None:
    with pytest.raises(ConfigError, match=culprit):
        timing.build(name, **parameters)


def test_build_lists_every_problem() -> None:
    with pytest.raises(timing.ParameterError) as caught:
        timing.build("transient", seconds=-1, probability=2, factor=0)
    assert [problem.split(" = ")[0] for problem in caught.value.problems] == ["seconds", "probability", "factor"]
    assert len(str(caught.value).splitlines()) == 3
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_build_knows_names() -> None:
    assert timing.build("transient", seconds=1, probability=0.5, factor=2) == timing.Transient(1.0, 0.5, 2.0)
    with pytest.raises(ConfigError, match=r"'transcient': unknown compute time model; did you mean 'transient'\?"):
        timing.build("transcient", seconds=1)
    with pytest.raises(ConfigError, match="known: constant, shifted_exponential, pareto"):
        timing.build("zzz")


def test_models_fit_a_number_of_ranks() -> None:
    for model, _ in REGIMES.values():
        model.fit(2)
    with pytest.raises(ConfigError, match=r"ranks = \[0, 8\]: expected ranks from 0 to 7"):
        timing.Persistent(0.02, ranks=(0, 8), factor=4).fit(8)
    with pytest.raises(ConfigError, match="recorded for 2 ranks, expected 3"):
        timing.Replay([[0.1], [0.1]]).fit(3)


def test_link_duration() -> None:
    link = timing.Link(latency=1e-3, bandwidth=1e9, slow={(3, 1): 4.0})
    assert link.duration(0, 1, 1_000_000) == pytest.approx(2e-3)
    assert link.duration(1, 3, 1_000_000) == link.duration(3, 1, 1_000_000) == pytest.approx(8e-3)
    assert timing.Link(0, math.inf).duration(0, 1, 10**9) == 0.0
    assert pickle.loads(pickle.dumps(link)) == link
    assert hash(link) == hash(pickle.loads(pickle.dumps(link)))


@pytest.mark.parametrize(
    ("parameters", "culprit"),
    [
        ({"latency": -1, "bandwidth": 1}, "latency = -1"),
        ({"latency": 0, "bandwidth": 0}, "bandwidth = 0: expected bytes per second above 0"),
        ({"latency": 0, "bandwidth": math.nan}, "bandwidth = nan"),
        ({"latency": 0, "bandwidth": 1, "slow": {(0, 1): 0.5}}, r"slow\[0, 1\] = 0\.5"),
    ],
)
def test_link_refuses(parameters: dict[str, object], culprit: str) -> None:
    with pytest.raises(ConfigError, match=culprit):
        timing.Link(**parameters)  # type: ignore[arg-type]
