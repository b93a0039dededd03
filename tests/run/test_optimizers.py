"""Optimizers and schedulers by torch's names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from consensus.config.schema import Optimizer as Section
from consensus.errors import ConfigError
from consensus.run.optimizers import recipe


def parameter() -> Parameter:
    return Parameter(torch.ones(2))


@pytest.mark.parametrize(("written", "kind"), [("sgd", torch.optim.SGD), ("SGD", torch.optim.SGD), ("AdamW", torch.optim.AdamW)])
def test_names_in_any_case(written: str, kind: type) -> None:
    optimizer = recipe(Section(name=written, lr=0.25)).optimizer([parameter()])
    assert type(optimizer) is kind
    assert optimizer.defaults["lr"] == 0.25


def test_keywords_are_passed_on() -> None:
    made = recipe(Section(name="sgd", lr=0.1, momentum=0.9, nesterov=True)).optimizer([parameter()])
    assert (made.defaults["momentum"], made.defaults["nesterov"]) == (0.9, True)


@pytest.mark.parametrize("name", ["StepLR", "steplr"])
def test_a_scheduler(name: str) -> None:
    steps = recipe(Section(lr=1.0, scheduler={"name": name, "step_size": 2, "gamma": 0.5}))
    assert steps.scheduler is not None
    optimizer = steps.optimizer([parameter()])
    scheduler, rates = steps.scheduler(optimizer), []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_no_scheduler() -> None:
    assert recipe(Section()).scheduler is None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"name": "rmsporp"}, "unknown optimizer 'rmsporp'; did you mean 'rmsprop'?"),
        ({"name": "optimizer"}, "unknown optimizer 'optimizer'"),
        ({"momentun": 0.9}, "optimizer.momentun = 0.9: unknown keyword of SGD; did you mean 'momentum'?"),
        ({"params": 1}, "optimizer.params = 1: unknown keyword of SGD"),
        ({"nesterov": True}, "optimizer.name = 'sgd': torch.optim.SGD refuses these keywords"),
        ({"momentum": "much"}, "torch.optim.SGD refuses these keywords"),
        ({"name": "lbfgs"}, "torch.optim.LBFGS refuses these keywords, or a plain step"),
        ({"scheduler": {"name": "StepLT", "step_size": 2}}, "unknown scheduler 'steplt'; did you mean 'steplr'?"),
        ({"scheduler": {"name": "StepLR", "stepsize": 2}}, "optimizer.scheduler.stepsize = 2: unknown keyword of StepLR"),
        ({"scheduler": {"name": "StepLR"}}, "optimizer.scheduler.name = 'StepLR': torch.optim.lr_scheduler.StepLR refuses"),
        ({"scheduler": {"name": "ReduceLROnPlateau"}}, "torch.optim.lr_scheduler.ReduceLROnPlateau refuses"),
    ],
)
def test_what_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(Section.model_validate(keys))
    assert said in str(caught.value)


def test_all_unknown_keywords_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(Section(one=1, two=2))
    assert [line.split(" = ")[0] for line in str(caught.value).splitlines()] == ["optimizer.one", "optimizer.two"]
