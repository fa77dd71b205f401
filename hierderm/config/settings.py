"""The settings of everything that trains or compares: frozen dataclasses, filled from TOML and flags.

`hierderm.config.loading` reads them; the settings of each training method are in `hierderm.config.methods`.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal
from unicodedata import normalize

from pydantic import Field
from pydantic.dataclasses import dataclass

from hierderm.config.conditions import OnlyIf, doc
from hierderm.config.methods import (
    STRICT,
    Fraction,
    Method,
    NotNegative,
    Options,
    Positive,
    Seed,
    TreeLda,
)

ForwardEngine = Literal["auto", "torch", "onnx"]
TaskName = Literal[
    "retrieval", "hierarchy", "clustering", "classification", "calibration", "soft_labels", "knn", "linear_probe",
    "few_shot", "groups", "retrieval_index",
]  # fmt: skip
WITH_FOLDS = OnlyIf(lambda split: split.folds > 0, "{}folds is above 0")
HOLD_OUT = OnlyIf(lambda split: split.folds == 0, "{}folds is 0")
WITH_REPEATS = OnlyIf(lambda protocol: protocol.repeats > 1, "{}repeats is above 1")
WITH_GROUPS = OnlyIf(lambda evaluation: evaluation.groups, "{}groups is true")
NAME = Field(max_length=100, pattern=r"^\w[\w.-]*$")  # of letters, digits, '.', '_', '-'; so never '..'


def for_task(name: TaskName) -> OnlyIf:
    """Read only by one of the tasks."""
    return OnlyIf(lambda evaluation: name in evaluation.tasks, f"{{}}tasks has '{name}'")


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Which images, under which tree."""

    cases: Annotated[
        str, doc("a CSV or Parquet table, LOADER:FOLDER of published data, or 'synthetic:demo|scin-like|toy'")
    ] = "synthetic:demo"
    taxonomy: Annotated[
        str, doc("a taxonomy file or the id of a shipped one; '' for the built-in data's or the loader's own")
    ] = ""
    image_root: Annotated[str, doc("folder that image paths start at; '' is the table's or published folder")] = ""
    min_images: Annotated[Positive, doc("drop conditions with fewer images than this")] = 1
    kinds: Annotated[
        tuple[Literal["diagnosis", "group", "finding"], ...], doc("kinds of taxonomy names to keep as labels")
    ] = ("diagnosis", "group", "finding")
    unreadable: Annotated[Literal["error", "exclude"], doc("what to do with images that can't be read")] = "error"
    unknown: Annotated[Literal["error", "exclude"], doc("what to do with conditions the taxonomy lacks")] = "error"


@dataclass(frozen=True, config=STRICT)
class SplitConfig:
    """How cases are divided into training, validation and test."""

    reuse: Annotated[bool, doc("keep the table's own split column where it is complete")] = True
    test_fraction: Annotated[Fraction, doc("share of the cases held out for the test"), HOLD_OUT] = 0.25
    validation_fraction: Annotated[Fraction, doc("share of the cases for choosing the epoch")] = 0.15
    folds: Annotated[NotNegative, doc("k of a k-fold split, 0 for hold-out")] = 0
    fold: Annotated[NotNegative, doc("which fold is the test, from 0"), WITH_FOLDS] = 0
    near_duplicates: Annotated[
        bool, doc("keep cases together that have the same photograph, also turned, mirrored, cropped or bordered")
    ] = True
    seed: Annotated[Seed, doc("seed of the division")] = 0

    def __post_init__(self) -> None:
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise ValueError(
                f"folds must be 0 or at least 2 and fold below it, got folds {self.folds}, fold {self.fold}"
            )
        if self.test_fraction + self.validation_fraction >= 1:
            raise ValueError("test_fraction and validation_fraction must leave something for training")


