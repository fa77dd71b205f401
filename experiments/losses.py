# The question: which loss makes the best embedding of the same frozen features, and does any loss use the tree to gain
# at both levels? Every loss trains the same standardised linear neck on features of all layers and six augmented views,
# as many epochs, with two values of its own setting tried on validation (mean of coarse and fine MAP@R, seed 0).
# Command: hierderm compare experiments/tree.toml --out runs/tree --data.cases .. --data.taxonomy ..
#          python experiments/losses.py runs/tree --out losses.json
# 5 folds, 3 seeds; about an hour on one core; results of the last run are in experiments/README.md, section 6.

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, normalize

from hierderm.config.methods import TreeLda
from hierderm.data.sampler import ShuffledBatchSampler, TreeBatchSampler
from hierderm.evaluation.metrics.clustering import agreement, contingency, kmeans_clusters
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import retrieval_scores
from hierderm.experiment.run import Run
from hierderm.model.heads import CosineClassifier, ProjectionHead
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.features import FeatureStore
from hierderm.training.frozen import FrozenData

EPOCHS, LEARNING_RATE, WEIGHT_DECAY, DROPOUT, DIM = 84, 1e-3, 0.1, 0.5, 128
METRICS = ("coarse_ami", "coarse_map_at_r", "coarse_r1", "fine_ami", "fine_map_at_r", "fine_r1", "h_ap", "height")


@dataclass
class Batch:
    """What a loss may look at. `z`: unit-length embeddings (n, dim); `labels`: of each level, (n_levels, n)."""

    z: Tensor
    projected: Tensor
    labels: Tensor
    logits: Tensor
    tree: Taxonomy
    prior: Tensor
    progress: float
    value: float

    def depth(self) -> Tensor:
        """On how many levels two images agree, shape (n, n)."""
        return (self.labels[:, :, None] == self.labels[:, None, :]).float().sum(dim=0)


