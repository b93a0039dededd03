"""The mean of the ranks' models, against the mean worked out by hand."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from consensus.config.schema import Target
from consensus.run.evaluation import Evaluated, Evaluator, quality
from consensus.run.prepare import build_model, load_data
from consensus.run.snapshots import Counts, SnapshotFolder
from tests.experiments import small

RANKS = 3


def different(start: nn.Module) -> list[nn.Module]:
    """Copies of ``start`` that have gone apart, buffers too."""
    generator = torch.Generator().manual_seed(5)
    models = [copy.deepcopy(start) for _ in range(RANKS)]
    with torch.no_grad():
        for model in models:
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            for name, buffer in model.named_buffers():
                if buffer.dtype.is_floating_point:
                    draw = torch.randn(buffer.shape, generator=generator)
                    buffer.copy_(draw.abs() + 0.5 if name.endswith("running_var") else draw)
    return models


def mean_by_hand(models: list[nn.Module]) -> nn.Module:
    """Means of parameters and running means; variances by the law of total variance."""
    states = [model.state_dict() for model in models]
    stacked = {name: torch.stack([state[name].double() for state in states]) for name in states[0]}
    mean = {name: values.mean(0) for name, values in stacked.items()}
    for name in mean:
        if name.endswith("running_var"):
            mean[name] = mean[name] + stacked[name.replace("running_var", "running_mean")].var(0, correction=0)
    result = copy.deepcopy(models[0])
    result.load_state_dict({name: value.to(states[0][name].dtype) for name, value in mean.items()})
    return result


@pytest.mark.parametrize("name", ["logistic", "cnn_bn"])
def test_the_evaluated_model_is_the_mean(tmp_path: Path, name: str) -> None:
    config = small(tmp_path, model={"name": name}, evaluation={"test_samples": 70})
    dataset = load_data(config)
    evaluator, folder = Evaluator(config, dataset), SnapshotFolder(tmp_path, RANKS)
    models = different(build_model(config, dataset))
    for rank, model in enumerate(models):
        folder.write(2, rank, Counts(10 + rank, rank, 1), evaluator.copy_of(model))

    evaluated = evaluator.mark(folder, 2)

    accuracy, loss = quality(mean_by_hand(models), dataset.test, 70)
    assert evaluated.loss == pytest.approx(loss, rel=1e-5)
    assert evaluated.accuracy == pytest.approx(accuracy, abs=1e-9)
    assert (evaluated.mark, evaluated.samples, evaluated.rounds, evaluated.backups) == (2, 33, 3, 3)
    vectors = torch.stack([nn.utils.parameters_to_vector(model.parameters()).detach().double() for model in models])
    distance = math.sqrt(float((vectors - vectors.mean(0)).square().sum(1).mean()))
    assert evaluated.consensus_distance == pytest.approx(distance, rel=1e-9)


def test_equal_models_have_distance_zero(tmp_path: Path) -> None:
    config = small(tmp_path)
    dataset = load_data(config)
    evaluator, folder, model = Evaluator(config, dataset), SnapshotFolder(tmp_path, RANKS), build_model(config, dataset)
    for rank in range(RANKS):
        folder.write(None, rank, Counts(0, 0, 0), evaluator.copy_of(model))
    evaluated = evaluator.mark(folder, None)
    assert evaluated.consensus_distance == pytest.approx(0, abs=1e-7)
    assert evaluated.loss == pytest.approx(quality(model, dataset.test)[1], rel=1e-6)


def test_quality_by_hand_and_the_mode_is_given_back(tmp_path: Path) -> None:
    dataset = load_data(small(tmp_path))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.9)).train()
    inputs, labels = dataset.test.batch(slice(0, 37))
    with torch.no_grad():
        logits = model[1](inputs.flatten(1))
    accuracy, loss = quality(model, dataset.test, 37)
    assert accuracy == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert model.training
    assert quality(model, dataset.test, 10**9) == quality(model, dataset.test)


def test_targets() -> None:
    evaluated = Evaluated(1, 0, 0, 0, accuracy=0.9, loss=0.4, consensus_distance=0.0)
    reached = [evaluated.reaches(Target(value=value)) for value in (0.9, 0.91)]
    assert reached == [True, False]
    assert [evaluated.reaches(Target(metric="loss", value=value)) for value in (0.4, 0.39)] == [True, False]
