"""Attack the package for about 20 minutes and print one table of what came of it.

Goals: no data lost, nothing wrong read, no traceback, no hang, no leak; kills at random moments in every command that
writes, damaged inputs in every reader, leaks of test images into training, and load on the page. Non-goals: attacks on
Python or on the libraries below.

    python -m benchmarks.soak --out benchmarks/soak.json        # make soak

Exit code 1 where anything was lost, wrong, a traceback or a hang.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.soak import fuzz, kills, leaks, load, readers
from benchmarks.soak.table import FAILURES, Row, printed
from hierderm.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--leaks", type=int, default=690)
    parser.add_argument("--minutes", type=float, default=10, help="of the long run on the page; 0 leaves the load out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="soak") as place:
        rows = _kills(Path(place), arguments.kills, arguments.seed)
        sample = Path(place, "sample")
        sample.mkdir()
        readers.samples(sample, kills.run)
        rows += fuzz.attack(readers.targets(sample), arguments.inputs, arguments.seed)
        rows += leaks.attack(sample, arguments.leaks, arguments.seed)
        if arguments.minutes:
            found, measured = load.attack(sample, arguments.minutes)
            rows += found
    print(printed(rows))
    print(measured)
    if arguments.out:
        write_json(arguments.out, {"rows": [row.to_dict() for row in rows], "load": measured, "seed": arguments.seed})
    sys.exit(any(row.counts[failure] for row in rows for failure in FAILURES))


def _kills(folder: Path, attempts: int, seed: int) -> list[Row]:
    """Half of the kills on each of two cores."""
    with ProcessPoolExecutor(2) as pool:
        halves = [pool.submit(kills.attack, folder / str(half), attempts // 2, seed + half) for half in range(2)]
        first, second = (half.result() for half in halves)
    for row, other in zip(first, second, strict=True):
        row.join(other)
    return first


if __name__ == "__main__":
    main()
