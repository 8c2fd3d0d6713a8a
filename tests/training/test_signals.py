"""The first signal asks a run to stop; the second ends the process, whatever it does."""

import os
import signal
import subprocess
import sys
from threading import Thread

import pytest

from understudy.training.signals import stop_signals

HANGS = {
    "in Python": """
    while True: pass
""",
    "in a library": """
    import ctypes
    lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
    lock(mutex), lock(mutex)
""",
    "with a forked worker": """
    import multiprocessing, time
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(1,)).start()
    while True: pass
""",
}


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hang", HANGS)
def test_a_second_signal_ends_a_process_that_hangs(hang: str, second: signal.Signals) -> None:
    code = (
        "from understudy.training.signals import stop_signals\n"
        f"with stop_signals():\n    print('ready', flush=True)\n{HANGS[hang]}"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(second)
        assert process.wait(60) in (-second, 128 + second)


def test_one_signal_is_collected_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == ["SIGTERM"]
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_other_threads_collect_nothing() -> None:
    collected: list[list[str]] = []

    def inside() -> None:
        with stop_signals() as received:
            collected.append(received)

    thread = Thread(target=inside)
    thread.start()
    thread.join()
    assert collected == [[]]
