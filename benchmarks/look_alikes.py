"""How many changed copies of images are found, how many different images are taken for one, and how long it takes.

Goals: the rates and seconds of docs/data.md, on the built-in images or on a table of yours. Non-goals: copies that were
painted over, warped, or turned by other angles than right ones.

    python benchmarks/look_alikes.py                              # the built-in images
    python benchmarks/look_alikes.py --cases cases.csv
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from hierderm.data.look_alikes import Fingerprints, look_alikes
from hierderm.data.splits import join_cases
from hierderm.data.synthetic.recipe import PRESETS, write_synthetic

Change = Callable[[Image.Image, random.Random], Image.Image]
TURNS = tuple(Image.Transpose)


def _cropped(share: float) -> Change:
    def crop(image: Image.Image, rng: random.Random) -> Image.Image:
        width, height = (round(side * share) for side in image.size)
        left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        return image.crop((left, top, left + width, top + height))

    return crop


def _compressed(quality: int) -> Change:
    def compress(image: Image.Image, _: random.Random) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return compress


def _bordered(image: Image.Image, rng: random.Random) -> Image.Image:
    return ImageOps.expand(image, rng.randint(3, 14), rng.choice(["black", "white", "grey"]))


CHANGES: dict[str, Change] = {
    "as it is": lambda image, rng: image,
    "mirrored": lambda image, rng: ImageOps.mirror(image),
    "turned by 90, 180 or 270": lambda image, rng: image.rotate(rng.choice([90, 180, 270]), expand=True),
    "cropped to 95 %": _cropped(0.95),
    "cropped to 90 %": _cropped(0.9),
    "bordered": _bordered,
    "scaled to half": lambda image, rng: image.resize((image.width // 2, image.height // 2)),
    "quality 10": _compressed(10),
    "cropped, turned, quality 40": lambda image, rng: _compressed(40)(
        _cropped(0.92)(image, rng).transpose(rng.choice(TURNS)), rng
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, help="a table of cases; the built-in demo by default")
    parser.add_argument("--sample", type=int, default=300, help="images that are copied")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        cases = arguments.cases or write_synthetic(PRESETS["demo"], Path(place, "demo"))
        measure(cases, Path(place), arguments.sample, arguments.seed)


def measure(cases: Path, place: Path, n_sample: int, seed: int) -> None:
    table = pd.read_csv(cases, dtype=str)
    paths = [cases.parent / name for name in table["image_path"]]
    start = time.perf_counter()
    images = Fingerprints.of(paths)
    read = time.perf_counter() - start
    pairs = look_alikes(images)
    print(f"{len(paths)} images: read in {read:.1f} s, compared in {time.perf_counter() - start - read:.1f} s")
    case, condition = (pd.factorize(table[name])[0].astype(np.int64) for name in ("case_id", "condition"))
    other = case[pairs[:, 0]] != case[pairs[:, 1]]
    differ = condition[pairs[:, 0]] != condition[pairs[:, 1]]
    groups = np.unique(np.stack([join_cases(case, pairs), case]), axis=1)[0]
    print(f"{len(pairs)} pairs, {other.sum()} of two cases, {(other & differ).sum()} of them of two conditions")
    print(f"cases of the largest group: {np.bincount(groups).max()}")
    images_of = table["image_id"].to_numpy()
    for a, b in pairs[other]:
        print(f"  {images_of[a]} {images_of[b]}{' two conditions' if condition[a] != condition[b] else ''}")
    rng = random.Random(seed)
    chosen = sorted(rng.sample(range(len(paths)), min(n_sample, len(paths))))
    for name, change in CHANGES.items():
        copies = []
        for number in chosen:
            with Image.open(paths[number]) as image:
                copies.append(place / f"{number}.jpg")
                change(image.convert("RGB"), rng).convert("RGB").save(copies[-1], quality=90)
        found = look_alikes(Fingerprints.of(copies), images)
        right = sum(chosen[a] == b for a, b in found)
        wrong = sum(case[chosen[a]] != case[b] for a, b in found)
        print(f"{name:30} found {right / len(chosen):6.1%}   of another case {wrong}")


if __name__ == "__main__":
    main()
