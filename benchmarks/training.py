"""Seconds, seconds per epoch and peak memory of each way to train.

Goals: what a model costs with the images of the built-in demo (786 to learn from) and `hierderm:tiny`; each way in a
process of its own, whose memory is given above that of a process that only loads the table and the backbone. Frozen
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

from hierderm.config.loading import load_config
from hierderm.config.methods import Gradient, TreeLda
from hierderm.experiment.run import prepare, train
from hierderm.files import write_json
from hierderm.model.backbone import load_backbone
from hierderm.training.features import FeatureStore

EPOCHS = 3  # enough to tell a pass over the images from what comes before the first
BY_LOSSES = {"method": "gradient", "epochs": EPOCHS, "batch_size": 32}
OF_OUTPUT = {**BY_LOSSES, "features": "output", "neck": "identity"}
WAYS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "features": {},
    "linear_probe": {"method": "linear_probe"},
    "lda": {"method": "lda"},
    "closed form, flat": {"strengths": [0.0], "probability_levels": ["fine"]},
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
