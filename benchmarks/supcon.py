"""Time and memory of the contrastive losses, compared with pytorch-metric-learning's SupCon.

Goals: the cost of one forward and backward pass as the batch grows, each in a fresh process, alternating. On one
thread, whose processor time hardly depends on what else the machine does.
Non-goals: the time of whole training steps; GPUs.
Command: python benchmarks/supcon.py --out benchmarks/supcon.json
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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

    torch.set_num_threads(1)
    torch.manual_seed(0)
    loss = make_loss(name)
    embeddings = torch.randn(n, DIM, requires_grad=True)
    labels = torch.randint(0, FINE if name == "TreeSupCon" else COARSE, (n,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = [], []
    for _ in range(REPEATS):
        start, start_processor = time.perf_counter(), time.process_time()
        loss(embeddings, labels).backward()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    medians = {"seconds": statistics.median(wall), "processor_seconds": statistics.median(processor)}
    return {**medians, "megabytes": grown / 1024}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="where to write the rows as JSON")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # the loss and the batch size of a fresh process
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return
    print("| batch | loss | seconds | CPU seconds | peak MB |\n|---|---|---|---|---|")
    rows = []
    for n in SIZES:
        for name in LOSSES:
            command = [sys.executable, __file__, "--one", name, str(n)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = {"batch": n, "loss": name, **json.loads(done.stdout)}
            rows.append(row)
            values = f"{row['seconds']:.3f} | {row['processor_seconds']:.3f} | {row['megabytes']:.0f}"
            print(f"| {n} | {name} | {values} |", flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
