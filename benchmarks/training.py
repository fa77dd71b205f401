"""Seconds, seconds per epoch and peak memory of each way to train.

Goals: what a model costs with the pictures of the built-in demo (786 to learn from) and `hierderm:tiny`; each way in a
process of its own, whose memory is given beside that of a process that only loads the table and the backbone. Frozen
features are made once, in a row of their own, and shared. Non-goals: how good the models are (experiments/README.md).

    python benchmarks/training.py
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from hierderm import columns as c
from hierderm.artifacts import write_json
from hierderm.config.loading import load_config, with_overrides
from hierderm.config.settings import Config, ModelEntry
from hierderm.evaluation.validation import validation_scores
from hierderm.experiment.compare import own_config
from hierderm.experiment.run import (
    cached_features,
    cached_views,
    feature_widths,
    prepare_cases,
    train_run,
)
from hierderm.model.backbone import load_backbone
from hierderm.training.methods.probes import Probe, fit_probe

EPOCHS = 3  # enough to tell a pass over the pictures from what comes before the first
BY_LOSSES = {"training.method": "gradient", "training.epochs": EPOCHS, "training.batch_size": 32}
OF_OUTPUT = {**BY_LOSSES, "backbone.features": "output", "model.neck": "identity"}
FLAT = {"tree_lda.strengths": [0.0], "tree_lda.belief_levels": ["fine"]}
WAYS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "features": {},
    "linear_probe": {},
    "lda": {},
    "closed form, flat": FLAT,
    "closed form, tree": {},
    "neck by losses": {**BY_LOSSES, "training.freeze": "frozen"},
    "last 3 blocks by losses": OF_OUTPUT,
    "all blocks by losses": {**OF_OUTPUT, "training.freeze": "full"},
}


def measure(way: str, folder: Path) -> dict[str, Any]:
    """Seconds and memory of one way, with table and features at hand in `folder`."""
    entry = ModelEntry(name="measured", set=WAYS[way])
    config = own_config(load_config(), entry)
    config = with_overrides(config, {"data.cases": "synthetic:demo"})
    table, _ = prepare_cases(config, folder)
    backbone = load_backbone(config.backbone)
    start = time.perf_counter()
    epochs = 0
    if way == "features":
        cached_views(config, backbone, table, folder)
    elif way in ("linear_probe", "lda"):
        features = cached_features(config, backbone, table, folder)
        views, validation = cached_views(config, backbone, table, folder), table.splits == c.VALIDATION

        def score(probe: Probe) -> float:
            found = validation_scores(probe.embed(features[validation]), table.part(c.VALIDATION))
            return found[config.training.monitor]

        widths = feature_widths(config, backbone).values()
        fine = np.tile(table.part(c.TRAIN).fine, len(views))
        fit_probe(way, np.concatenate(views), fine, table.taxonomy.size(-1), score, widths)
    elif way != "nothing":
        with tempfile.TemporaryDirectory() as run:
            history = train_run(config, table, Path(run), features=folder).history
        epochs = len(history) if _by_losses(config) else 0
    seconds = time.perf_counter() - start
    return {
        "way": way,
        "seconds": round(seconds, 1),
        "seconds_per_epoch": round(seconds / epochs, 1) if epochs else None,
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def _by_losses(config: Config) -> bool:
    return config.training.method == "gradient"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/training.json"))
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            command = [sys.executable, __file__, "--one", way, folder]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rows.append(json.loads(found.strip().splitlines()[-1]))
            print(rows[-1], flush=True)
    write_json(options.out, rows)


if __name__ == "__main__":
    main()
