"""Time and memory of the supervised contrastive loss, ours beside pytorch-metric-learning's.

Goals: the cost of one forward and backward pass as the batch grows, each in a fresh process, alternating.
Non-goals: the time of whole training steps; GPU figures.
Command: python benchmarks/supcon.py
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

SIZES = (512, 2048, 4096)
DIM, CLASSES, REPEATS = 512, 16, 5


def measure(which: str, n: int) -> dict[str, float]:
    """Seconds of a pass (median) and the megabytes by which the process grew at its peak."""
    import torch
    from pytorch_metric_learning.losses import SupConLoss as TheirLoss

    from hierderm.training.losses.registry import SupConLoss

    torch.manual_seed(0)
    loss = {"hierderm": SupConLoss, "pytorch-metric-learning": TheirLoss}[which](temperature=0.1)
    embeddings = torch.randn(n, DIM, requires_grad=True)
    labels = torch.randint(0, CLASSES, (n,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        loss(embeddings, labels).backward()
        seconds.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(seconds), "megabytes": (after - before) / 1024}


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
        return
    print("| batch | loss | seconds | peak MB |\n|---|---|---|---|")
    for n in SIZES:
        for which in ("pytorch-metric-learning", "hierderm"):
            done = subprocess.run([sys.executable, __file__, which, str(n)], capture_output=True, text=True, check=True)
            figures = json.loads(done.stdout)
            print(f"| {n} | {which} | {figures['seconds']:.3f} | {figures['megabytes']:.0f} |")


if __name__ == "__main__":
    main()
