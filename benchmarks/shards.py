"""Seconds of a table embedded by one process, and in two shards at once; memory of the closed form from shards.

Goals: what `hierderm embed --shard` and `--join` cost beside one process, with one core a process in both, start and
reading of the table included; seconds and peak memory of the sums of `tree_lda` over features in files, as four shards
that are read some rows at a time, beside the same features as one array in memory. Non-goals: many machines, whose time
is that of the slowest; GPUs; reading from a network. Random weights and features.

    python -m benchmarks.shards --out benchmarks/shards.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.machine import machine
from hierderm.files import write_json
from hierderm.taxonomy.file import load_taxonomy

N_IMAGES, SIDE = 1200, 160
N_ROWS, N_FEATURES, N_SHARDS = 200_000, 512, 4
SETTING = {"shrinkage": 0.1, "decay": 1.0, "strength": 3.0}


def embed_seconds(folder: Path, n: int) -> float:
    """Seconds until the table is there, from `n` processes at once."""
    command = [sys.executable, "-m", "hierderm", "embed", str(folder / "cases.csv"), "-t", "scin", "--engine", "torch"]
    command += ["-m", "timm:tf_efficientnet_lite0@random", "-o", str(folder / f"by-{n}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    parts = [["--shard", f"{number}/{n}"] for number in range(1, n + 1)] if n > 1 else [[]]
    running = [subprocess.Popen([*command, *part], env=environment, stdout=subprocess.DEVNULL) for part in parts]
    codes = [process.wait() for process in running]
    assert not any(codes), codes
    if n > 1:
        subprocess.run([*command, "--join"], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def embedding(folder: Path) -> dict[str, Any]:
    from benchmarks.embed import photographs
    from hierderm.embeddings import EmbeddingTable

    paths = photographs(str(folder), N_IMAGES, SIDE)
    names = load_taxonomy("scin").names()
    conditions = [names[number % len(names)] for number in range(N_IMAGES)]
    table = pd.DataFrame({"image_path": paths, "case_id": [f"c{n}" for n in range(N_IMAGES)], "condition": conditions})
    table.to_csv(folder / "cases.csv", index=False)
    seconds = {f"{n} process(es)": round(embed_seconds(folder, n), 1) for n in (1, 2)}
    one, two = (EmbeddingTable.load(folder / f"by-{n}") for n in (1, 2))
    pd.testing.assert_frame_equal(one.frame, two.frame)
    return {"images": N_IMAGES, **seconds, "largest_difference": float(np.abs(one.embeddings - two.embeddings).max())}


def closed_form(folder: Path, mapped: bool, end: Any) -> None:
    """Seconds, peak memory of arrays, and the weights, of an analysis of the features in files."""
    from hierderm.training.tree_analysis import TreeAnalysis

    tree = load_taxonomy("scin")
    tracemalloc.start()  # pages of a mapped file are in memory, too, as long as nobody else wants it
    fine = np.arange(N_ROWS) % tree.size(-1)
    start = time.perf_counter()
    shards = [np.load(folder / f"{number}.npy", mmap_mode="r") for number in range(N_SHARDS)]
    found = TreeAnalysis(shards if mapped else np.concatenate(shards), fine, tree).fit(**SETTING)
    end.send((round(time.perf_counter() - start, 1), round(tracemalloc.get_traced_memory()[1] / 1e6), found.weight))


def sums(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    for number in range(N_SHARDS):
        np.save(folder / f"{number}.npy", rng.normal(size=(N_ROWS // N_SHARDS, N_FEATURES)).astype(np.float32))
    context, found, weights = multiprocessing.get_context("spawn"), dict[str, Any](), []
    for name, mapped in (("one array", False), ("shards", True)):
        own, other = context.Pipe()
        process = context.Process(target=closed_form, args=(folder, mapped, other))
        process.start()
        seconds, megabytes, weight = own.recv()
        process.join()
        found[name] = {"seconds": seconds, "peak_mb": megabytes}
        weights.append(weight)
    difference = float(np.abs(weights[0] - weights[1]).max())
    return {"rows": N_ROWS, "features": N_FEATURES, **found, "largest_difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        result = {"machine": machine(), "embed": embedding(Path(first)), "tree_lda": sums(Path(second))}
    print(json.dumps(result, indent=2))
    if out:
        write_json(out, result)


if __name__ == "__main__":
    main()
