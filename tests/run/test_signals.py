"""Requests to end, which are noted; and those that were not to be heard."""

from __future__ import annotations

import os
import signal

import pytest

from consensus.run.signals import SIGNALS, Interruption

pytestmark = pytest.mark.usefixtures("hangups")


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_is_noted(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert not interruption.requested
        os.kill(os.getpid(), number)
        assert interruption.requested
    assert signal.getsignal(number) is before


def test_under_nohup_a_hangup_is_none() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not interruption.requested
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
