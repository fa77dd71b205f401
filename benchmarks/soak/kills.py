"""Kill commands at random moments, give them again, and compare what they leave with an unbroken run.

Each command is a child of a process that has imported the package, so that an attempt takes a second and not ten.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.soak.table import Row

PATIENCE = 120.0  # seconds until an attempt counts as a hang
VOLATILE = ("features", "checkpoints", "environment.json", "report.html", "tensorboard")  # paths, times and caches
TIMES = re.compile(r"seconds|created|time|path|folder|inputs|machine|memory|weights_file")
TOKEN = re.compile(r"-[0-9a-f]{8}\.")  # in the names of an index's files


@dataclass(frozen=True)
class Scenario:
    """A command that writes.

    `first`: commands that prepare the folder. `command`: the one to kill. `outputs`: what it writes. `old`: whether an
    older output lies there, which a kill must not lose; `opens`: a command that reads the output.
    """

    name: str
    command: list[str]
    outputs: list[str]
    first: tuple[list[str], ...] = ()
    opens: list[str] | None = None
    old: bool = False


DATA = ["--data.cases", "toy/cases.csv", "--data.taxonomy", "toy/taxonomy.csv", "--data.unreadable", "error"]
SMALL = ["--evaluation.bootstrap_rounds", "20", "--evaluation.kmeans_seeds", "2"]
MODEL = ["--model", "hierderm:tiny"]
TREE = ["-t", "toy/taxonomy.csv"]
EMBED = ["embed", "toy/cases.csv", *MODEL, *TREE, "-o", "vectors"]
BUILD = ["index", "build", "toy/cases.csv", *MODEL, *TREE, "-o", "index"]
INFO = ["index", "info", "index"]
GRADIENT = ["--training.method", "gradient", "--training.epochs", "3", "--training.views", "0"]
GRADIENT += ["--training.loss.schedule", "joint", "--training.batch_size", "16"]

SCENARIOS: Sequence[Scenario] = [
    Scenario("data synthetic", ["data", "synthetic", "made", "--preset", "toy"], ["made"]),
    Scenario("data csv", ["data", "csv", "toy/cases.csv", *TREE, "-o", "cases.csv"], ["cases.csv"]),
    Scenario("split", ["split", "toy/cases.csv", *TREE, "-o", "split.csv"], ["split.csv"]),
    Scenario(
        "taxonomy from-csv",
        ["taxonomy", "from-csv", "mine.csv", "--levels", "category,condition", "-o", "tree.csv"],
        ["tree.csv"],
    ),
    Scenario("embed", EMBED, ["vectors"]),
    Scenario("embed --replace", [*EMBED, "--replace"], ["vectors"], (EMBED,), None, old=True),
    Scenario("train tree_lda", ["train", *DATA, "--training.views", "1", "-o", "run"], ["run"]),
    Scenario("train gradient", ["train", *DATA, *GRADIENT, "-o", "run"], ["run"]),
    Scenario("index build", BUILD, ["index"]),
    Scenario("index build --replace", [*BUILD, "--replace"], ["index"], (BUILD,), INFO, old=True),
    Scenario("index add", ["index", "add", "index", "more/cases.csv"], ["index"], (BUILD,), INFO, old=True),
    Scenario("index remove", ["index", "remove", "index", "s00001", "s00002"], ["index"], (BUILD,), INFO, old=True),
    Scenario(
        "bench run",
        ["bench", "run", "-m", "tiny=hierderm:tiny", "-m", "colour", *DATA, *SMALL, "-o", "bench"],
        ["bench"],
    ),
    Scenario("compare", ["compare", "small.toml", *DATA, *SMALL, "-o", "compared"], ["compared"]),
    Scenario("evaluate -o", ["evaluate", "vectors", *TREE, *SMALL, "-o", "values.json"], ["values.json"], (EMBED,)),
]


def attack(folder: Path, attempts: int, seed: int, scenarios: Sequence[Scenario] = SCENARIOS) -> list[Row]:
    """`attempts` kills, spread over all commands that write; in `folder`, from this process's children."""
    rng = random.Random(seed)
    _warm_up()
    rows = []
    for number, scenario in enumerate(scenarios):
        row = Row("kill", scenario.name)
        here = folder / "here"
        base = _prepared(folder / "base" / str(number), scenario, here)
        _renew(here, base)
        status, seconds, text = run(scenario.command, here)
        if status:
            raise RuntimeError(f"{scenario.name} fails without a kill:\n{text}")
        wanted = {name: digest(here / name) for name in scenario.outputs}
        share = attempts // len(scenarios) + (number < attempts % len(scenarios))
        for _ in range(share):
            _renew(here, base)
            row.add(*_attempt(scenario, here, wanted, seconds, rng))
        rows.append(row)
    return rows


