"""The built-in data: a procedural set of skin-like photographs with a taxonomy, a long tail and captions.

16 categories differ by primary lesion and configuration; the conditions of a category by finer parameters (size,
colour, border, texture, number). Skin tone, body site, hair, light, distance, blur and a share of wrong labels do not
follow the labels. Nothing is tuned for a method: the same images serve every model. The names are no diseases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.optimize import brentq

from hierderm import columns as c
from hierderm.artifacts import holds, read_header, write_folder
from hierderm.data.synthetic.painter import SITES, Lesions, Patient, draw_image
from hierderm.errors import ConfigError
from hierderm.progress import track
from hierderm.taxonomy.file import write_taxonomy
from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths
from hierderm.types import FloatArray, IntArray

KIND = "synthetic data"  # of a folder
LARGEST_SHARE = 1 / 6  # of the cases, as eczema in SCIN (488 of 3,061)


@dataclass(frozen=True)
class _Look:
    """How a category looks: ranges (low, high) that its conditions divide among themselves."""

    primary: str
    configuration: str
    tints: tuple[str, ...]
    radius: tuple[float, float]
    count: tuple[int, int]
    edge: tuple[float, float] = (0.1, 0.7)
    scaling: tuple[float, float] = (0.0, 0.2)
    clearing: tuple[float, float] = (0.0, 0.0)


CATEGORIES: dict[str, _Look] = {
    "confluent patch": _Look("plaque", "confluent", ("red", "pink"), (0.25, 0.5), (3, 7), (0.5, 1.0), (0.0, 0.6)),
    "scattered wheal": _Look("wheal", "scattered", ("pink", "red"), (0.12, 0.35), (3, 9), (0.2, 0.8)),
    "follicular pustule": _Look("pustule", "scattered", ("red", "pink"), (0.04, 0.09), (8, 26)),
    "grouped papule": _Look("papule", "grouped", ("red", "pink", "violet"), (0.05, 0.13), (5, 14)),
    "grouped vesicle": _Look("vesicle", "grouped", ("red", "pink"), (0.05, 0.12), (5, 14)),
    "scaly plaque": _Look("plaque", "solitary", ("red", "violet"), (0.3, 0.6), (1, 3), (0.0, 0.4), (0.5, 1.0)),
    "annular plaque": _Look(
        "plaque", "solitary", ("red", "pink", "brown"), (0.3, 0.65), (1, 3), (0.0, 0.5), (0.1, 0.7), (0.6, 1.0)
    ),
    "purpuric spot": _Look("purpura", "scattered", ("purple",), (0.04, 0.14), (8, 30), (0.1, 0.9)),
    "scattered papule": _Look("papule", "scattered", ("violet", "pink", "brown"), (0.05, 0.11), (8, 24)),
    "crusted erosion": _Look("crust", "scattered", ("yellow", "brown"), (0.12, 0.3), (1, 5), (0.1, 0.6), (0.0, 0.5)),
    "linear papule": _Look("papule", "linear", ("pink", "red", "brown"), (0.05, 0.11), (6, 12)),
    "solitary nodule": _Look("nodule", "solitary", ("pink", "brown", "violet"), (0.18, 0.45), (1, 1)),
    "pigmented macule": _Look("macule", "solitary", ("brown",), (0.15, 0.5), (1, 4), (0.0, 0.9)),
    "linear vesicle": _Look("vesicle", "linear", ("red", "pink"), (0.05, 0.11), (6, 13)),
    "pale macule": _Look("macule", "scattered", ("pale",), (0.12, 0.4), (2, 7), (0.0, 0.8)),
    "annular papule": _Look("papule", "annular", ("pink", "violet"), (0.05, 0.1), (10, 18)),
}


@dataclass(frozen=True)
class Recipe:
    """What to generate: `n_cases` of 1 to 3 images, `size` pixels a side, `label_noise` share of wrong labels."""

    n_cases: int
    n_conditions: int
    n_categories: int = 16
    size: int = 96
    label_noise: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n_categories <= len(CATEGORIES):
            raise ConfigError(f"n_categories must lie between 1 and {len(CATEGORIES)}, got {self.n_categories}.")
        if not self.n_categories <= self.n_conditions <= self.n_cases:
            raise ConfigError(
                "n_categories <= n_conditions <= n_cases must hold, "
                f"got {self.n_categories}, {self.n_conditions}, {self.n_cases}."
            )


PRESETS = {
    "toy": Recipe(n_cases=48, n_conditions=9, n_categories=3, size=32),
    "demo": Recipe(n_cases=640, n_conditions=64),
    "scin-like": Recipe(n_cases=3061, n_conditions=211),
}


@dataclass(frozen=True)
class Condition:
    """One condition: its place in the tree and five parameters in [0, 1] that set it apart from its siblings."""

    name: str
    category: str
    size: float
    colour: float
    border: float
    texture: float
    number: float


@dataclass(frozen=True)
class SyntheticImage:
    """One generated image with all that is known of it; `shown` is the condition drawn, before label noise."""

    case: int
    view: int
    condition: str
    shown: str
    patient: Patient
    caption: str
    pixels: npt.NDArray[np.uint8]


def long_tail(n_cases: int, n_conditions: int, largest: float = LARGEST_SHARE) -> IntArray:
    """Cases of each condition, largest first, in the proportions of SCIN: Zipf-Mandelbrot, 1 / (rank + b).

    `b` makes the first share `largest` (where the conditions are few) and is 0 for 211 conditions. Each gets one
    case or more; the sum is `n_cases`.
    """
    rank = np.arange(1, n_conditions + 1)

    def shares(b: float) -> FloatArray:
        weights = 1 / (rank + b)
        return np.asarray(weights / weights.sum())

    few = n_conditions * largest <= 1  # the first can't have a smaller share than the mean
    b = 1e6 if few else 0.0 if shares(0)[0] <= largest else brentq(lambda b: shares(b)[0] - largest, 0, 1e6)
    counts = 1 + np.floor(shares(b) * (n_cases - n_conditions)).astype(np.int64)
    counts[: n_cases - counts.sum()] += 1
    return counts


def make_conditions(recipe: Recipe) -> list[Condition]:
    """The conditions, most frequent first: every category has one among the first, the rest fall at random."""
    rng = np.random.default_rng([recipe.seed, 1])
    categories = list(CATEGORIES)[: recipe.n_categories]
    extra = rng.integers(0, len(categories), recipe.n_conditions - len(categories))
    place = [*categories, *(categories[i] for i in extra)]
    parameters = np.zeros((recipe.n_conditions, 5))
    names = [""] * recipe.n_conditions
    for category in categories:
        members = [i for i, name in enumerate(place) if name == category]
        # A Latin hypercube: along each parameter the siblings stand at equal distances, in independent orders.
        for column in range(5):
            parameters[members, column] = (rng.permutation(len(members)) + 0.5) / len(members)
        for number, i in enumerate(members, start=1):
            names[i] = f"{category} type {number}"
    return [
        Condition(name, category, *map(float, row))
        for name, category, row in zip(names, place, parameters, strict=True)
    ]


def make_taxonomy(recipe: Recipe) -> Taxonomy:
    """The tree category -> condition of a recipe."""
    paths = sorted((condition.category, condition.name) for condition in make_conditions(recipe))
    return taxonomy_from_paths(paths, ("category", "condition"), id="synthetic", version=f"seed {recipe.seed}")


def generate(recipe: Recipe) -> Iterator[SyntheticImage]:
    """The images of a recipe, one after another; each depends only on the recipe, its case and its view."""
    conditions = make_conditions(recipe)
    order = np.repeat(np.arange(recipe.n_conditions), long_tail(recipe.n_cases, recipe.n_conditions))
    for case, number in track(enumerate(order), "Drawing", len(order), unit="cases"):
        rng = np.random.default_rng([recipe.seed, 2, case])
        shown = conditions[number]
        label = conditions[rng.integers(len(conditions))] if rng.random() < recipe.label_noise else shown
        patient = Patient(int(rng.integers(1, 11)), str(rng.choice(SITES)), float(rng.beta(1, 3)))
        lesions = _lesions(shown, rng)
        for view in range(int(rng.choice([1, 2, 3], p=[0.39, 0.16, 0.45]))):  # SCIN: 1,948, 796 and 2,289 cases
            rng = np.random.default_rng([recipe.seed, 3, case, view])
            near = replace(lesions, radius=lesions.radius * rng.uniform(0.75, 1.3))
            pixels = draw_image(near, patient, recipe.size, rng)
            yield SyntheticImage(case, view, label.name, shown.name, patient, _caption(near, patient, rng), pixels)


def _lesions(condition: Condition, rng: np.random.Generator) -> Lesions:
    look = CATEGORIES[condition.category]

    def at(where: float, low: float, high: float) -> float:
        return low + (high - low) * float(np.clip(where + rng.normal(0, 0.09), 0, 1))

    tint = look.tints[min(int(condition.colour * len(look.tints)), len(look.tints) - 1)]
    return Lesions(
        primary=look.primary,
        configuration=look.configuration,
        tint=tint,
        strength=at((condition.colour * len(look.tints)) % 1.0, 0.35, 0.9),
        radius=at(condition.size, *look.radius),
        count=round(at(condition.number, *look.count)),
        edge=at(condition.border, *look.edge),
        scaling=at(condition.texture, *look.scaling),
        clearing=at(1 - condition.texture, *look.clearing),
        irregularity=at(condition.number, 0.1, 0.9),
    )


def _caption(lesions: Lesions, patient: Patient, rng: np.random.Generator) -> str:
    """What a person might write under the image: some of what is visible, never a label."""

    def maybe(word: str, chance: float = 0.7) -> list[str]:
        return [word] if word and rng.random() < chance else []

    size = "tiny" if lesions.radius < 0.07 else "small" if lesions.radius < 0.15 else "large"
    border = "sharp" if lesions.edge < 0.25 else "blurred" if lesions.edge > 0.6 else ""
    scale = "scaly" if lesions.scaling > 0.35 else "smooth"
    centre = "clearing" if lesions.clearing > 0.5 else ""
    number = "one" if lesions.count == 1 else "few" if lesions.count < 6 else "many"
    tone = ("light", "medium", "dark")[(patient.monk > 3) + (patient.monk > 6)]
    words = [*maybe(number), *maybe(size), *maybe(border, 0.5), *maybe(scale, 0.5), *maybe(lesions.tint, 0.85)]
    words += [lesions.primary, *maybe(centre), *maybe(lesions.configuration, 0.85)]
    if rng.random() < 0.6:
        words += ["on", *maybe(tone), patient.body_site]
    return " ".join(words)


def write_synthetic(recipe: Recipe, folder: Path | str, *, replace: bool = False) -> Path:
    """Write `images/*.jpg`, `taxonomy.csv` and `cases.csv` to `folder`, whole or not at all; returns `cases.csv`.

    Done before with the same recipe, nothing is written. OutputError where `folder` holds anything else than, with
    `replace`, synthetic data.
    """
    content, folder = asdict(recipe), Path(folder)
    if not (holds(folder, KIND) and read_header(folder, KIND).content == content):
        write_folder(folder, KIND, content, lambda place: _write(recipe, place), replace=replace)
    return folder / "cases.csv"


def _write(recipe: Recipe, folder: Path) -> None:
    (folder / "images").mkdir()
    rows = []
    for made in generate(recipe):
        image_id = f"s{made.case:05d}-{made.view}"
        Image.fromarray(made.pixels).save(folder / "images" / f"{image_id}.jpg", "JPEG", quality=88)
        rows.append(
            {
                c.IMAGE_PATH: f"images/{image_id}.jpg",
                c.IMAGE_ID: image_id,
                c.CASE_ID: f"s{made.case:05d}",
                c.CONDITION: made.condition,
                c.MONK: made.patient.monk,
                c.BODY_SITE: made.patient.body_site,
                c.SOURCE: "synthetic",
                c.CAPTION: made.caption,
            }
        )
    write_taxonomy(make_taxonomy(recipe), folder / "taxonomy.csv")
    pd.DataFrame(rows).to_csv(folder / "cases.csv", index=False)
