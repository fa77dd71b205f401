"""The only place that strings the stages together: data, training, embeddings, evaluation of one model."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierderm import artifacts
from hierderm import columns as c
from hierderm.artifacts import file_hash, replacing, text_hash, write_atomically, write_json
from hierderm.config.loading import dump_config
from hierderm.config.settings import Config, ModelConfig
from hierderm.data.checks import read_cases
from hierderm.data.splits import SplitReport, split_cases
from hierderm.data.synthetic.recipe import PRESETS, write_synthetic
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import CheckpointError, ConfigError, Fault, suggest
from hierderm.evaluation.evaluation import Evaluation, evaluate_subject, mean_map_at_r
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.subject import subject_of
from hierderm.taxonomy.file import load_taxonomy, read_taxonomy, write_taxonomy

if TYPE_CHECKING:
    from hierderm.model.backbone import Backbone
    from hierderm.model.network import Network

Say = Callable[[str], None]
RUN = "run"  # the kind of a folder that training or a comparison fills step by step
NOT_OF_A_RUN = ("models", "name", "focus", "evaluation", "protocol")  # settings that no training depends on
PACKAGES = ("hierderm", "torch", "torchvision", "timm", "transformers", "lightning", "scikit-learn", "numpy", "pandas")


def silent(_: str) -> None:
    """The default listener of a pipeline: says nothing."""


# --- data --------------------------------------------------------------------------------------------------------


def prepare_cases(config: Config, folder: Path, say: Say = silent) -> tuple[CaseTable, SplitReport | None]:
    """The split table of a configuration, written to `folder/cases.csv` and read back from there the next time.

    A second call with other data or split settings is an error: the results beside it belong to the first.
    """
    artifacts.claim_folder(folder, RUN)
    done, stamp = folder / "cases.csv", folder / "data.json"
    inputs = {
        name: file_hash(path) for name in (config.data.cases, config.data.taxonomy) if (path := Path(name)).is_file()
    }
    wanted = json.loads(json.dumps({"data": asdict(config.data), "split": asdict(config.split), "inputs": inputs}))
    if done.is_file():
        saved = json.loads(stamp.read_text())
        if saved["settings"] != wanted:
            raise ConfigError(
                f"{folder} holds results on other data or another split. Choose another --out, or delete the folder."
            )
        return _prepared(folder), SplitReport(**saved["split_report"]) if saved["split_report"] else None
    table = _limit(config, load_cases(config, folder, say))
    report = None
    if config.split.reuse and c.SPLIT in table.frame and (table.frame[c.SPLIT] != "").all():
        say("Split: the table's own.")
    else:
        say("Splitting by case, near-duplicate pictures together ...")
        table, report = split_cases(table, config.split)
    write_taxonomy(table.taxonomy, folder / "taxonomy.csv", replace=True)
    write_json(folder / "excluded.json", [asdict(fault) for fault in table.excluded])
    write_json(stamp, {"settings": wanted, "split_report": asdict(report) if report else None})
    table.write(done)  # last: a folder with this file is whole
    return _prepared(folder), report


def _prepared(folder: Path) -> CaseTable:
    """The table as every later step sees it, the first time and after a resumption alike."""
    excluded = tuple(Fault(**fault) for fault in json.loads((folder / "excluded.json").read_text()))
    table = read_cases(folder / "cases.csv", read_taxonomy(folder / "taxonomy.csv"), decode=False)
    return replace(table, excluded=excluded)


def load_cases(config: Config, folder: Path, say: Say = silent) -> CaseTable:
    """The checked table that `config.data` names; built-in data are generated below `folder` first."""
    data = config.data
    name, taxonomy, root = data.cases, data.taxonomy, Path(data.image_root) if data.image_root else None
    path = Path(name)
    if name.startswith("synthetic:"):
        preset = name.removeprefix("synthetic:")
        if preset not in PRESETS:
            raise ConfigError(f"unknown built-in data '{name}'.{suggest(preset, PRESETS)} Known: {list(PRESETS)}.")
        say(f"Drawing the built-in pictures ({PRESETS[preset].n_cases} cases) ...")
        path = write_synthetic(PRESETS[preset], folder / "synthetic")
        taxonomy = taxonomy or str(path.parent / "taxonomy.csv")
    elif not taxonomy:
        raise ConfigError("data.taxonomy must name a taxonomy for your own table: a shipped id or a file.")
    say("Checking table and pictures ...")
    return read_cases(path, load_taxonomy(taxonomy), image_root=root, unreadable=data.unreadable, unknown=data.unknown)


def _limit(config: Config, table: CaseTable) -> CaseTable:
    """Leave out kinds of names and rare conditions by choice; what goes is listed in `excluded`."""
    nodes = table.taxonomy.levels[-1]
    counts = table.image_counts()
    kept = [
        node.name
        for node in nodes
        if node.kind in config.data.kinds and counts.get(node.name, 0) >= config.data.min_images
    ]
    if not kept:
        raise ConfigError(
            f"no condition is left with data.kinds {list(config.data.kinds)} and data.min_images "
            f"{config.data.min_images}; the largest has {max(counts.values())} images."
        )
    return table.with_taxonomy(table.taxonomy.keep(kept))


# --- training ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A finished run: its network, its folder, its history (one row an epoch) and the row the network is of."""

    network: Network
    folder: Path
    history: pd.DataFrame
    chosen: int
    seconds: float


