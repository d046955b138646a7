"""Signals inside a run's loop: the first asks to stop, a second Ctrl-C stops at once, then they are as before."""

import os
import signal

import pytest

from simfle_jax.training import stop as stopping
from simfle_jax.training.stop import Stop


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def number(request):
    """A signal that fails the test, instead of ending all tests, where nobody handles it."""

    def unhandled(*_):
        raise AssertionError(f"{request.param.name} was not handled")

    before = signal.signal(request.param, unhandled)
    yield request.param
    assert signal.getsignal(request.param) is unhandled, "the handler of before was not put back"
    signal.signal(request.param, before)


def test_a_signal_asks_to_stop_and_gives_the_status_of_a_shell(number, capfd):
    with Stop() as stop:
        assert not stop.asked(1)
        os.kill(os.getpid(), number)
        assert stop.asked(1)
        with pytest.raises(SystemExit) as caught:
            stop.leave(7)
    assert caught.value.code == 128 + number
    assert f"{number.name}: saved at step 7; the same command goes on from there" in capfd.readouterr().err


def test_only_a_second_ctrl_c_stops_at_once(number):
    with Stop() as stop:
        os.kill(os.getpid(), number)
        if number != signal.SIGINT:
            os.kill(os.getpid(), number)
            assert stop.asked(1)
            return
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_several_processes_ask_by_a_number_that_never_falls(monkeypatch):
    """JAX stops at one number above all that were asked; a second training of a process begins at step 1 again."""
    told: list[int] = []
    monkeypatch.setattr(stopping.multihost_utils, "reached_preemption_sync_point", told.append)
    for _ in range(2):
        stop = Stop()
        stop._several = True
        for step in (1, 2):
            assert not stop.asked(step)
    assert told == list(range(told[0], told[0] + 4))
