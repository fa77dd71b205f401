"""Ctrl-C: within a second, exit code 130, how to go on, no traceback; whatever the command is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from hierderm.cli.stopping import PATIENCE

SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job may have been started with it ignored
sys.argv = ["/somewhere/hierderm", "wait", "my file.toml"]
from hierderm.cli import main
from hierderm.progress import Progress

@main.app.command()
def wait(file: str) -> None:
    {body}

main.main()
"""
IN_PYTHON = """
    import time
    with Progress("Waiting", shown=True):
        print("ready", flush=True)
        while True:
            time.sleep(0.1)
"""
IN_A_LONG_CALL = """
    import numpy as np
    matrix = np.ones((4000, 4000))
    print("ready", flush=True)
    np.linalg.svd(matrix)
"""
IN_PROCESSES = """
    from functools import partial
    from hierderm.experiment.parallel import at_once

    def svd():
        import numpy as np
        np.linalg.svd(np.ones((4000, 4000)))

    for name in at_once({"quick": int, "slow": svd, "slower": svd}, 2):
        print("ready", flush=True)
"""
SWALLOWED = """
    import time
    print("ready", flush=True)
    while True:
        try:
            time.sleep(0.1)
        except BaseException:
            pass
"""


def stopped(body: str) -> tuple[int, str, float]:
    """Exit code and standard error of a command that got SIGINT, and the seconds that it took to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a shell gives a job a group of processes, which a terminal sends SIGINT to
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors, time.monotonic() - start


@pytest.mark.parametrize(
    "body", [IN_PYTHON, IN_A_LONG_CALL, IN_PROCESSES, SWALLOWED], ids=["python", "long call", "processes", "swallowed"]
)
def test_a_command_stops_within_a_second_and_says_how_to_go_on(body: str) -> None:
    code, errors, seconds = stopped(body)
    assert code == 130
    message = "Stopped. What was finished is kept; to go on, give the command again:"
    assert errors.endswith(f"{message}\n  /somewhere/hierderm wait 'my file.toml'\n")
    assert "Traceback" not in errors and "Abort" not in errors
    assert PATIENCE < 1 and seconds < 10  # other tests may keep the machine busy; the long calls would take longer