def train_run(
    config: Config, table: CaseTable, folder: Path, say: Say = silent, *, features: Path | None = None
) -> Trained:
    """Train one model, or continue a killed run, or load a finished one; all of it lies in `folder`.

    `features`: where features of frozen backbones are kept, for runs that share them; by default `folder`.
    """
    from hierderm.model.checkpoint import load_model

    _require_learning(config)
    claim_folder(config, table, folder)
    if (folder / "finished.json").is_file():  # written last: with it the folder is whole
        say("Already trained.")
        finished = json.loads((folder / "finished.json").read_text())
        network, history = load_model(folder / "model", taxonomy=table.taxonomy), pd.read_csv(folder / "history.csv")
        return Trained(network, folder, history, finished["chosen_epoch"] - 1, finished["seconds"])
    return _train(config, table, folder, features or folder, say)


def claim_folder(config: Config, table: CaseTable, folder: Path) -> None:
    """Write configuration, environment and split of a run to its folder; refuse the folder of another run."""
    artifacts.claim_folder(folder, RUN)
    stamp = folder / "run.json"
    identity = {
        "config": json.loads(json.dumps({k: v for k, v in asdict(config).items() if k not in NOT_OF_A_RUN})),
        "split_hash": table.split_hash,
        "taxonomy_hash": table.taxonomy.content_hash,
    }
    if stamp.is_file():
        saved = json.loads(stamp.read_text())
        if saved != identity:
            parts = [key for key in identity if saved.get(key) != identity[key]]
            raise CheckpointError(
                f"{folder} holds another run: its {', '.join(parts)} differ(s). Choose another --out, or delete it."
            )
        return
    write_json(folder / "environment.json", environment())
    write_atomically(folder / "config.toml", dump_config(config))
    write_json(stamp, identity)


def _train(config: Config, table: CaseTable, folder: Path, features: Path, say: Say) -> Trained:
    import torch

    from hierderm.model.checkpoint import save_model
    from hierderm.report.model_card import model_card
    from hierderm.report.plots import history_figure

    start = time.monotonic()
    torch.manual_seed(config.training.seed)
    learn = _in_closed_form if config.training.method == "tree_lda" else _by_gradient
    network, history, chosen = learn(config, table, folder, features, say)
    card = model_card(config, table, history, chosen)
    save_model(network, folder / "model", split_hash=table.split_hash, card=card, replace=True)
    if "train_loss" in history:
        write_atomically(folder / "curves.png", history_figure({config.name: history}))
    seconds = round(time.monotonic() - start, 1)
    write_json(folder / "finished.json", {"seconds": seconds, "epochs": len(history), "chosen_epoch": chosen + 1})
    return Trained(network.eval(), folder, history, chosen, seconds)


def _by_gradient(
    config: Config, table: CaseTable, folder: Path, features: Path, say: Say
) -> tuple[Network, pd.DataFrame, int]:
    import torch

    from hierderm.model.backbone import load_backbone
    from hierderm.model.network import Network
    from hierderm.training.gradient.freezing import apply_freezing, merge_adapters
    from hierderm.training.gradient.loop import run_training
    from hierderm.training.gradient.module import TrainingModule
    from hierderm.training.losses.registry import loss_kind

    train, validation = table.part(c.TRAIN), table.part(c.VALIDATION)
    model_config = config.model
    if loss_kind(config.loss.classification) != "logits":
        model_config = replace(model_config, classifier="none")
    backbone = load_backbone(config.backbone)
    apply_freezing(backbone, config.training)
    level = table.taxonomy.level_number(config.loss.classification_level)
    network = Network(backbone, model_config, table.taxonomy, level)
    cached = None
    if config.training.freeze == "frozen":
        say("Caching the frozen backbone's features ...")
        views = [torch.from_numpy(view) for view in cached_views(config, backbone, table, features)]
        whole = cached_features(config, backbone, table, features)
        cached = views, torch.from_numpy(whole[table.splits == c.VALIDATION])
    module = TrainingModule(network, config, train, validation, score_validation, cached)
    network.train()
    history, chosen = run_training(module, folder)
    merge_adapters(backbone)
    return network, history, chosen


