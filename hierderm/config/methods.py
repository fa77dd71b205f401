"""The settings of each method that makes a model; `training.method` chooses between them.

A setting belongs to the method that reads it; one that the chosen method does not read stops the run.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from hierderm.config.conditions import OnlyIf, both, doc, only_if

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
NotNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Options = Annotated[dict[str, Any], AfterValidator(lambda value: _finite(value))]
Value = TypeVar("Value")
Several = Annotated[tuple[Value, ...], Field(min_length=1)]  # values that are all tried
LossKind = Literal["levels", "tree", "logits"]
# What a loss is called with. "levels": embeddings and the labels of one level, once for each level wanted; "tree":
# embeddings and fine labels, once, as it knows the levels; "logits": logits and the labels of the classified level.
LOSS_KINDS: dict[str, LossKind] = {
    "SupCon": "levels", "TreeSupCon": "tree", "HiMulConE": "tree", "SmoothHAP": "tree",
    "CrossEntropy": "logits", "LogitAdjusted": "logits", "HXE": "logits", "SoftLabels": "logits",
    "TreeMargin": "logits",
}  # fmt: skip
Monitor = Literal["mean_retrieval", "mean_map_at_r", "coarse_map_at_r", "fine_map_at_r"]


def _finite(value: Any) -> Any:
    """Options as they are; ValueError where one of them, at any depth, is no finite number."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for one in inner:
        _finite(one)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"numbers must be finite, one is {value}")
    return value


def loss_kind(name: str) -> LossKind:
    """What the loss `name` is called with; those of pytorch-metric-learning are of the kind 'levels'."""
    return LOSS_KINDS.get(name, "levels")


Share = Annotated[float, Field(ge=0, lt=1)]
ProbabilityLevels = Annotated[
    dict[str, Annotated[float, Field(gt=0)]],
    doc("levels whose node probabilities enter the embedding, with their weights; empty: all that are classified"),
]
Components = Annotated[Positive, doc("more features than this are first reduced to as many principal components")]
WITH_VIEWS = OnlyIf(lambda method: method.views > 0, "{}views is above 0")
WITH_CONTRAST = OnlyIf(lambda loss: loss.contrastive != "", "{}contrastive names a loss")
WITH_LEVELS = OnlyIf(
    lambda loss: loss.contrastive != "" and loss_kind(loss.contrastive) == "levels",
    "{}contrastive names a loss of the labels of one level",
)
WITH_CLASSES = OnlyIf(lambda loss: loss.classification != "", "{}classification names a loss")
WITH_BOTH = OnlyIf(
    lambda loss: "" not in (loss.contrastive, loss.classification), "{}contrastive and {}classification name losses"
)
WITH_PROJECTION = OnlyIf(lambda method: method.loss.contrastive != "", "{}loss.contrastive names a loss")
WITH_LOGITS = OnlyIf(
    lambda method: loss_kind(method.loss.classification) == "logits", "{}loss.classification names one on logits"
)
DRAWN = only_if("init", "random")
WITH_CLASSIFIER = both(DRAWN, WITH_LOGITS)
WITH_COSINE = both(WITH_CLASSIFIER, only_if("classifier", "cosine"))
WITH_SHARE = both(
    WITH_CLASSIFIER, OnlyIf(lambda method: method.probability_share > 0, "{}probability_share is above 0")
)
IN_BATCHES = OnlyIf(lambda method: method.batch_size > 0, "{}batch_size is above 0")
COPIED = OnlyIf(
    lambda method: (
        method.freeze == "frozen"
        or method.init == "tree_lda"
        or (method.freeze == "last_blocks" and method.cache_activations)
    ),
    "{}freeze is frozen, {}init is tree_lda or {}cache_activations is true",
)
FINE_TUNED = only_if("freeze", "last_blocks", "lora", "full")
FROM_IMAGES = OnlyIf(
    lambda method: method.freeze != "frozen" and not (method.freeze == "last_blocks" and method.cache_activations),
    "{}freeze is not frozen and {}cache_activations is false",
)
AUGMENTED = OnlyIf(
    lambda method: method.views > 0 or FROM_IMAGES.holds(method), f"{{}}views is above 0, or {FROM_IMAGES.text}"
)
WITH_SHARES = OnlyIf(lambda method: any(method.probability_shares), "one of {}probability_shares is above 0")
DRAWS = OnlyIf(lambda method: method.views > 0 or method.shuffle, "{}views is above 0 or {}shuffle is true")


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """Changes that leave the diagnosis as it is. Colour is diagnostic, so it moves little."""

    crop: Annotated[Fraction, doc("smallest share of the area kept by a random crop; 1 is off: distance varies")] = 0.6
    flip: Annotated[bool, doc("mirror both ways: skin has no up or left")] = True
    rotation: Annotated[float, Field(ge=0, le=180), doc("degrees; the camera is held at any angle")] = 20.0
    brightness: Annotated[Fraction, doc("relative change: exposure varies")] = 0.2
    contrast: Annotated[Fraction, doc("relative change: light is hard or soft")] = 0.2
    saturation: Annotated[Fraction, doc("relative change, small: redness is a sign")] = 0.1
    hue: Annotated[float, Field(ge=0, le=0.5), doc("turn, very small: white balance, not erythema to purpura")] = 0.02
    blur: Annotated[Fraction, doc("chance of a slight blur: focus varies")] = 0.1


