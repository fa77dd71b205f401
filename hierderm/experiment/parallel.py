"""Several models at once, each in a process of its own with its share of the cores."""

from __future__ import annotations

import multiprocessing.resource_tracker
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

from joblib import Parallel, delayed, parallel_config
from joblib.externals import loky

from hierderm.data.checks import SAID
from hierderm.progress import lines_of, show_messages
from hierderm.threads import n_threads

LEAST = 16 * 2**20  # bytes of features from which the work outweighs the seconds in which a process starts
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container
COPIES = 8  # of the features, that a fit may hold: of all views, standardised, and in float64


def processes_for(n_models: int, features: Path) -> int:
    """How many models to make at once: as many as there are cores, and as half of the memory has room for.

    `features`: the folder of what the models learn from, whose size says how much work and memory they take.
    """
    size = sum(path.stat().st_size for path in features.rglob("*") if path.is_file())
    if size < LEAST:
        return 1
    return max(1, min(n_models, n_threads(), machine_memory() // 2 // (COPIES * size)))


def machine_memory() -> int:
    """Bytes that the machine, or the container, has."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = LIMIT.read_text(encoding="utf-8").strip() if LIMIT.is_file() else "max"
    return physical if limit == "max" else min(physical, int(limit))


def at_once(works: Mapping[str, Callable[[], None]], n_processes: int) -> Iterator[str]:
    """Do each work, `n_processes` at a time, of one here; gives the name of each that is done.

    A fault ends the others, and so does whatever else ends the loop.
    """
    if n_processes == 1:
        for name, work in works.items():
            work()
            yield name
        return
    options = {"initializer": _begin, "initargs": (os.getpid(), frozenset(SAID))}
    with parallel_config(
        "loky", n_jobs=n_processes, inner_max_num_threads=max(1, n_threads() // n_processes), **options
    ):
        with _starting():
            done = Parallel(return_as="generator_unordered", batch_size=1)(
                delayed(_named)(name, work) for name, work in works.items()
            )
        try:
            with closing(done):
                yield from done
        finally:  # idle processes would keep their memory, and the program waiting at its end
            loky.get_reusable_executor(reuse=True).shutdown(wait=False, kill_workers=True)


def _named(name: str, work: Callable[[], None]) -> str:
    lines_of(name)
    work()
    return name


def _begin(parent: int, said: Set[str]) -> None:
    """A process shows its messages as lines, leaves Ctrl-C to its parent, does not outlive it, and repeats no note."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    show_messages()
    SAID.update(said)


@contextmanager
def _starting() -> Iterator[None]:
    """Processes that start meanwhile never see Ctrl-C, not even while they import; this one sees it afterwards.

    The trackers remove what killed ones leave. They come first, as they unblock the signal when they have started, and
    would warn of what they remove after the last message to the user.
    """
    warned = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [warned, "ignore:resource_tracker:UserWarning"]))
    for tracker in (multiprocessing.resource_tracker, loky.backend.resource_tracker):
        tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if warned is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = warned
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
