"""Processes of tests that begin with the package and torch imported, by forks of one that has done nothing else yet."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any


def prepared() -> ForkServerContext:
    """The context to start processes with."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "tests.no_collector",
            "hierderm.cli.main",
            "hierderm.experiment.run",
            "hierderm.report.model_card",
            "hierderm.search.finder",
            "hierderm.training.gradient.loop",
        ]
    )
    return context


def command(arguments: list[str], errors: Path) -> ForkServerProcess:
    """`hierderm` with arguments, begun; its standard error is added to a file."""
    process = prepared().Process(target=_run, args=(arguments, errors))
    process.start()
    return process


def _run(arguments: list[str], errors: Path) -> None:
    from hierderm.cli.main import main

    with errors.open("a") as file:
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # of a shell's job it may be ignored
    sys.argv = ["hierderm", *arguments]
    main()


class Ranks:
    """Processes as `torchrun` starts them on one machine, without a GPU; each waits for functions to call."""

    def __init__(self, n: int = 2) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = prepared()
        self.processes, self.ends = list[ForkServerProcess](), list[Connection]()
        for rank in range(n):
            own, other = context.Pipe()
            self.processes.append(context.Process(target=_serve, args=(other, rank, n, port), daemon=True))
            self.processes[-1].start()
            other.close()
            self.ends.append(own)

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What a function of a module returns in each process; an exception comes back as a value."""
        for end in self.ends:
            end.send((function, arguments))
        return [end.recv() for end in self.ends]

    def stop(self) -> None:
        for process, end in zip(self.processes, self.ends, strict=True):
            end.close()
            process.join(10)
            process.kill()


def _serve(end: Connection, rank: int, n: int, port: int) -> None:
    import torch

    from hierderm.training.ranks import together

    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests", "GROUP_RANK": 0}
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n}
    os.environ.update({name: str(value) for name, value in (address | numbers).items()})
    with together():
        while True:
            try:
                function, arguments = end.recv()
            except EOFError:
                return
            try:
                end.send(function(*arguments))
            except Exception as error:
                traceback.print_exc()  # shown where the test fails
                end.send(error)
