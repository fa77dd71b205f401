"""Seconds of a small comparison as a command, and of the report of one.

Goals: what a user waits for `hierderm compare` with the seven models of experiments/three_way.toml on 140 generated
images without augmented views, imports and report included; and for the report alone. Non-goals: large data, where
the methods and the evaluation count (benchmarks/training.py, benchmarks/evaluation.py).

    python benchmarks/compare.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hierderm.config.loading import load_comparison
from hierderm.data.synthetic.recipe import Recipe, write_synthetic
from hierderm.experiment.compare import compare, evaluated
from hierderm.experiment.protocol import divide
from hierderm.experiment.results import COMPARISON
from hierderm.experiment.run import environment
from hierderm.files import write_json
from hierderm.report.comparison import write_report

RECIPE = Recipe(n_cases=68, n_conditions=16, n_categories=8)  # 140 images
_KEPT: list[tempfile.TemporaryDirectory[str]] = []  # as long as the functions of `rows` may be called


def rows() -> dict[str, Callable[[], object]]:
    """By name, what `make bench` times; data and models of the report are made here."""
    _KEPT.append(tempfile.TemporaryDirectory())
    place = Path(_KEPT[-1].name)
    cases = write_synthetic(RECIPE, place / "data")
    flags = {"data.cases": str(cases), "data.taxonomy": str(cases.with_name("taxonomy.csv")), "training.views": 0}

    def command() -> None:
        with tempfile.TemporaryDirectory() as out:
            given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
            command = [sys.executable, "-m", "hierderm", "compare", "three_way", *given, "-o", f"{out}/run"]
            subprocess.run(command, check=True, capture_output=True)

    comparison, folder = load_comparison("three_way", flags), place / "run"
    compare(comparison, folder)
    divisions = divide(comparison.data, comparison.split, comparison.protocol, folder, COMPARISON)
    first, made = divisions[0][0], evaluated(comparison, divisions, folder)

    def report() -> None:
        (folder / "report.html").unlink()  # else it stays as it is
        write_report(comparison, first.table, first.report, made, folder, environment())

    return {"compare, 140 images, seven models, as a command": command, "report of seven models": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/compare.json"))
    options = parser.parse_args()
    found = []
    for name, work in rows().items():
        seconds = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            work()
            seconds.append(round(time.perf_counter() - start, 2))
        found.append({"name": name, "seconds": sorted(seconds)[len(seconds) // 2], "all": seconds})
        print(found[-1], flush=True)
    write_json(options.out, found)


if __name__ == "__main__":
    main()
