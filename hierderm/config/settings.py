"""The one configuration of everything that trains or compares: frozen dataclasses, filled from TOML and flags.

`load_config(path, {"training.epochs": "5"})` reads a file, lays the flags over it and reports all faults at once.
The resolved configuration is written beside the results with `dump_config` and can be run again.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid")
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
NotNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Options = dict[str, Any]


def _doc(text: str) -> Any:
    return Field(description=text)


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Which pictures, under which tree."""

    cases: Annotated[str, _doc("a CSV or Parquet table of cases, or 'synthetic:demo|scin-like|toy'")] = "synthetic:demo"
    taxonomy: Annotated[str, _doc("a taxonomy file or the id of a shipped one; '' for the built-in data's own")] = ""
    image_root: Annotated[str, _doc("folder that image paths start at; '' is the table's folder")] = ""
    min_images: Annotated[Positive, _doc("drop conditions with fewer images than this")] = 1
    kinds: Annotated[
        tuple[Literal["diagnosis", "group", "finding"], ...], _doc("kinds of taxonomy names to keep as labels")
    ] = ("diagnosis", "group", "finding")
    unreadable: Annotated[Literal["error", "exclude"], _doc("what to do with pictures that can't be read")] = "error"
    unknown: Annotated[Literal["error", "exclude"], _doc("what to do with conditions the taxonomy lacks")] = "error"


@dataclass(frozen=True, config=_STRICT)
class SplitConfig:
    """How cases are divided into training, validation and test."""

    reuse: Annotated[bool, _doc("keep the table's own split column where it is complete")] = True
    test_fraction: Annotated[Fraction, _doc("share of the cases held out for the test (not used with folds)")] = 0.25
    validation_fraction: Annotated[Fraction, _doc("share of the cases for choosing the epoch")] = 0.15
    folds: Annotated[NotNegative, _doc("k of a k-fold split, 0 for hold-out")] = 0
    fold: Annotated[NotNegative, _doc("which fold is the test, from 0")] = 0
    near_duplicates: Annotated[
        int,
        Field(ge=-1, le=255),
        _doc("pictures whose hashes differ in at most this of 256 bits stay together; -1 off"),
    ] = 24
    seed: Annotated[int, _doc("seed of the division")] = 0

    def __post_init__(self) -> None:
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise ValueError(
                f"folds must be 0 or at least 2 and fold below it, got folds {self.folds}, fold {self.fold}"
            )
        if self.test_fraction + self.validation_fraction >= 1:
            raise ValueError("test_fraction and validation_fraction must leave something for training")


@dataclass(frozen=True, config=_STRICT)
class BackboneConfig:
    """The image encoder, by name."""

    name: Annotated[str, _doc("'hierderm:tiny', 'timm:<model>', 'hf:<repository or folder>'")] = "hierderm:tiny"
    weights: Annotated[str, _doc("'pretrained', 'random', or a safetensors file (timm)")] = "pretrained"
    features: Annotated[
        Literal["layers", "output"],
        _doc("what a picture's vector is: the output alone, or beside it mean and deviation of every block's tokens"),
    ] = "layers"


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """What stands on the backbone."""

    neck: Annotated[
        Literal["standardised", "linear", "residual", "identity", "discriminants"],
        _doc(
            "from the backbone's vector to the embedding; 'standardised' is linear on features of equal spread, "
            "'discriminants' is what tree_lda makes"
        ),
    ] = "standardised"
    dropout: Annotated[Fraction, _doc("share of the features the standardised neck leaves out while it learns")] = 0.5
    embedding_dim: Annotated[NotNegative, _doc("length of the embedding of the linear necks; 0 is the backbone's")] = (
        128
    )
    projection_dim: Annotated[
        NotNegative, _doc("length of the contrastive projection; 0 puts the loss on the embedding itself")
    ] = 128
    classifier: Annotated[
        Literal["cosine", "linear", "none"], _doc("the fine head; 'none' where the fine loss needs no logits")
    ] = "cosine"
    classifier_scale: Annotated[float, Field(gt=0), _doc("logit scale of the cosine classifier at the start")] = 16.0
    belief_share: Annotated[Fraction, _doc("of 'discriminants': share of the beliefs in the cosine")] = 0.0
    belief_levels: Annotated[tuple[str, ...], _doc("of 'discriminants': levels believed in; none named: all")] = ()


@dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """The two losses, the levels they act on and how they share the time."""

    contrastive: Annotated[
        str, _doc("a loss of embeddings (docs/losses.md) or of pytorch-metric-learning; '' for none")
    ] = "SupCon"
    contrastive_levels: Annotated[
        dict[str, NotNegativeFloat],
        _doc("levels of the tree whose nodes are the positives, each with the factor of its contrastive loss"),
    ] = field(default_factory=lambda: {"coarse": 1.0, "fine": 1.0})
    contrastive_options: Annotated[Options, _doc("keyword arguments of the loss, e.g. temperature")] = field(
        default_factory=dict
    )
    classification: Annotated[
        str,
        _doc("a loss of logits (docs/losses.md) or of pytorch-metric-learning (no probabilities then); '' for none"),
    ] = "CrossEntropy"
    classification_level: Annotated[str, _doc("level of the tree that is classified")] = "fine"
    classification_weight: Annotated[float, Field(ge=0), _doc("factor of the classification loss")] = 1.0
    classification_options: Annotated[Options, _doc("keyword arguments of the loss")] = field(default_factory=dict)
    schedule: Annotated[
        Literal["joint", "coarse_then_fine"], _doc("both losses from the start, or the fine one faded in")
    ] = "joint"
    coarse_fraction: Annotated[Fraction, _doc("share of the epochs before the classification loss has full weight")] = (
        0.3
    )


