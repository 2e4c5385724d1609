"""Signals end a run after its step; outside the loop, or the second time, at once."""

import os
import signal
import threading

import pytest

from bahdanau_jax.runs.preemption import Stopped, StopSignals


def send(*names: str) -> None:
    for name in names:
        os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_in_the_loop_a_signal_waits_for_the_end_of_the_step(name):
    done = []
    with pytest.raises(Stopped, match=name), StopSignals() as stop:
        for item in stop.each_finished(range(10)):
            if item == 3:
                send(name)
            done.append(item)
            if stop.asked:
                raise Stopped(f"stopped by {stop.asked}")
    assert done == [0, 1, 2, 3]


def test_a_signal_after_the_last_step_s_question_stops_after_the_loop():
    with pytest.raises(Stopped), StopSignals() as stop:
        for _ in stop.each_finished(range(3)):
            asked = stop.asked
            send("SIGTERM")
            assert asked in (None, "SIGTERM")
        raise AssertionError("went on")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_outside_the_loop_a_signal_stops_at_once(name):
    with pytest.raises(Stopped, match=name), StopSignals() as stop:
        assert list(stop.each_finished([1, 2])) == [1, 2]
        send(name)
        raise AssertionError("went on")


@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
def test_a_second_sigint_stops_at_once_in_the_loop_too(first):
    with pytest.raises(KeyboardInterrupt) as error, StopSignals() as stop:
        for _ in stop.each_finished([1]):
            send(first, "SIGINT")
            raise AssertionError("went on")
    assert not isinstance(error.value, Stopped)


def test_a_second_sigterm_changes_nothing():
    with StopSignals() as stop:
        steps = stop.each_finished([1, 2])
        next(steps)
        send("SIGTERM", "SIGTERM")
        assert stop.asked == "SIGTERM"
        next(steps)
        with pytest.raises(Stopped):
            next(steps)


def test_the_earlier_handlers_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup does
    try:
        with StopSignals() as stop:
            send("SIGINT")
            assert stop.asked is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_changes_no_handler():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def use():
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [before]