@dataclass(frozen=True, config=STRICT)
class BackboneConfig:
    """The image encoder, by name."""

    name: Annotated[str, doc("hierderm:tiny, hierderm:lite0, timm:<model>, hf:<repository or folder>")] = (
        "hierderm:tiny"
    )
    weights: Annotated[str, doc("'pretrained', 'random', or a safetensors file (timm)")] = "pretrained"
    engine: Annotated[
        ForwardEngine, doc("what computes frozen vectors on a CPU; auto: the faster (docs/embedding.md)")
    ] = "auto"
    precision: Annotated[
        Literal["32", "bf16"], doc("of the forward pass; bf16: faster and less exact, where the processor has it")
    ] = "32"

    mirrors: Annotated[
        bool,
        doc("an image's features are the mean over it and its three mirror images: skin has no up or left; 4 passes"),
    ] = False
    views: Annotated[
        NotNegative,
        doc("so many changed copies (crop, angle, light) of every image are in that mean, too; a pass each"),
    ] = 0

    @classmethod
    def parse(cls, text: str) -> BackboneConfig:
        """The backbone of one text: its name, or '<name>@random' or '<name>@<file>.safetensors'."""
        name, _, weights = text.rpartition("@")
        given = bool(name) and (weights == "random" or weights.endswith(".safetensors"))
        return cls(name, weights) if given else cls(text)

    def __str__(self) -> str:
        """The text that `parse` reads, its file as an absolute path."""
        if self.weights == "pretrained":
            return self.name
        return f"{self.name}@{self.weights if self.weights == 'random' else Path(self.weights).absolute()}"


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """How much work goes into the metrics and their intervals."""

    bootstrap_rounds: Annotated[NotNegative, doc("resamplings of the test cases; 0 for no intervals")] = 1000
    kmeans_seeds: Annotated[Positive, doc("k-means runs that are averaged"), for_task("clustering")] = 5
    confidence: Annotated[float, Field(gt=0, lt=1), doc("coverage of the intervals")] = 0.95
    tasks: Annotated[
        tuple[TaskName, ...],
        Field(min_length=1),
        doc("what is computed; knn, linear_probe and few_shot learn from the training embeddings and take longer"),
    ] = ("retrieval", "hierarchy", "clustering", "classification", "calibration", "soft_labels")
    index_kind: Annotated[
        Literal["auto", "flat", "hnsw", "ivf", "ivfpq"],
        doc("kind of the index; 'auto' is exact up to 50,000 images and ivf above"),
        for_task("retrieval_index"),
    ] = "auto"
    groups: Annotated[bool, doc("every metric by skin tone, body site and source, where the table has them")] = True
    permutations: Annotated[NotNegative, doc("shufflings of a permutation test of a gap; 0 for none"), WITH_GROUPS] = (
        1000
    )
    calibration_bins: Annotated[
        Positive, doc("bins of the calibration error and the reliability diagram"), for_task("calibration")
    ] = 15
    answer_error: Annotated[float, Field(gt=0, lt=1), doc("wanted error rate of answers"), for_task("calibration")] = (
        0.2
    )
    conformal_error: Annotated[
        float, Field(gt=0, lt=1), doc("1 - coverage of conformal sets"), for_task("calibration")
    ] = 0.1
    agglomerative_images: Annotated[
        Positive,
        doc("images of the agglomerative clustering, at most: its memory grows with their square"),
        for_task("clustering"),
    ] = 3000
    seed: Annotated[Seed, doc("seed of k-means and bootstrap")] = 0


@dataclass(frozen=True, config=STRICT)
class ProtocolConfig:
    """How often a comparison trains each model."""

    seeds: Annotated[
        Positive,
        doc("trainings of each model that reads a seed, from training.seed upwards; their mean is reported"),
    ] = 1
    every_fold: Annotated[bool, doc("train and test on each fold of split.folds instead of one split")] = False
    repeats: Annotated[
        Positive,
        doc("every_fold: divisions into folds, each with its own split.seed and training.seed; their mean is reported"),
    ] = 1
    new_seeds: Annotated[
        bool,
        doc("repeats have their own training.seed; false: the same, so augmented views are embedded once for all"),
        WITH_REPEATS,
    ] = True


@dataclass(frozen=True, config=STRICT)
class Config:
    """One model: its data, its backbone, the method that makes it (`training`), and how it is evaluated."""

    name: Annotated[str, NAME, doc("name of the run; part of folder names")] = "run"
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    backbone: BackboneConfig = BackboneConfig()
    training: Method = TreeLda()
    evaluation: EvaluationConfig = EvaluationConfig()


@dataclass(frozen=True, config=STRICT)
class ModelEntry:
    """One model of a comparison: its method, and the settings in which it differs from the rest."""

    name: Annotated[str, NAME, doc("its name in tables and folders")]
    method: Annotated[str, doc("vanilla, linear_probe, lda, tree_lda or gradient; '' is that of [training]")] = ""
    note: Annotated[str, doc("one line for the report")] = ""
    set: Annotated[Options, doc("settings that differ, e.g. {'training.views': 6}")] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Comparison:
    """Several models on the same data. `training` holds what they share: each model takes what its method reads."""

    name: Annotated[str, NAME, doc("name of the comparison; part of folder names")] = "comparison"
    focus: Annotated[str, doc("the model that is compared with all others; '' is the last")] = ""
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    backbone: BackboneConfig = BackboneConfig()
    training: Options = field(default_factory=dict)
    evaluation: EvaluationConfig = EvaluationConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    models: tuple[ModelEntry, ...] = ()

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.models]
        if len({normalize("NFC", name.casefold()) for name in names}) < len(names):
            raise ValueError(f"the names of models must differ by more than case and encoding, got {names}")
        if self.protocol.every_fold and not self.split.folds:
            raise ValueError("protocol.every_fold needs split.folds of at least 2, e.g. 5")
        if self.protocol.every_fold and self.split.fold:
            raise ValueError(f"protocol.every_fold tests on every fold: leave split.fold out, got {self.split.fold}")
        if self.protocol.repeats > 1 and not self.protocol.every_fold:
            raise ValueError("protocol.repeats divides the cases anew for every fold: set protocol.every_fold = true")
        if self.focus and self.models and self.focus not in names:
            raise ValueError(f"focus must be one of the models {names}, got '{self.focus}'")
