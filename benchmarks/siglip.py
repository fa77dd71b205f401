"""What SigLIP-B/16 at 224 pixels costs on this machine: seconds an image, peak memory and disk of each way.

Goals: what to expect of the real size before it is started, on about 200 built-in images, with random weights, whose
speed is that of any weights; each way is the command that a user gives, in a process of its own, its start included.
One epoch each, no views. Non-goals: how good the models are; GPUs.

    python benchmarks/siglip.py              # all ways
    python benchmarks/siglip.py "embed"      # one; the numbers of the others stay
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hierderm.data.synthetic.recipe import Recipe, write_synthetic
from hierderm.files import write_json

RECIPE = Recipe(n_cases=98, n_conditions=16, n_categories=4)  # 200 images
BACKBONE = "timm:vit_base_patch16_siglip_224"
HEADS = ["--training.method", "gradient", "--training.epochs", "1", "--training.views", "0"]
TRAINED = [*HEADS, "--training.batch_size", "32"]
LAST = [*TRAINED, "--training.freeze", "last_blocks", "--training.last_blocks", "3"]
WAYS = {
    "embed": ["embed"],
    "two heads, frozen": ["train", *HEADS],
    "last 3 blocks": ["train", *LAST],
    "last 3 blocks, cached activations": ["train", *LAST, "--training.cache_activations", "true"],
    "LoRA of all blocks": ["train", *TRAINED, "--training.freeze", "lora"],
}
NUMBERS = Path(__file__).with_suffix(".json")


def command(way: str, cases: Path, out: Path) -> list[str]:
    start, *options = WAYS[way]
    taxonomy = str(cases.with_name("taxonomy.csv"))
    if start == "embed":
        rest = [str(cases), "--model", f"{BACKBONE}@random", "-t", taxonomy]
    else:
        data = ["--data.cases", str(cases), "--data.taxonomy", taxonomy]
        rest = [*data, "--backbone.name", BACKBONE, "--backbone.weights", "random", *options]
    return [sys.executable, "-m", "hierderm", start, *rest, "-o", str(out)]


def measure(way: str, cases: Path, out: Path) -> dict[str, Any]:
    """Wall time and peak memory of one way, and the size of what it leaves behind."""
    n_images = len(cases.read_text(encoding="utf-8").splitlines()) - 1
    start = time.perf_counter()
    process = subprocess.Popen(command(way, cases, out), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{way}: exit code {process.returncode}")
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return {
        "way": way,
        "images": n_images,
        "seconds": round(seconds, 1),
        "seconds_per_image": round(seconds / n_images, 2),
        "peak_gb": round(used.ru_maxrss / 1e6, 2),
        "disk_mb": round(size / 1e6),
    }


def main() -> None:
    known = {row["way"]: row for row in json.loads(NUMBERS.read_text(encoding="utf-8"))} if NUMBERS.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        cases = write_synthetic(RECIPE, Path(scratch) / "data")
        for number, way in enumerate(sys.argv[1:] or WAYS):
            known[way] = measure(way, cases, Path(scratch) / str(number))
            print(json.dumps(known[way]), flush=True)
    write_json(NUMBERS, [known[way] for way in WAYS if way in known])


if __name__ == "__main__":
    main()