@dataclass(frozen=True, config=STRICT)
class Loss:
    """The two losses, the levels they act on and how they share the time."""

    contrastive: Annotated[
        str, doc("a loss of embeddings (docs/losses.md) or of pytorch-metric-learning; '' for none")
    ] = "SupCon"
    contrastive_levels: Annotated[
        dict[str, NotNegativeFloat],
        doc("levels of the tree whose nodes are the positives, each with the factor of its contrastive loss"),
        WITH_LEVELS,
    ] = field(default_factory=lambda: {"coarse": 1.0, "fine": 1.0})
    contrastive_options: Annotated[Options, doc("keyword arguments of the loss, e.g. temperature"), WITH_CONTRAST] = (
        field(default_factory=dict)
    )
    gather: Annotated[
        bool,
        doc("with several processes, contrast the images of all; false: each process its own part of the batch"),
        WITH_CONTRAST,
    ] = True
    classification: Annotated[
        str,
        doc("a loss of logits (docs/losses.md) or of pytorch-metric-learning (no probabilities then); '' for none"),
    ] = "CrossEntropy"
    classification_level: Annotated[str, doc("level of the tree that is classified")] = "fine"
    classification_weight: Annotated[NotNegativeFloat, doc("factor of the classification loss"), WITH_CLASSES] = 1.0
    classification_options: Annotated[Options, doc("keyword arguments of the loss"), WITH_CLASSES] = field(
        default_factory=dict
    )
    schedule: Annotated[
        Literal["joint", "coarse_then_fine"],
        doc("both losses from the start, or the classification loss faded in"),
        WITH_BOTH,
    ] = "joint"
    coarse_fraction: Annotated[
        Fraction,
        doc("share of the epochs before the classification loss has full weight"),
        only_if("schedule", "coarse_then_fine"),
    ] = 0.3


@dataclass(frozen=True, config=STRICT)
class BatchSampling:
    """How a batch is put together."""

    kind: Annotated[
        Literal["hierarchical", "class_balanced", "shuffle"],
        doc("by the tree, all classes equally often, or at random"),
    ] = "hierarchical"
    images_per_class: Annotated[
        Positive,
        doc("images of one coarse class that stay together in a batch"),
        only_if("kind", "hierarchical", "class_balanced"),
    ] = 4
    balance: Annotated[
        Fraction, doc("0 leaves classes as frequent as they are, 1 makes them equal"), only_if("kind", "hierarchical")
    ] = 0.25


@dataclass(frozen=True, config=STRICT)
class Vanilla:
    """The backbone's own output; nothing is learnt."""

    method: Literal["vanilla"] = "vanilla"