def _in_closed_form(
    config: Config, table: CaseTable, folder: Path, features: Path, say: Say
) -> tuple[Network, pd.DataFrame, int]:
    """Discriminants of the tree on frozen features, and the beliefs beside them, as a network."""
    import torch

    from hierderm.model.backbone import load_backbone
    from hierderm.model.network import Network
    from hierderm.training.methods.tree_lda import Held, TreeLda, best_scale, every_setting

    train, validation = table.part(c.TRAIN), table.part(c.VALIDATION)
    backbone, grid, tree = load_backbone(config.backbone), config.tree_lda, table.taxonomy
    say("Caching the frozen backbone's features ...")
    views = cached_views(config, backbone, table, features)
    of_validation = cached_features(config, backbone, table, features)[table.splits == c.VALIDATION]
    place = np.arange(tree.size(-1))  # of each condition in the tree
    if grid.shuffle:
        place = np.random.default_rng(config.training.seed).permutation(place)
    rows: list[dict[str, Any]] = []
    best, chosen = None, 0
    for kind, width in feature_widths(config, backbone).items():
        lda = TreeLda(
            np.concatenate([view[:, :width] for view in views]),
            place[train.fine],
            tree,
            n_views=len(views),
            components=grid.components,
            belief_levels=grid.belief_levels,
        )
        seen, unseen = Held(views[0][:, :width], train), Held(of_validation[:, :width], validation)
        for row, found in every_setting(lda, grid, seen, unseen, score_validation, config.training.monitor):
            rows.append({"epoch": len(rows), "features": kind, **row})
            if best is None or row["held_out"] > rows[chosen]["held_out"]:
                best, chosen = found, len(rows) - 1
    history = pd.DataFrame(rows)
    write_atomically(folder / "history.csv", history.to_csv(index=False))
    assert best is not None  # the configuration has at least one value of each setting
    width = best.weight.shape[1]
    scale = best_scale(best.logits(of_validation[:, :width])[:, place], validation.fine)
    shape = ModelConfig(
        "discriminants",
        embedding_dim=len(best.weight),
        projection_dim=0,
        classifier="none",
        classifier_scale=scale,
        belief_share=best.belief,
        belief_levels=grid.belief_levels,
    )
    network = Network(backbone, shape, tree, tree.fine_level)
    beyond = ((0, 0), (0, backbone.dim - width))
    weights = {
        "discriminants.weight": np.pad(best.weight, beyond),
        "discriminants.bias": best.bias,
        "conditions.weight": np.pad(best.condition_weight[place], beyond),
        "conditions.bias": best.condition_bias[place],
        "membership": best.membership[place],
    }
    network.neck.load_state_dict({k: torch.from_numpy(v).float() for k, v in weights.items()}, strict=False)
    return network, history, chosen


def feature_widths(config: Config, backbone: Backbone) -> dict[str, int]:
    """How many of a frozen backbone's features to try, by the name of the choice; without layers there is none."""
    widths = {"layers": backbone.dim, "output": backbone.output_dim}
    if backbone.dim == backbone.output_dim:
        return {"output": backbone.dim}
    return {name: widths[name] for name in dict.fromkeys(config.tree_lda.features)}


def _require_learning(config: Config) -> None:
    loss, training = config.loss, config.training
    if training.method == "tree_lda":
        return
    if config.model.neck == "discriminants":
        raise ConfigError(
            "model.neck = 'discriminants' is what training.method = 'tree_lda' makes and no loss learns: "
            "choose that method, or model.neck = 'standardised', 'residual', 'linear' or 'identity'."
        )
    if training.freeze == "frozen" and config.model.neck == "identity":
        raise ConfigError(
            "training.freeze = 'frozen' with model.neck = 'identity' leaves the embedding as it is: "
            "choose model.neck = 'standardised', 'residual' or 'linear'."
        )
    contrastive = loss.contrastive and any(weight > 0 for weight in loss.contrastive_levels.values())
    if not contrastive and not (loss.classification and loss.classification_weight > 0):
        raise ConfigError("at least one of loss.contrastive and loss.classification must be named and weigh > 0.")


