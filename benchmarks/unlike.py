"""Does an index refuse what it has seen nothing like? Noise, colours, pages, screens, drawings and other photographs.

Goals: how many such queries are answered, without the test of likeness and with it, and the share of true test images
that is refused, as they are and as other cameras might have made them. Non-goals: photographs of conditions that the
index lacks, which are for the votes to tell.

    hierderm train -o runs/first
    hierderm index build runs/first/cases.csv --model runs/first/model -t runs/first/taxonomy.csv \\
        --splits train,validation --accuracy 0.65 -o index
    python benchmarks/unlike.py index --cases runs/first/cases.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont
from sklearn.datasets import load_sample_image

if TYPE_CHECKING:
    from hierderm.search.answer import Answer
    from hierderm.search.finder import CaseFinder

SKIN = ((255, 219, 190), (241, 194, 167), (224, 172, 140), (198, 134, 105), (141, 85, 58), (90, 56, 37))
WORDS = ("patient", "was", "seen", "in", "clinic", "history", "results", "invoice", "total", "page", "settings", "file")
Rng = np.random.Generator


def noise(rng: Rng) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (*rng.integers(64, 512, 2), 3), dtype=np.uint8))


def gaussian_noise(rng: Rng) -> Image.Image:
    pixels = rng.normal(rng.uniform(60, 200, 3), rng.uniform(10, 60), (256, 256, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def smooth_noise(rng: Rng) -> Image.Image:
    cells = int(rng.integers(4, 40))
    return Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize((256, 256), 3)


def skin_noise(rng: Rng) -> Image.Image:
    pixels = np.array(SKIN[rng.integers(6)]) + rng.normal(0, 12, (200, 200, 1))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 6))))


def colour(rng: Rng) -> Image.Image:
    return Image.new("RGB", (200, 200), tuple(rng.integers(0, 256, 3).tolist()))


def skin_colour(rng: Rng) -> Image.Image:
    return Image.new("RGB", (1, 1) if rng.random() < 0.5 else (200, 200), SKIN[rng.integers(6)])


def gradient(rng: Rng) -> Image.Image:
    first, last = rng.integers(0, 256, (2, 3))
    row = first + np.linspace(0, 1, 224)[:, None] * (last - first)
    return Image.fromarray(row[None].repeat(224, axis=0).astype(np.uint8)).rotate(90 * int(rng.integers(4)))


def page(rng: Rng) -> Image.Image:
    ink, paper = ("black", "white") if rng.random() < 0.7 else ("#ddd", "#1e1e22")
    image = Image.new("RGB", (420, 594), paper)
    lines = "\n".join(" ".join(rng.choice(WORDS, rng.integers(2, 8))) for _ in range(rng.integers(10, 36)))
    ImageDraw.Draw(image).text((24, 24), lines, fill=ink, font=ImageFont.load_default(int(rng.integers(10, 20))))
    return image


def screen(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (800, 500), "#f0f2f5")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    draw.rectangle((0, 0, 800, 44), fill=tuple(rng.integers(30, 200, 3).tolist()))
    for x, y in [(20 + 200 * column, 64 + 140 * row) for column in range(4) for row in range(3)]:
        draw.rounded_rectangle((x, y, x + 175, y + 125), 8, fill="white", outline="#d2d2d2")
        draw.text((x + 10, y + 10), " ".join(rng.choice(WORDS, 3)), font=font, fill="#222")
        for bar, height in enumerate(rng.integers(8, 70, 5).tolist()):
            left = x + 15 + 30 * bar
            draw.rectangle((left, y + 110 - height, left + 20, y + 110), fill=tuple(rng.integers(40, 230, 3).tolist()))
    return image


def drawing(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (300, 300), tuple(rng.integers(200, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(4, 14)):
        (x, y), (width, height) = rng.integers(0, 240, 2).tolist(), rng.integers(20, 140, 2).tolist()
        shape = (draw.ellipse, draw.rectangle)[rng.integers(2)]
        shape((x, y, x + width, y + height), fill=tuple(rng.integers(0, 256, 3).tolist()), outline="black")
        draw.line([tuple(point) for point in rng.integers(0, 300, (4, 2)).tolist()], fill="black", width=2)
    return image


def photograph(rng: Rng) -> Image.Image:
    """One of those that come with scikit-learn and matplotlib, whole or in part."""
    name = str(rng.choice(["china.jpg", "flower.jpg", "grace_hopper.jpg"]))
    if name == "grace_hopper.jpg":
        image = Image.open(get_sample_data(name, asfileobj=False)).convert("RGB")
    else:
        image = Image.fromarray(load_sample_image(name))
    side = int(rng.uniform(0.4, 1) * min(image.size))
    x, y = (int(rng.integers(0, length - side + 1)) for length in image.size)
    return image.crop((x, y, x + side, y + side))


KINDS: dict[str, Callable[[Rng], Image.Image]] = {
    "noise": noise, "Gaussian noise": gaussian_noise, "smooth noise": smooth_noise, "noise in skin colours": skin_noise,
    "one colour": colour, "one colour of skin, 1 x 1 too": skin_colour, "gradients": gradient, "pages of text": page,
    "screens": screen, "drawings": drawing, "other photographs": photograph,
}  # fmt: skip


def jpeg(image: Image.Image) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=30)
    return Image.open(stream)


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((max(1, round(factor * image.width)), max(1, round(factor * image.height))), 3)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "half the size": lambda image: scaled(image, 0.5),
    "three times the size": lambda image: scaled(image, 3),
    "JPEG of quality 30": jpeg,
    "20 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "20 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
}


def answer_of(finder: CaseFinder, image: Image.Image) -> Answer:
    found = finder.search(image).answer
    assert found is not None  # as to every image
    return found


def main() -> None:
    from hierderm import columns as c
    from hierderm.data.checks import read_cases
    from hierderm.data.image_io import open_image
    from hierderm.search.building import embed_queries
    from hierderm.search.case_index import CaseIndex
    from hierderm.search.evaluation import evaluate_index
    from hierderm.search.finder import CaseFinder
    from hierderm.search.likeness import Likeness

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--cases", type=Path, required=True, help="the table with the test cases")
    parser.add_argument("--each", type=int, default=20, help="queries of each kind")
    given = parser.parse_args()
    index = CaseIndex.open(given.index)
    learnt = index.calibration
    assert learnt is not None and learnt.likeness is not None, "the index must have validation cases"
    whole = CaseFinder(index)

    def finder(likeness: Likeness | None) -> CaseFinder:
        return CaseFinder(replace(index, calibration=replace(learnt, likeness=likeness)), whole.encoder)

    free, embedding = finder(None), finder(replace(learnt.likeness, look=()))
    print("| query | queries | answered without the test | answered | refused | by embeddings alone |")
    print("|---|---|---|---|---|---|")
    for kind, make in KINDS.items():
        images = [make(np.random.default_rng(seed)) for seed in range(given.each)]
        old, new, by_one = ([answer_of(one, image) for image in images] for one in (free, whole, embedding))
        counts = [len(images), *(sum(a.level is not None for a in found) for found in (old, new))]
        counts += [sum(a.unlike for a in found) for found in (new, by_one)]
        print(f"| {kind} | " + " | ".join(map(str, counts)) + " |")
    test = read_cases(given.cases, index.taxonomy, decode=False).part(c.TEST)
    found = evaluate_index(index, embed_queries(index, test))
    shares = {name: found["tree", f"index_answer_{name}"].value for name in ("refused", "rate", "error")}
    print(f"\n{found.n_cases} test cases: " + ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
    print(learnt.likeness.describe())
    some = test.paths[:: max(1, len(test) // 200)]
    for name, change in CHANGES.items():
        refused = [answer_of(whole, change(open_image(path))).unlike for path in some]
        print(f"{name}: {np.mean(refused):.3f} of {len(some)} test images refused")


if __name__ == "__main__":
    main()