def contrast(z: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """SupCon with a weight for each pair of positives; 0 weighs no pair."""
    own = torch.eye(len(z), dtype=torch.bool)
    logits = (z @ z.T / temperature).masked_fill(own, -torch.inf)
    log_share = (logits - logits.logsumexp(dim=1, keepdim=True)).masked_fill(own, 0.0)
    weights = weights.masked_fill(own, 0.0)
    total = weights.sum(dim=1)
    has = total > 0
    return -((log_share * weights).sum(dim=1)[has] / total[has]).mean()


def supcon(batch: Batch, coarse: float, fine: float, temperature: float = 0.1, z: Tensor | None = None) -> Tensor:
    z = batch.z if z is None else z
    total = z.sum() * 0.0
    for weight, level in ((coarse, 0), (fine, -1)):
        if weight:
            total = total + weight * contrast(
                z, (batch.labels[level][:, None] == batch.labels[level]).float(), temperature
            )
    return total


def ce(batch: Batch) -> Tensor:
    return cross_entropy(batch.logits, batch.labels[-1])


def hxe(batch: Batch) -> Tensor:
    """Hierarchical cross-entropy (Bertinetto et al. 2020, arXiv 1912.09393, equation 4); value: alpha."""
    shares = log_softmax(batch.logits, dim=1)
    total, below = shares.sum() * 0.0, shares.gather(1, batch.labels[-1][:, None])[:, 0]
    for height, level in enumerate(range(batch.tree.n_levels - 2, -2, -1)):
        if level >= 0:
            parent = torch.from_numpy(batch.tree.ancestors[:, level])
            same = parent[None, :] == batch.labels[level][:, None]
            above = shares.masked_fill(~same, -torch.inf).logsumexp(dim=1)
        else:
            above = torch.zeros(len(shares))
        total = total - math.exp(-batch.value * height) * (below - above).mean()
        below = above
    return total


def soft_labels(batch: Batch) -> Tensor:
    """Targets that fall off with the tree (same paper, equation 5); value: beta."""
    ancestors = torch.from_numpy(batch.tree.ancestors)
    heights = batch.tree.n_levels - (ancestors[:, None] == ancestors[None]).sum(dim=2)
    targets = torch.softmax(-batch.value * heights / batch.tree.n_levels, dim=1)
    return cross_entropy(batch.logits, targets[batch.labels[-1]])


def himulcon(batch: Batch) -> Tensor:
    """HiMulConE (Zhang et al. 2022, arXiv 2204.13207, equations 4 to 6): no coarse pair costs less than the costliest
    fine pair, and levels weigh exp(1 / (n_levels - depth)); value: temperature."""
    z, own = batch.z, torch.eye(len(batch.z), dtype=torch.bool)
    logits = (z @ z.T / batch.value).masked_fill(own, -torch.inf)
    cost = -(logits - logits.logsumexp(dim=1, keepdim=True)).masked_fill(own, 0.0)
    depth, total, floor = batch.depth(), z.sum() * 0.0, None
    for level in range(batch.tree.n_levels, 0, -1):  # the finest first
        pairs = (depth == level) & ~own  # pairs whose lowest common ancestor is on this level
        if not pairs.any():
            continue
        level_cost = cost if floor is None else torch.maximum(cost, floor)
        count = pairs.sum(dim=1)
        mean = (level_cost * pairs).sum(dim=1)[count > 0] / count[count > 0]
        total = total + math.exp(1 / (batch.tree.n_levels - level + 1)) * mean.mean()
        floor = cost[pairs].max().detach() if floor is None else torch.maximum(floor, cost[pairs].max().detach())
    return total


def smooth_h_ap(batch: Batch) -> Tensor:
    """1 - H-AP with ranks made smooth by a sigmoid (HAPPIER, arXiv 2207.04873, section 3.2); value: its temperature."""
    similarity, depth = batch.z @ batch.z.T, batch.depth()
    own = torch.eye(len(batch.z), dtype=torch.bool)
    depth = depth.masked_fill(own, 0.0)
    query, item = torch.nonzero(depth > 0, as_tuple=True)
    before = torch.sigmoid((similarity[query] - similarity[query, item][:, None]) / batch.value)  # (n_pairs, n)
    before = before.masked_fill(own[query], 0.0)
    before = before.scatter(1, item[:, None], 0.0)
    relevance = depth[query, item] / batch.tree.n_levels
    least = torch.minimum(depth[query] / batch.tree.n_levels, relevance[:, None])
    share = (relevance + (least * before).sum(dim=1)) / (1 + before.sum(dim=1))
    sums = torch.zeros(len(depth)).index_add(0, query, share)
    norms = torch.zeros(len(depth)).index_add(0, query, relevance)
    return 1 - (sums[norms > 0] / norms[norms > 0]).mean()


@dataclass(frozen=True)
class Method:
    """A loss, the two values tried of its setting, and the size and making of its batches (0: all images at once)."""

    loss: Callable[[Batch], Tensor]
    values: tuple[float, float]
    batch_size: int = 0
    by_tree: bool = False


METHODS = {
    "cross-entropy": Method(ce, (0, 0)),
    "logit adjustment (value: tau)": Method(
        lambda b: cross_entropy(b.logits + b.value * b.prior, b.labels[-1]), (0.5, 1.0)
    ),
    "HXE (alpha)": Method(hxe, (0.2, 1.0)),
    "soft labels (beta)": Method(soft_labels, (4.0, 10.0)),
    "SupCon fine (temperature)": Method(lambda b: supcon(b, 0, 1, b.value), (0.05, 0.1)),
    "SupCon fine + CE": Method(lambda b: supcon(b, 0, 1, b.value) + ce(b), (0.05, 0.1)),
    "SupCon coarse": Method(lambda b: supcon(b, 1, 0, b.value), (0.05, 0.1)),
    "SupCon coarse + CE coarse": Method(
        lambda b: (
            supcon(b, 1, 0, b.value)
            - torch.log(
                torch.softmax(b.logits, dim=1)
                .masked_fill(torch.from_numpy(b.tree.ancestors[:, 0])[None, :] != b.labels[0][:, None], 0.0)
                .sum(dim=1)
                + 1e-9
            ).mean()
        ),
        (0.05, 0.1),
    ),
    "SupCon coarse + CE fine": Method(lambda b: supcon(b, 1, 0, b.value) + ce(b), (0.05, 0.1)),
    "SupCon coarse, then + CE fine": Method(
        lambda b: supcon(b, 1, 0, b.value) + min(1.0, max(0.0, 4 * b.progress - 1)) * ce(b), (0.05, 0.1)
    ),
    "SupCon both levels": Method(lambda b: supcon(b, 1, 1, b.value), (0.05, 0.1)),
    "SupCon both levels (weight of coarse)": Method(lambda b: supcon(b, b.value, 1), (0.5, 2.0)),
    "SupCon both levels + CE": Method(lambda b: supcon(b, 1, 1, b.value) + ce(b), (0.05, 0.1)),
    "SupCon coarse, then both": Method(
        lambda b: supcon(b, 1, min(1.0, max(0.0, 4 * b.progress - 1)), b.value), (0.05, 0.1)
    ),
    "SupCon both levels on a projection": Method(lambda b: supcon(b, 1, 1, b.value, b.projected), (0.05, 0.1)),
    "SupCon, positives weighted by the tree": Method(lambda b: contrast(b.z, b.depth(), b.value), (0.05, 0.1)),
    "HiMulConE": Method(himulcon, (0.05, 0.1)),
    "smooth H-AP, batches of 128 by the tree": Method(smooth_h_ap, (0.02, 0.1), 128, by_tree=True),
    "SupCon both levels, batches of 128 by chance": Method(lambda b: supcon(b, 1, 1, b.value), (0.05, 0.1), 128),
    "SupCon both levels, batches of 128 by the tree": Method(
        lambda b: supcon(b, 1, 1, b.value), (0.05, 0.1), 128, by_tree=True
    ),
}


@dataclass
class Fold:
    """Features of the training views (each (n, dim)), of validation and of test, with their labels."""

    tree: Taxonomy
    views: list[Tensor]
    labels: Tensor
    parts: dict[str, tuple[Tensor, Labelled]]


def read_fold(folder: Path) -> Fold:
    run, store = Run.open(folder / "models" / "hierarchical"), FeatureStore(folder.parent / "features")
    table, tree = run.table, run.taxonomy
    assert isinstance(run.config.training, TreeLda)
    data = FrozenData.load(run.config.training, run.config.backbone, table, store)
    views = [torch.from_numpy(view) for view in data.views]
    whole = torch.from_numpy(store.features(data.backbone, table))
    pooled = torch.cat(views)
    centre, spread = pooled.mean(dim=0), pooled.std(dim=0) + 1e-6
    parts = {}
    for name in ("validation", "test"):
        part = table.part(name)
        labelled = Labelled(np.zeros((len(part), 1)), tree.ancestors[part.fine].T, part.case_ids)
        parts[name] = ((whole[torch.from_numpy(table.splits == name)] - centre) / spread, labelled)
    labels = torch.from_numpy(tree.ancestors[table.part("train").fine].T.copy())
    return Fold(tree, [(view - centre) / spread for view in views], labels, parts)


def train(fold: Fold, method: Method, value: float, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    n, n_fine = len(fold.views[0]), fold.tree.size(-1)
    neck = nn.Linear(fold.views[0].shape[1], DIM)
    head, classifier = ProjectionHead(DIM, DIM), CosineClassifier(DIM, n_fine, 16.0)
    parameters = [*neck.parameters(), *head.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    counts = torch.bincount(fold.labels[-1], minlength=n_fine).clamp(min=1).float()
    sampler: Any = None
    if method.by_tree:
        sampler = TreeBatchSampler([level.numpy() for level in fold.labels], method.batch_size, seed=seed)
    elif method.batch_size:
        sampler = ShuffledBatchSampler(n, method.batch_size, seed=seed)
    steps = EPOCHS * (len(sampler) if sampler else 1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(EPOCHS):
        if sampler:
            sampler.epoch = epoch
        for positions in sampler or [range(n)]:
            chosen = torch.as_tensor(list(positions))
            features = fold.views[epoch % len(fold.views)][chosen]
            z = normalize(neck(nn.functional.dropout(features, DROPOUT)), dim=1)
            batch = Batch(
                z=z,
                projected=head(z),
                labels=fold.labels[:, chosen],
                logits=classifier(z),
                tree=fold.tree,
                prior=(counts / counts.sum()).log(),
                progress=epoch / EPOCHS,
                value=value,
            )
            optimizer.zero_grad()
            method.loss(batch).backward()
            optimizer.step()
            schedule.step()
    return neck


def score(fold: Fold, neck: nn.Module, part: str, seed: int) -> dict[str, float]:
    features, known = fold.parts[part]
    with torch.no_grad():
        embedded = normalize(neck(features), dim=1).numpy()
    scores = retrieval_scores(Labelled(embedded, known.labels, known.cases))
    result = {
        "h_ap": float(np.nanmean(scores.tree["hap"])),
        "height": float(np.nanmean(scores.tree["mistake_severity"])),
    }
    for name, level in (("coarse", 0), ("fine", -1)):
        values = scores.levels[level].values
        result[f"{name}_map_at_r"] = float(np.nanmean(values["map_at_r"]))
        result[f"{name}_r1"] = float(np.nanmean(values["recall_at_1"]))
        if part == "test":
            labels = known.labels[level]
            clusters = kmeans_clusters(embedded, len(np.unique(labels)), seed)
            result[f"{name}_ami"] = float(agreement(contingency(labels, clusters))["ami"])
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of `hierderm compare experiments/tree.toml`")
    parser.add_argument("--out", type=Path, default=Path("losses.json"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    done: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    folds = [read_fold(folder) for folder in sorted(options.folder.glob("fold-?"))]
    for name, method in METHODS.items():
        if name in done:
            continue
        runs, seconds = [], []
        for number, fold in enumerate(folds):
            tried: list[tuple[float, float, nn.Module]] = []
            for value in sorted(set(method.values)):
                start = time.monotonic()
                neck = train(fold, method, value, 0)
                seconds.append(time.monotonic() - start)
                found = score(fold, neck, "validation", 0)
                tried.append(((found["coarse_map_at_r"] + found["fine_map_at_r"]) / 2, value, neck))
            _, value, neck = max(tried, key=lambda item: item[0])
            for seed in range(options.seeds):
                neck = neck if seed == 0 else train(fold, method, value, seed)
                runs.append({"fold": number, "seed": seed, "value": value, **score(fold, neck, "test", seed)})
        done[name] = {"runs": runs, "seconds": float(np.mean(seconds))}
        options.out.write_text(json.dumps(done, indent=1))
        values = " ".join(f"{np.mean([run[key] for run in runs]):.4f}" for key in METRICS)
        print(f"{name}: {values} ({np.mean(seconds):.1f} s)", flush=True)


if __name__ == "__main__":
    main()
