"""Has anything become slower? Times every row of the benchmarks and compares it with `bench.json`.

Goals: a number a row that another day and another load change little: seconds of the work over seconds of a reference
kernel (a float32 product of matrices and a sort) measured in turns with it, medians of three. A row that takes half as
long again as the file says fails, and so does one that is only in the file or only in the code. Non-goals: other kinds
of processors, where ratios differ: write the file anew there; absolute speed and memory, which each benchmark gives by
itself.

    make bench                                          # all rows, about 10 minutes
    python benchmarks/guard.py --only clustering probe  # of some modules
    python benchmarks/guard.py --update                 # write the file anew, after a change that is meant

Rows come from the function `rows() -> dict[str, Callable[[], object]]` of a module in this folder: a name, and the work
to time. Data are made in `rows`, which is not timed; each module runs in a process of its own.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from hierderm.files import write_json

HERE = Path(__file__).parent
FILE = HERE / "bench.json"
REPEATS = 3
BEHIND = 1.5  # times the committed ratio: behind by half
Row = dict[str, float]  # seconds, and their ratio to the reference kernel


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def reference() -> Callable[[], object]:
    """The kernel that rows are compared with: what most of them are made of."""
    rng = np.random.default_rng(0)
    matrix, values = rng.random((1024, 1024), dtype=np.float32), rng.random(1_000_000, dtype=np.float32)
    return lambda: ([matrix @ matrix for _ in range(4)], np.sort(values))


def measured(
    work: Callable[[], object], kernel: Callable[[], object], clock: Callable[[Callable[[], object]], float] = seconds
) -> Row:
    """Medians of three, kernel and work in turns."""
    kernels, works = [], []
    for _ in range(REPEATS):
        kernels.append(clock(kernel))
        works.append(clock(work))
    middle = statistics.median(works)
    return {"seconds": round(middle, 3), "ratio": round(middle / statistics.median(kernels), 2)}


def measured_module(path: Path, expected: Mapping[str, Row]) -> dict[str, Row]:
    """The rows of a module; what seems to be behind is measured once more, and its better number counts."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    kernel, found = reference(), {}
    kernel()
    for name, work in module.rows().items():
        row, key = measured(work, kernel), f"{path.stem}: {name}"
        if key in expected and row["ratio"] > BEHIND * expected[key]["ratio"]:
            row = min(row, measured(work, kernel), key=lambda row: row["ratio"])
        print(f"{key}  {row['seconds']:.3f} s", file=sys.stderr, flush=True)
        found[key] = row
    return found


def measured_apart(path: Path, *, update: bool) -> dict[str, Row]:
    """The rows of a module, measured in a process of its own."""
    command = [sys.executable, __file__, "--one", str(path), *(["--update"] if update else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows: dict[str, Row] = json.loads(done.stdout.splitlines()[-1])
    return rows


def modules(folder: Path) -> list[Path]:
    """The modules of a folder that have rows."""
    return [
        path
        for path in sorted(folder.glob("*.py"))
        if any(
            isinstance(node, ast.FunctionDef) and node.name == "rows"
            for node in ast.parse(path.read_text(encoding="utf-8")).body
        )
    ]


def verdicts(found: Mapping[str, Row], committed: Mapping[str, Row]) -> list[tuple[str, str]]:
    """Name and verdict of every row of either; '' where nothing is wrong."""
    result = []
    for name in [*found, *(name for name in committed if name not in found)]:
        if name not in committed:
            verdict = f"not in {FILE.name}: --update adds it"
        elif name not in found:
            verdict = f"only in {FILE.name}: --update takes it out"
        else:
            times = found[name]["ratio"] / committed[name]["ratio"]
            verdict = f"BEHIND: {times:.1f} times the committed ratio" if times > BEHIND else ""
        result.append((name, verdict))
    return result


def as_table(found: Mapping[str, Row], committed: Mapping[str, Row]) -> str:
    lines = ["| row | seconds | ratio | committed | |", "|---|---|---|---|---|"]
    for name, verdict in verdicts(found, committed):
        row = found.get(name)
        ratios = [f"{rows[name]['ratio']:.2f}" if name in rows else "" for rows in (found, committed)]
        lines.append(f"| {name} | {'' if row is None else row['seconds']} | {' | '.join(ratios)} | {verdict or 'ok'} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the ratios that are found to the file")
    parser.add_argument("--only", nargs="+", metavar="MODULE", help="modules by name")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    committed: dict[str, Row] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    if options.one:
        print(json.dumps(measured_module(options.one, {} if options.update else committed)))
        return 0
    every = {path.stem: path for path in modules(HERE)}
    chosen = options.only or list(every)
    if unknown := [name for name in chosen if name not in every]:
        parser.error(f"{unknown} have no rows; there are {list(every)}")
    found: dict[str, Row] = {}
    for name in chosen:
        found |= measured_apart(every[name], update=options.update)
    rest = {name: row for name, row in committed.items() if options.only and name.split(":")[0] not in options.only}
    if options.update:
        write_json(FILE, dict(sorted((rest | found).items())), replace=True)
        return 0
    compared = {name: row for name, row in committed.items() if name not in rest}
    print(as_table(found, compared))
    return int(any(verdict for _, verdict in verdicts(found, compared)))


if __name__ == "__main__":
    sys.exit(main())