@dataclass(frozen=True, config=STRICT)
class OnFeatures:
    """What the methods on features of a frozen backbone share."""

    features: Annotated[
        tuple[Literal["layers", "output"], ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
        Field(min_length=1),
        doc("tried: the backbone's output alone, or that and mean and deviation of every block's tokens"),
    ] = ("layers", "output")
    views: Annotated[
        NotNegative, doc("augmented copies of each training image to learn from, in addition to the image itself")
    ] = 6
    augmentation: Annotated[Augmentation, WITH_VIEWS] = Augmentation()
    monitor: Annotated[
        Monitor,
        doc("validation metric that chooses the setting: see docs/training.md"),
    ] = "mean_retrieval"
    seed: Annotated[Seed, doc("seed of augmentation"), WITH_VIEWS] = 0


@dataclass(frozen=True, config=STRICT)
class LinearProbe(OnFeatures):
    """Multinomial logistic regression on the conditions; the embedding is its centred logits."""

    method: Literal["linear_probe"] = "linear_probe"
    penalties: Annotated[
        Several[Annotated[float, Field(gt=0)]],
        doc("inverse strengths of the L2 penalty that are tried, from the smallest until the score falls"),
    ] = (0.001, 0.01, 0.1, 1.0)


@dataclass(frozen=True, config=STRICT)
class Lda(OnFeatures):
    """Fisher's linear discriminants of the conditions, shrunk; the embedding is the projection."""

    method: Literal["lda"] = "lda"
    components: Components = 2048
    shrinkages: Annotated[
        Several[Fraction],
        doc("shrinkages of the covariance within conditions towards a sphere that are tried"),
    ] = (0.1, 0.3, 0.6, 0.9)


@dataclass(frozen=True, config=STRICT)
class ClosedForm:
    """What the discriminants of the tree are made by; of the values that are tried the best on held-out images stay."""

    components: Components = 2048
    shrinkages: Annotated[
        Several[Fraction],
        doc("shrinkages of the covariance within conditions towards a sphere"),
    ] = (0.05, 0.15, 0.4)
    decays: Annotated[
        Several[NotNegativeFloat],
        doc("weight of each level relative to the one above: 1 is flat, 0 the top level alone"),
    ] = (1.0,)
    strengths: Annotated[
        Several[NotNegativeFloat],
        doc("how many images the parent mean counts for when a condition's mean is shrunk towards it"),
    ] = (3.0, 10.0)
    probability_shares: Annotated[
        Several[Share],
        doc("share of the node probabilities in the cosine of two embeddings"),
    ] = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
    probability_levels: Annotated[ProbabilityLevels, WITH_SHARES] = field(
        default_factory=lambda: {"coarse": 0.7, "fine": 0.3}
    )
    probability_temperature: Annotated[
        float,
        Field(gt=0),
        doc("the node probabilities are of logits divided by this: above 1 they are less sure"),
        WITH_SHARES,
    ] = 2.0
    folds: Annotated[
        NotNegative,
        doc("parts of the training cases, left out in turn, on which settings are judged as on validation; 0 for none"),
    ] = 5
    shuffle: Annotated[
        bool, doc("control: conditions are assigned to categories at random; a tree that helps must beat this")
    ] = False


@dataclass(frozen=True, config=STRICT)
class TreeLda(ClosedForm, OnFeatures):
    """Discriminants of the tree and node probabilities, in closed form; the best on held-out images is kept."""

    method: Literal["tree_lda"] = "tree_lda"
    seed: Annotated[Seed, doc("seed of augmentation, and of the shuffled tree"), DRAWS] = 0


@dataclass(frozen=True, config=STRICT)
class Gradient:
    """Two heads on one embedding, trained by losses on the tree."""

    method: Literal["gradient"] = "gradient"
    features: Annotated[
        Literal["layers", "output"],
        doc("an image's vector: the backbone's output, or that and mean and deviation of every block's tokens"),
    ] = "layers"
    freeze: Annotated[
        Literal["frozen", "last_blocks", "lora", "full"],
        doc("what of the backbone is trained; frozen caches its features"),
    ] = "frozen"
    last_blocks: Annotated[Positive, doc("how many blocks are trained"), only_if("freeze", "last_blocks")] = 3
    cache_activations: Annotated[
        bool,
        doc("cache what enters the last blocks, of the image and of its augmented copies: an epoch takes seconds"),
        only_if("freeze", "last_blocks"),
    ] = False
    lora_rank: Annotated[Positive, doc("rank of the adapters"), only_if("freeze", "lora")] = 8
    init: Annotated[
        Literal["random", "tree_lda"],
        doc("first weights of the two heads: drawn, or discriminants and logits of the tree in closed form (tree_lda)"),
    ] = "tree_lda"
    closed_form: Annotated[ClosedForm, only_if("init", "tree_lda")] = ClosedForm()
    neck: Annotated[
        Literal["standardised", "linear", "residual", "identity"],
        doc("from the backbone's vector to the embedding; 'standardised' is linear on standardised features"),
        DRAWN,
    ] = "standardised"
    dropout: Annotated[
        Fraction, doc("share of the features left out in training"), both(DRAWN, only_if("neck", "standardised"))
    ] = 0.5
    embedding_dim: Annotated[
        NotNegative,
        doc("length of the embedding; 0 is the backbone's"),
        both(DRAWN, only_if("neck", "standardised", "linear")),
    ] = 128
    projection_dim: Annotated[
        NotNegative,
        doc("length of the contrastive projection; 0 puts the loss on the embedding itself"),
        WITH_PROJECTION,
    ] = 0
    classifier: Annotated[
        Literal["cosine", "linear"],
        doc("the head of the classification loss"),
        WITH_CLASSIFIER,
    ] = "cosine"
    classifier_scale: Annotated[
        float,
        Field(gt=0),
        doc("logit scale of the cosine classifier at the start"),
        WITH_COSINE,
    ] = 16.0
    probability_share: Annotated[
        Share, doc("share of the node probabilities in the cosine of two embeddings; 0 for none"), WITH_CLASSIFIER
    ] = 0.0
    probability_levels: Annotated[ProbabilityLevels, WITH_SHARE] = field(default_factory=dict)
    loss: Loss = Loss()
    sampler: Annotated[BatchSampling, IN_BATCHES] = BatchSampling()
    views: Annotated[
        NotNegative,
        doc("augmented copies of each training image, an epoch seeing one of them or the image itself"),
        COPIED,
    ] = 6
    augmentation: Annotated[
        Augmentation,
        AUGMENTED,
    ] = Augmentation()
    epochs: Annotated[Positive, doc("passes over the training images, at most")] = 10
    batch_size: Annotated[
        NotNegative, doc("images in a batch, of all processes together; 0 for all at once, with freeze = 'frozen'")
    ] = 256
    learning_rate: Annotated[float, Field(gt=0), doc("peak learning rate of heads and neck (AdamW)")] = 1e-3
    backbone_learning_rate: Annotated[float, Field(gt=0), doc("peak learning rate of the backbone"), FINE_TUNED] = 3e-4
    layer_decay: Annotated[
        float, Field(gt=0, le=1), doc("learning rate of a block of the backbone relative to the next one"), FINE_TUNED
    ] = 1.0
    average: Annotated[
        Share, doc("decay of an exponential moving average of the weights, which is the model; 0 for none")
    ] = 0.0
    weight_decay: Annotated[NotNegativeFloat, doc("AdamW weight decay")] = 0.05
    warmup: Annotated[Fraction, doc("share of the steps in which the learning rate rises")] = 0.1
    monitor: Annotated[Monitor, doc("validation metric that chooses the epoch: see docs/training.md")] = (
        "mean_retrieval"
    )
    patience: Annotated[Positive, doc("epochs without improvement before training stops")] = 8
    precision: Annotated[
        Literal["32-true", "16-mixed", "bf16-mixed", "64-true"], doc("Lightning's name of the precision")
    ] = "32-true"
    accelerator: Annotated[str, doc("Lightning's accelerator: auto, cpu, gpu")] = "auto"
    devices: Annotated[Positive, doc("devices of a machine; above 1 torchrun starts a process for each")] = 1
    num_nodes: Annotated[Positive, doc("machines; above 1 torchrun starts the processes on each")] = 1
    strategy: Annotated[
        Literal["auto", "ddp", "ddp_find_unused_parameters_true"],
        doc("Lightning's strategy for several processes; ddp is faster where every weight has a gradient in each step"),
    ] = "auto"
    cache_images: Annotated[bool, doc("keep decoded images in memory (small data)"), FROM_IMAGES] = True
    logger: Annotated[
        Literal["", "tensorboard", "csv", "wandb", "mlflow"],
        doc("where curves go while it trains; all but csv need the extra of their name, e.g. hierderm[wandb]"),
    ] = ""
    workers: Annotated[NotNegative, doc("processes that load images"), FROM_IMAGES] = 0
    seed: Annotated[Seed, doc("seed of weights, order and augmentation")] = 0

    def __post_init__(self) -> None:
        loss = self.loss
        contrastive = loss.contrastive and any(weight > 0 for weight in loss.contrastive_levels.values())
        if not contrastive and not (loss.classification and loss.classification_weight > 0):
            raise ValueError("at least one of loss.contrastive and loss.classification must be named and weigh > 0")
        if self.init == "tree_lda" and loss.classification and loss_kind(loss.classification) != "logits":
            known = ", ".join(name for name, kind in LOSS_KINDS.items() if kind == "logits")
            raise ValueError(
                f"init = 'tree_lda' needs a loss.classification on logits: {known}, or ''; got '{loss.classification}'"
            )
        if self.init == "random" and self.freeze == "frozen" and self.neck == "identity":
            raise ValueError(
                "freeze = 'frozen' with neck = 'identity' leaves the embedding as it is: "
                "choose neck = 'standardised', 'residual' or 'linear'"
            )
        if self.batch_size == 0 and self.freeze != "frozen":
            raise ValueError("batch_size = 0 (all images at once) needs freeze = 'frozen'")


Method = Annotated[Vanilla | LinearProbe | Lda | TreeLda | Gradient, Field(discriminator="method")]
METHODS: dict[str, type[Any]] = {kind.method: kind for kind in get_args(get_args(Method)[0])}
DEFAULT_METHOD = TreeLda.method
