"""Time and memory of the contrastive losses, compared with pytorch-metric-learning's SupCon.

Goals: the cost of one forward and backward pass as the batch grows, each in a fresh process, alternating, on as many
threads as torch takes (OMP_NUM_THREADS); the largest difference from the gradient of pytorch-metric-learning's.
Non-goals: the time of whole training steps; GPUs.

    python benchmarks/supcon.py --out benchmarks/supcon.json
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hierderm.files import write_json

SIZES = (512, 2048, 4096)
LOSSES = ("pytorch-metric-learning", "SupCon", "TreeSupCon")
DIM, COARSE, FINE, REPEATS = 512, 16, 211, 5


def make_loss(name: str) -> Any:
    from pytorch_metric_learning.losses import SupConLoss as TheirLoss

    from hierderm.taxonomy.tree import taxonomy_from_paths
    from hierderm.training.losses import SupConLoss, TreeSupConLoss

    if name == "TreeSupCon":
        paths = [(f"category {number % COARSE}", f"condition {number}") for number in range(FINE)]
        return TreeSupConLoss(taxonomy_from_paths(paths, ["category", "condition"], id="benchmark"))
    return {"SupCon": SupConLoss, "pytorch-metric-learning": TheirLoss}[name]()


def measure(name: str, n: int) -> dict[str, float]:
    """Wall and CPU seconds of a pass (medians) and the megabytes by which the process grew at its peak."""
    import torch

    torch.randn(256, 256) @ torch.randn(256, 256)  # the threads, which take memory once
    embeddings, labels = data(name, n)
    loss = make_loss(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = [], []
    for _ in range(REPEATS):
        start, start_processor = time.perf_counter(), time.process_time()
        loss(embeddings, labels).backward()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    medians = {"seconds": statistics.median(wall), "processor_seconds": statistics.median(processor)}
    found = {**medians, "megabytes": grown / 1024, "threads": torch.get_num_threads()}
    if name == "SupCon":
        found["gradient_difference"] = gradient_difference(n)
    return found


def data(name: str, n: int) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    embeddings = torch.randn(n, DIM, requires_grad=True)
    return embeddings, torch.randint(0, FINE if name == "TreeSupCon" else COARSE, (n,))


def gradient_difference(n: int) -> float:
    """The largest difference of SupCon's gradient from theirs, in float64, relative to its largest value."""
    gradients = []
    for name in ("SupCon", "pytorch-metric-learning"):
        embeddings, labels = data(name, n)
        embeddings = embeddings.detach().double().requires_grad_()
        make_loss(name)(embeddings, labels).backward()
        gradients.append(embeddings.grad)
    return float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max())


def rows() -> dict[str, Callable[[], object]]:
    """The work that `make bench` times."""
    embeddings, labels = data("SupCon", 4096)
    loss = make_loss("SupCon")
    return {"SupCon, forward and backward, 4,096 x 512": lambda: loss(embeddings, labels).backward()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="where to write the rows as JSON")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # the loss and the batch size of a fresh process
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return
    print("| batch | loss | seconds | CPU seconds | peak MB |\n|---|---|---|---|---|")
    found = []
    for n in SIZES:
        for name in LOSSES:
            command = [sys.executable, __file__, "--one", name, str(n)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = {"batch": n, "loss": name, **json.loads(done.stdout)}
            found.append(row)
            values = f"{row['seconds']:.3f} | {row['processor_seconds']:.3f} | {row['megabytes']:.0f}"
            print(f"| {n} | {name} | {values} |", flush=True)
    if options.out:
        write_json(options.out, found)


if __name__ == "__main__":
    main()
