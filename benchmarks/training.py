"""Seconds, seconds per epoch and peak memory of each way to train.

Goals: what a model costs with the images of the built-in demo (786 to learn from) and `hierderm:tiny`; each way in a
process of its own, whose memory is given above that of a process that only loads the table and the backbone. Frozen
features are made once, in a row of their own, and shared. Also an epoch of heads on 10,000 cached features beside a
bare torch loop over the same batches, with the same losses, optimiser, schedule and validation, in turns. Non-goals:
how good the models are (experiments/README.md).

    python benchmarks/training.py
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from hierderm.config.loading import load_config
from hierderm.config.methods import Gradient, TreeLda
from hierderm.data.sampler import ShuffledBatchSampler, TreeBatchSampler, make_sampler
from hierderm.evaluation.subject import case_table
from hierderm.evaluation.validation import validation_scores
from hierderm.experiment.run import prepare, train
from hierderm.files import write_json
from hierderm.model.backbone import load_backbone
from hierderm.model.network import Network
from hierderm.taxonomy.tree import taxonomy_from_paths
from hierderm.training.features import FeatureStore
from hierderm.training.gradient.loop import run_training
from hierderm.training.gradient.module import FeatureRows, TrainingModule
from hierderm.training.methods.gradient import shape_of

N_COARSE, N_FINE = 16, 64
HEADS = Gradient(freeze="frozen", init="random", epochs=10, patience=10)
DIMS = (1152, 2912)  # the output of SigLIP-so400m, all layers of lite0
EPOCHS = 3  # enough to tell a pass over the images from what comes before the first
BY_LOSSES = {"method": "gradient", "epochs": EPOCHS, "batch_size": 32}
OF_OUTPUT = {**BY_LOSSES, "features": "output", "neck": "identity"}
WAYS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "features": {},
    "linear_probe": {"method": "linear_probe"},
    "lda": {"method": "lda"},
    "closed form, flat": {"strengths": [0.0], "probability_levels": {"fine": 1.0}},
    "closed form, tree": {},
    "neck by losses": {**BY_LOSSES, "freeze": "frozen"},
    "last 3 blocks by losses": OF_OUTPUT,
    "all blocks by losses": {**OF_OUTPUT, "freeze": "full"},
}


def measure(way: str, folder: Path) -> dict[str, Any]:
    """Seconds and memory of one way, with table and features at hand in `folder`."""
    config = load_config(None, {f"training.{name}": value for name, value in WAYS[way].items()})
    table, _ = prepare(config.data, config.split, folder)
    backbone, store = load_backbone(config.backbone, "layers"), FeatureStore(folder / "features")
    start = time.perf_counter()
    epochs = 0
    if way == "features":
        assert isinstance(config.training, TreeLda)
        store.for_training(backbone, table, config.training.views, config.training.augmentation)
    elif way != "nothing":
        with tempfile.TemporaryDirectory() as run:
            history = train(config, table, Path(run), store).history
        epochs = len(history) if isinstance(config.training, Gradient) else 0
    seconds = time.perf_counter() - start
    return {
        "way": way,
        "seconds": round(seconds, 1),
        "seconds_per_epoch": round(seconds / epochs, 1) if epochs else None,
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


class Frozen(nn.Module):
    """In place of a backbone whose features are cached."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim


