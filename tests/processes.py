"""Processes of tests that begin with the package and torch imported, by forks of one that has done nothing else yet."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path


def prepared() -> ForkServerContext:
    """The context to start processes with."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["hierderm.cli.main", "hierderm.training.methods.gradient", "hierderm.search.finder"]
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