@dataclass(frozen=True, config=_STRICT)
class SamplerConfig:
    """How a batch is put together."""

    kind: Annotated[
        Literal["hierarchical", "class_balanced", "shuffle"],
        _doc("by the tree, all classes equally often, or at random"),
    ] = "hierarchical"
    images_per_class: Annotated[Positive, _doc("images of one coarse class that stay together in a batch")] = 4
    balance: Annotated[Fraction, _doc("hierarchical: 0 leaves classes as frequent as they are, 1 makes them equal")] = (
        0.25
    )


@dataclass(frozen=True, config=_STRICT)
class AugmentationConfig:
    """Changes that leave the diagnosis as it is. Colour is diagnostic, so it moves little."""

    crop: Annotated[Fraction, _doc("smallest share of the area kept by a random crop; 1 is off: distance varies")] = 0.6
    flip: Annotated[bool, _doc("mirror both ways: skin has no up or left")] = True
    rotation: Annotated[float, Field(ge=0, le=180), _doc("degrees; the camera is held at any angle")] = 20.0
    brightness: Annotated[Fraction, _doc("relative change: exposure varies")] = 0.2
    contrast: Annotated[Fraction, _doc("relative change: light is hard or soft")] = 0.2
    saturation: Annotated[Fraction, _doc("relative change, small: redness is a sign")] = 0.1
    hue: Annotated[float, Field(ge=0, le=0.5), _doc("turn, very small: white balance, not erythema to purpura")] = 0.02
    blur: Annotated[Fraction, _doc("chance of a slight blur: focus varies")] = 0.1


@dataclass(frozen=True, config=_STRICT)
class TrainingConfig:
    """The loop."""

    method: Annotated[
        Literal["tree_lda", "gradient"],
        _doc("in closed form by discriminants of the tree on frozen features (see tree_lda), or by the losses"),
    ] = "tree_lda"
    freeze: Annotated[
        Literal["frozen", "last_blocks", "lora", "full"],
        _doc("what of the backbone learns; frozen caches its features"),
    ] = "last_blocks"
    last_blocks: Annotated[Positive, _doc("how many blocks learn with 'last_blocks'")] = 3
    lora_rank: Annotated[Positive, _doc("rank of the adapters with 'lora'")] = 8
    epochs: Annotated[Positive, _doc("passes over the training images, at most")] = 12
    batch_size: Annotated[Positive, _doc("images a batch")] = 128
    learning_rate: Annotated[float, Field(gt=0), _doc("peak learning rate of heads and neck (AdamW)")] = 1e-3
    backbone_learning_rate: Annotated[float, Field(gt=0), _doc("peak learning rate of the backbone")] = 3e-4
    weight_decay: Annotated[float, Field(ge=0), _doc("AdamW weight decay")] = 0.05
    warmup: Annotated[Fraction, _doc("share of the steps in which the learning rate rises")] = 0.1
    monitor: Annotated[
        Literal["mean_map_at_r", "coarse_map_at_r", "fine_map_at_r"],
        _doc("validation metric that chooses epoch or setting; the mean is geometric: both levels count by what share"),
    ] = "mean_map_at_r"
    patience: Annotated[Positive, _doc("epochs without improvement before training stops")] = 8
    precision: Annotated[
        Literal["32-true", "16-mixed", "bf16-mixed", "64-true"], _doc("Lightning's name of the precision")
    ] = "32-true"
    accelerator: Annotated[str, _doc("Lightning's accelerator: auto, cpu, gpu")] = "auto"
    devices: Annotated[Positive, _doc("how many devices")] = 1
    views: Annotated[
        NotNegative,
        _doc("frozen backbone: augmented copies of each training picture to learn from, beside the picture itself"),
    ] = 6
    workers: Annotated[NotNegative, _doc("processes that load pictures")] = 0
    cache_images: Annotated[bool, _doc("keep decoded pictures in memory (small data)")] = True
    tensorboard: Annotated[bool, _doc("write TensorBoard logs (extra: hierderm[tensorboard])")] = False
    seed: Annotated[int, _doc("seed of weights, order and augmentation")] = 0