@cache
def random_features(n: int, dim: int, n_views: int) -> tuple[list[Tensor], Tensor]:
    """Of `n` training images in each view, and of a fifth as many for validation."""
    return [torch.randn(n, dim) for _ in range(n_views)], torch.randn(n // 5, dim)


def heads_on_features(n: int = 10_000, dim: int = 1152, n_views: int = 3) -> TrainingModule:
    """Two heads, fresh, on random features."""
    tree = taxonomy_from_paths(
        [(f"C{k * N_COARSE // N_FINE}", f"F{k}") for k in range(N_FINE)], ("category", "condition"), id="made-up"
    )
    rng, total = np.random.default_rng(0), n + n // 5
    splits = np.where(np.arange(total) < n, "train", "validation")
    names = np.array(tree.names())[rng.integers(0, N_FINE, total)]
    table = case_table(
        pd.DataFrame({"case_id": np.arange(total).astype(str), "condition": names, "split": splits}), tree
    )
    torch.manual_seed(0)
    network = Network(Frozen(dim), shape_of(HEADS), tree, tree.fine_level)  # type: ignore[arg-type]
    features = random_features(n, dim, n_views)
    return TrainingModule(network, HEADS, table.part("train"), table.part("validation"), features)


def by_hierderm(module: TrainingModule) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_training(module, Path(folder))


def by_bare_loop(module: TrainingModule) -> None:
    """What any training of these heads must do, without checkpoints and history."""
    network, loss, batches = module.network.train(), HEADS.loss, sampler_of(module)
    optimiser = torch.optim.AdamW(network.parameters(), HEADS.learning_rate, weight_decay=HEADS.weight_decay)
    n_steps = HEADS.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (1 + math.cos(math.pi * step / n_steps)) / 2)
    validation = module.validation_data
    assert module.contrastive is not None and module.classification is not None
    assert isinstance(validation, FeatureRows)
    for epoch in range(HEADS.epochs):
        batches.epoch = epoch
        features = module.views[epoch % len(module.views)].features
        for chosen in batches:
            rows = torch.tensor(chosen)
            outputs = network.heads(features[rows])
            total = loss.classification_weight * module.classification(outputs.logits, module.class_labels[rows])
            for weight, labels in module.contrastive_labels:
                total = total + weight * module.contrastive(outputs.projection, labels[rows])
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            schedule.step()
        with torch.inference_mode():
            embeddings = network.eval().heads(validation.features).embedding
        validation_scores(embeddings.numpy(), module.validation_table)
        network.train()


def sampler_of(module: TrainingModule) -> TreeBatchSampler | ShuffledBatchSampler:
    labels = module.class_labels.numpy()
    return make_sampler(HEADS.sampler, module.group_labels, labels, HEADS.batch_size, seed=0)


def rows() -> dict[str, Callable[[], object]]:
    """By name, what `make bench` times."""
    heads_on_features()  # makes the features
    name = f"{HEADS.epochs} epochs of heads on 10,000 cached features"
    return {
        name: lambda: by_hierderm(heads_on_features()),
        f"{name}, bare torch loop": lambda: by_bare_loop(heads_on_features()),
    }


def ratio_to_bare_loop(dim: int, repeats: int = 5) -> dict[str, Any]:
    """Seconds of an epoch on features of length `dim` in both ways, medians of runs in turns."""
    seconds: dict[str, list[float]] = {"hierderm": [], "bare loop": []}
    for _ in range(repeats):
        for name, train_heads in (("hierderm", by_hierderm), ("bare loop", by_bare_loop)):
            module = heads_on_features(dim=dim)
            start = time.perf_counter()
            train_heads(module)
            seconds[name].append((time.perf_counter() - start) / HEADS.epochs)
    found = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    ratio = round(found["hierderm"] / found["bare loop"], 2)
    way = f"an epoch of heads on 10,000 cached features of {dim} numbers"
    return {"way": way, "seconds_per_epoch": found, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/training.json"))
    parser.add_argument("--heads", action="store_true", help="only the heads beside the bare loop, nothing written")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]))))
        return
    found = []
    for dim in DIMS:
        found.append(ratio_to_bare_loop(dim))
        print(found[-1], flush=True)
    if options.heads:
        return
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            command = [sys.executable, __file__, "--one", way, folder]
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(ended.stdout.strip().splitlines()[-1]))
            print(found[-1], flush=True)
    write_json(options.out, found)


if __name__ == "__main__":
    main()