def _attempt(
    scenario: Scenario, here: Path, wanted: dict[str, dict[str, str]], seconds: float, rng: random.Random
) -> tuple[str, str]:
    """Kill once, sometimes twice; open what was there; run to the end; compare."""
    for _ in range(1 if rng.random() < 0.7 else 2):
        moment = rng.uniform(0, seconds)
        run(scenario.command, here, moment)
        if scenario.opens:
            status, _, text = run(scenario.opens, here)
            if status:
                return "lost", f"killed after {moment:.2f} s, then '{' '.join(scenario.opens)}': {text[-300:]}"
    command = scenario.command
    status, _, text = run(command, here)
    if status == 1 and "--replace" in text and "--replace" not in command:  # the killed one had finished its writing
        status, text = 0, ""
    if status == 1 and scenario.name == "index remove" and "to remove are not in the index" in text:
        status = 0  # removed before the kill
    if status == 1 and scenario.name == "index add" and "would be in the index twice" in text:
        status = 0
    if status is None:
        return "hang", text[-300:]
    if status:
        return ("traceback" if "Traceback" in text else "wrong"), text[-500:]
    found = {name: digest(here / name) for name in scenario.outputs}
    differing = [
        f"{name}/{file}"
        for name, files in wanted.items()
        for file in sorted(set(files) | set(found[name]))
        if files.get(file) != found[name].get(file)
    ]
    return ("wrong", f"differ: {differing[:5]}") if differing else ("survived", "")


def run(command: list[str], folder: Path, kill_after: float | None = None) -> tuple[int | None, float, str]:
    """Exit status, seconds and output of a command in a folder; status None is a hang, negative a signal."""
    log, start = folder / ".soak.log", time.monotonic()
    child = os.fork()
    if not child:
        _become(command, folder, log)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)  # so that its own children go with it
    limit = PATIENCE if kill_after is None else min(kill_after, PATIENCE)
    status = _wait(child, start + limit)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        status = -signal.SIGKILL if kill_after is not None else None
    return status, time.monotonic() - start, log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def _wait(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def _become(command: list[str], folder: Path, log: Path) -> None:
    """In a child: run the command and end."""
    status = 70
    try:
        os.chdir(folder)
        target = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # a test has others in their place
        sys.argv = ["hierderm", *command]
        from hierderm.cli.main import main

        main()
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def digest(place: Path) -> dict[str, str]:
    """A hash of each file, without what differs between two unbroken runs; a file alone has the name ''."""
    if not place.exists():
        return {}
    if place.is_file():
        return {"": _content(place)}
    files = [path for path in place.rglob("*") if path.is_file() and not path.name.startswith(".")]
    kept = [path for path in files if not set(path.relative_to(place).parts) & set(VOLATILE)]
    return {TOKEN.sub(".", str(path.relative_to(place))): _content(path) for path in kept}


def _content(path: Path) -> str:
    if path.suffix == ".json":
        return sha256(
            json.dumps(_steady(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True).encode()
        ).hexdigest()
    if path.suffix in (".png", ".html"):
        return "a picture or a page"
    return sha256(path.read_bytes()).hexdigest()


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {TOKEN.sub(".", key): _steady(inner) for key, inner in value.items() if not TIMES.search(key)}
        return {key: (sorted(inner) if key == "files" else inner) for key, inner in kept.items()}
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


def _prepared(base: Path, scenario: Scenario, here: Path) -> Path:
    """A folder with the scenario's inputs; made in `here`, since some outputs name the folder they were made in."""
    _renew(here, None)
    inputs(here, run)
    for command in scenario.first:
        status, _, text = run(command, here)
        if status:
            raise RuntimeError(f"{scenario.name}: '{' '.join(command)}' fails:\n{text}")
    shutil.copytree(here, base, copy_function=shutil.copy2)
    return base


def inputs(here: Path, command: Callable[[list[str], Path], Any]) -> None:
    """The toy, further cases of its conditions, and a small comparison."""
    command(["data", "synthetic", "toy", "--preset", "toy"], here)
    table = (here / "toy" / "cases.csv").read_text(encoding="utf-8").splitlines()
    more = here / "more"
    more.mkdir()
    (more / "cases.csv").write_text("\n".join([table[0], *_renamed(table[1:9])]) + "\n", encoding="utf-8")
    shutil.copytree(here / "toy" / "images", more / "images")
    mine = "category,condition\nred,rose\nred,ruby\nblue,sky\n"
    (here / "mine.csv").write_text(mine, encoding="utf-8")
    (here / "small.toml").write_text(SMALL_COMPARISON, encoding="utf-8")


def _renamed(lines: Iterable[str]) -> list[str]:
    """Rows of the toy as those of other cases: the ids change, the images' paths do not."""
    return [re.sub(r",s(\d{5})", r",more\1", line) for line in lines]


SMALL_COMPARISON = """\
name = "small"
focus = "tree"
[training]
views = 0
[[models]]
name = "vanilla"
method = "vanilla"
[[models]]
name = "tree"
method = "tree_lda"
"""


def _renew(here: Path, base: Path | None) -> None:
    shutil.rmtree(here, ignore_errors=True)
    if base is None:
        here.mkdir(parents=True)
    else:
        shutil.copytree(base, here, copy_function=shutil.copy2)


def _warm_up() -> None:
    """Import what commands need, so that children have it; one thread, since pools of threads do not survive a fork."""
    import faiss
    import lightning.pytorch
    import sklearn.linear_model
    import timm
    import torch
    import transformers

    import hierderm.cli.main
    import hierderm.experiment.compare
    import hierderm.search.case_index
    import hierderm.training.gradient.loop  # noqa: F401

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    assert sklearn and timm and transformers and lightning