@dataclass(frozen=True, config=_STRICT)
class TreeLdaConfig:
    """What training.method = 'tree_lda' tries; the best by training.monitor on pictures not learnt from is kept."""

    features: Annotated[
        tuple[Literal["layers", "output"], ...],
        Field(min_length=1),
        _doc("of backbone.features = 'layers': all of them, or the output alone; probe and LDA try the same"),
    ] = ("layers", "output")
    shrinkages: Annotated[
        tuple[Fraction, ...], Field(min_length=1), _doc("of the covariance within conditions towards a sphere")
    ] = (0.05, 0.15, 0.4)
    decays: Annotated[
        tuple[NotNegativeFloat, ...],
        Field(min_length=1),
        _doc("weight of each level beside the one above: 1 is flat, 0 the top level alone"),
    ] = (1.0,)
    strengths: Annotated[
        tuple[NotNegativeFloat, ...], Field(min_length=1), _doc("pictures that a condition's parent counts for")
    ] = (3.0, 10.0)
    beliefs: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], ...],
        Field(min_length=1),
        _doc("share of the cosine that is left to the probabilities of nodes"),
    ] = (0.1, 0.2, 0.4, 0.8)
    belief_levels: Annotated[
        tuple[str, ...], _doc("levels whose nodes' probabilities stand in the embedding; none named: all")
    ] = ()
    folds: Annotated[
        NotNegative,
        _doc("parts of the training cases, left out in turn, that choose the setting beside validation; 0 for none"),
    ] = 5
    shuffle: Annotated[
        bool, _doc("control: conditions change places in the tree by chance; a tree that helps must beat this")
    ] = False
    components: Annotated[Positive, _doc("more features than this are first reduced to as many components")] = 2048


@dataclass(frozen=True, config=_STRICT)
class EvaluationConfig:
    """How much work goes into the figures and their intervals."""

    bootstrap_rounds: Annotated[NotNegative, _doc("resamplings of the test cases; 0 for no intervals")] = 1000
    kmeans_seeds: Annotated[Positive, _doc("k-means runs that are averaged")] = 5
    confidence: Annotated[float, Field(gt=0, lt=1), _doc("coverage of the intervals")] = 0.95
    families: Annotated[
        tuple[
            Literal["retrieval", "clustering", "classification", "trust", "soft_labels", "knn", "probe", "few_shot"],
            ...,
        ],
        _doc("which metrics; knn, probe and few_shot learn from the training embeddings and take longer"),
    ] = ("retrieval", "clustering", "classification", "trust", "soft_labels")
    groups: Annotated[bool, _doc("every figure by skin tone, body site and source, where the table has them")] = True
    permutations: Annotated[NotNegative, _doc("shufflings of a permutation test; 0 for none")] = 1000
    calibration_bins: Annotated[Positive, _doc("bins of the calibration error and the reliability diagram")] = 15
    answer_error: Annotated[float, Field(gt=0, lt=1), _doc("wanted error rate of answers")] = 0.2
    conformal_error: Annotated[float, Field(gt=0, lt=1), _doc("1 - coverage of conformal sets")] = 0.1
    agglomerative_images: Annotated[
        Positive, _doc("images of the agglomerative clustering, at most: its memory grows with their square")
    ] = 3000
    seed: Annotated[int, _doc("seed of k-means and bootstrap")] = 0


@dataclass(frozen=True, config=_STRICT)
class ProtocolConfig:
    """How often a comparison trains each model."""

    seeds: Annotated[Positive, _doc("trainings of each model, from training.seed upwards; their mean is shown")] = 1
    every_fold: Annotated[bool, _doc("train and test on each fold of split.folds instead of one split")] = False
    repeats: Annotated[
        Positive, _doc("every_fold: divisions into folds, each with its own split.seed and training.seed; their mean")
    ] = 1


@dataclass(frozen=True, config=_STRICT)
class ModelEntry:
    """One row of a comparison: a method, and the settings in which it differs from the rest."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$"), _doc("its name in tables and folders")]
    method: Annotated[Literal["train", "vanilla", "linear_probe", "lda"], _doc("how its embedding comes about")] = (
        "train"
    )
    note: Annotated[str, _doc("one line for the report")] = ""
    set: Annotated[Options, _doc("settings that differ, e.g. {'training.views': 6}")] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class Config:
    """Everything. `models` is for comparisons only; training reads the other sections."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$"), _doc("name of the run; part of folder names")] = "run"
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    backbone: BackboneConfig = BackboneConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    sampler: SamplerConfig = SamplerConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig = TrainingConfig()
    tree_lda: TreeLdaConfig = TreeLdaConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    models: tuple[ModelEntry, ...] = ()
    focus: Annotated[str, _doc("model of a comparison that is set against all others; '' is the last")] = ""

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.models]
        if len(set(names)) < len(names):
            raise ValueError(f"the names of models must differ, got {names}")
        if self.protocol.every_fold and not self.split.folds:
            raise ValueError("protocol.every_fold needs split.folds of at least 2, e.g. 5")
        if self.protocol.repeats > 1 and not self.protocol.every_fold:
            raise ValueError("protocol.repeats divides the cases anew for every fold: set protocol.every_fold = true")
        if self.focus and self.models and self.focus not in names:
            raise ValueError(f"focus must be one of the models {names}, got '{self.focus}'")