def score_validation(embeddings: Any, table: CaseTable) -> dict[str, float]:
    """What training monitors, in [0, 1]: MAP@R on validation at both ends of the tree, and their geometric mean.

    An arithmetic mean lets a gain at the coarse level, where figures are larger, pay for the fine one; the geometric
    mean asks that no level lose a larger share than the other gains.
    """
    pictures = Labelled(np.asarray(embeddings), table.taxonomy.ancestors[table.fine].T, table.case_ids)
    coarse, fine = mean_map_at_r(pictures)[[0, -1]]
    mean = float(np.sqrt(coarse * fine))
    return {"coarse_map_at_r": float(coarse), "fine_map_at_r": float(fine), "mean_map_at_r": mean}


def cached_features(config: Config, backbone: Backbone, table: CaseTable, folder: Path) -> Any:
    """The frozen backbone's vectors of a table, shape (n_images, dim), computed once and kept in `folder`."""
    return _cached(config, backbone, table, folder, 0, np.ones(len(table), dtype=bool))


def cached_views(config: Config, backbone: Backbone, table: CaseTable, folder: Path) -> list[Any]:
    """Those of the training pictures: as they are, then of `training.views` augmentations by `config.augmentation`.

    Which augmentation depends on the seed and a picture's position in the table alone, so that divisions of one table
    share what is kept in `folder`, and each adds the pictures that others have not trained on.
    """
    training = table.splits == c.TRAIN
    views = (_cached(config, backbone, table, folder, view, training) for view in range(1, config.training.views + 1))
    return [cached_features(config, backbone, table, folder)[training], *(view[training] for view in views)]


def _cached(config: Config, backbone: Backbone, table: CaseTable, folder: Path, view: int, wanted: Any) -> Any:
    """Vectors of the table of which those `wanted`, shape (n_images,), are known; others may be NaN."""
    from hierderm.model.embed import backbone_features

    augmentation, seed = (config.augmentation, config.training.seed) if view else (None, 0)
    how = [asdict(augmentation), seed, view] if augmentation else []
    key = json.dumps([asdict(config.backbone), backbone.preprocessing.hash, [str(path) for path in table.paths], *how])
    path = folder / "features" / f"{text_hash(key)}.npy"
    if path.is_file():
        features = np.load(path, allow_pickle=False)
    else:
        features = np.full((len(table), backbone.dim), np.nan, dtype=np.float32)
    missing = np.flatnonzero(wanted & np.isnan(features[:, 0]))
    if len(missing):
        features[missing] = backbone_features(
            backbone,
            table.paths,
            workers=config.training.workers,
            augmentation=augmentation,
            seed=seed,
            view=view,
            rows=missing.tolist(),
        )
        with replacing(path) as temporary, temporary.open("wb") as handle:
            np.save(handle, features)
    return features


def environment() -> dict[str, str]:
    """Versions and machine, for the run folder and the report."""
    return {"python": sys.version.split()[0], "machine": platform.platform()} | {p: version(p) for p in PACKAGES}


# --- embedding and evaluation ------------------------------------------------------------------------------------


def embed_run(
    run: Trained, table: CaseTable, *, name: str, workers: int = 0, features: Any | None = None
) -> EmbeddingTable:
    """Embed a table with a finished run; the embeddings carry the hashes of weights, preprocessing, tree and split.

    `features`: the backbone's vectors of the table, where the run left the backbone frozen and they are at hand.
    """
    from hierderm.model.embed import embed_saved

    return embed_saved(run.folder / "model", run.network, table, name=name, workers=workers, features=features)


def is_frozen(config: Config) -> bool:
    """Whether a run of this configuration leaves the backbone as it is."""
    return config.training.method == "tree_lda" or config.training.freeze == "frozen"


def evaluate_test(config: Config, embeddings: EmbeddingTable, table: CaseTable, name: str) -> Evaluation:
    """Figures on the test split; embeddings of a model that was trained on another split are refused."""
    subject = subject_of(embeddings, table, table.taxonomy, config.evaluation, name=name)
    return evaluate_subject(subject, config.evaluation.families)
