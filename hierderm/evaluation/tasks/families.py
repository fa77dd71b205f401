"""Families of metrics: each takes a subject and gives its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hierderm import columns as c
from hierderm.embeddings import Aggregation, EmbeddingTable
from hierderm.evaluation.catalogue import TREE, Key
from hierderm.evaluation.figures import Figures, Statistic
from hierderm.evaluation.inference.gallery import OnGallery
from hierderm.evaluation.metrics import calibration as cal
from hierderm.evaluation.metrics.classification import (
    class_scores,
    crm_decode,
    hierarchical_scores,
    in_top,
    set_overlap,
)
from hierderm.evaluation.metrics.clustering import (
    AGREEMENT,
    agreement,
    contingency,
    kmeans_clusters,
    silhouette,
    ward_clusters,
)
from hierderm.evaluation.metrics.collapse import collapse_warning, effective_rank, mean_cosine, n_twins
from hierderm.evaluation.metrics.probing import few_shot, fit_linear_probe, knn_accuracies
from hierderm.evaluation.metrics.ranking import K, Labelled
from hierderm.evaluation.metrics.retrieval import case_scores
from hierderm.evaluation.metrics.selective import AnswerRule
from hierderm.evaluation.metrics.soft_labels import differentials, expected_relevance, is_plausible
from hierderm.evaluation.subject import Subject
from hierderm.types import FloatArray, IntArray, Mask

AGGREGATIONS: tuple[Aggregation, ...] = ("best", "mean")
SHOTS = (1, 5, 10)
FEW_SHOT_DRAWS = 20


def retrieval(subject: Subject) -> Figures:
    """Nearest neighbours among the test images of other cases, images and whole cases, by level and by the tree."""
    found: dict[Key, FloatArray] = {}
    on_gallery: dict[Key, OnGallery] = {}
    for level, name in subject.levels:
        of_level = subject.retrieval.levels[level]
        found |= {(name, metric): values for metric, values in of_level.values.items()}
        on_gallery |= {(name, metric): effect for metric, effect in of_level.influence.items()}
    if subject.taxonomy.n_levels > 1:
        found |= {(TREE, metric): values for metric, values in subject.retrieval.tree.items()}
        on_gallery |= {(TREE, metric): effect for metric, effect in subject.retrieval.tree_influence.items()}
    of_cases: dict[Key, FloatArray] = {}
    if len(np.unique(subject.test.case_ids)) < len(subject.test):
        for aggregation in AGGREGATIONS:
            scores = case_scores(subject.pictures, aggregation, influence=True)
            for level, name in subject.levels:
                for metric in ("recall_at_1", "map_at_r"):
                    key = (name, f"case_{metric}_{aggregation}")
                    of_cases[key] = scores.levels[level].values[metric]
                    on_gallery[key] = scores.levels[level].influence[metric]
    return Figures(found, of_cases, on_gallery, warnings=_twins(subject))


def _twins(subject: Subject) -> tuple[str, ...]:
    """A warning for pictures that occur twice under different cases: a leak that ids do not show."""
    test, told = subject.test, []
    parts = (("test", subject.test), ("training", subject.train), ("validation", subject.validation))
    if mean_cosine(test.embeddings) > 0.999:
        return ()  # everything is everyone's twin: the collapse is what there is to tell
    for name, part in parts:
        n = 0 if part is None else n_twins(test.embeddings, part.embeddings, test.case_ids, part.case_ids)
        if n:
            told.append(
                f"{n} test picture(s) have a twin (cosine above 0.9999) in another {name} case. The same picture under "
                "two cases inflates the figures: split again with near-duplicates kept together. Where the pictures "
                "differ, the embedding squeezes them into one point."
            )
    return tuple(told)


def clustering(subject: Subject) -> Figures:
    """k-means and agglomerative clusters against the labels of each level, silhouettes, and the collapse check.

    k-means has as many clusters as labels occur and is averaged over its seeds; each bootstrap round takes the next
    seed's clusters, so the interval covers the luck of k-means, too. Agglomerative clustering takes some thousand
    images, drawn at random, and is cut at as many clusters as each level has labels.
    """
    embeddings, config = subject.test.embeddings, subject.config
    per_image: dict[Key, FloatArray] = {}
    statistics: list[Statistic] = []
    labels = {name: subject.labels(level) for level, name in subject.levels}
    n_labels = {name: len(np.unique(of_level)) for name, of_level in labels.items()}
    some = np.random.default_rng(config.seed).permutation(len(embeddings))[: config.agglomerative_images]
    cut = ward_clusters(embeddings[some], list(n_labels.values())) if len(some) > 1 else []
    for name, of_level in labels.items():
        runs = [kmeans_clusters(embeddings, n_labels[name], config.seed + run) for run in range(config.kmeans_seeds)]
        per_image[name, "label_silhouette"] = silhouette(embeddings, of_level)
        per_image[name, "cluster_silhouette"] = np.mean([silhouette(embeddings, clusters) for clusters in runs], axis=0)
        keys = tuple((name, metric) for metric in AGREEMENT)
        statistics.append(Statistic(keys, _agreement_of_runs(of_level, runs)))
    for (name, of_level), clusters in zip(labels.items(), cut, strict=False):
        keys = ((name, "agglomerative_ami"), (name, "agglomerative_purity"))
        statistics.append(Statistic(keys, partial(_agreement_of_some, of_level, clusters, some)))
    rank, cosine = effective_rank(embeddings), mean_cosine(embeddings)
    statistics.append(
        Statistic(((TREE, "effective_rank"), (TREE, "mean_cosine")), lambda *_: (rank, cosine), resampled=False)
    )
    warning = collapse_warning(rank, cosine, n_labels[subject.levels[0][1]])
    return Figures(per_image, statistics=tuple(statistics), warnings=(warning,) if warning else ())


def _agreement_of_runs(labels: IntArray, runs: Sequence[IntArray]) -> Callable[[IntArray | None, int], FloatArray]:
    """The mean over runs; in a bootstrap round one run, its deviation from the mean cut to that of a mean of all."""

    def of(clusters: IntArray, weights: IntArray | None) -> FloatArray:
        scores = agreement(contingency(labels, clusters, weights))
        return np.array([scores[name] for name in AGREEMENT])

    on_all = np.stack([of(clusters, None) for clusters in runs])
    luck = (on_all - on_all.mean(axis=0)) * (1 - 1 / np.sqrt(len(runs)))

    def compute(weights: IntArray | None, number: int) -> FloatArray:
        if number < 0:
            every = on_all if weights is None else np.stack([of(clusters, weights) for clusters in runs])
            return np.asarray(every.mean(axis=0))
        run = number % len(runs)
        return np.asarray(of(runs[run], weights) - luck[run])

    return compute


def _agreement_of_some(
    labels: IntArray, clusters: IntArray, some: IntArray, weights: IntArray | None, _: int
) -> list[float]:
    of_some = None if weights is None else weights[some]
    if of_some is not None and not of_some.any():
        return [float("nan")] * 2
    scores = agreement(contingency(labels[some], clusters, of_some))
    return [scores["ami"], scores["purity"]]


def classification(subject: Subject) -> Figures:
    """The model's own classifier, where it has one: accuracy, credit by the tree, cost-sensitive decoding."""
    probabilities, tree = subject.test.probabilities, subject.taxonomy
    if probabilities is None:
        return Figures()
    per_image: dict[Key, FloatArray] = {}
    statistics: list[Statistic] = []
    decoded = crm_decode(probabilities, tree)
    for level, name in subject.levels:
        of_level, labels = tree.sum_up(probabilities, level), subject.labels(level)
        predicted = of_level.argmax(axis=1)
        per_image[name, "top1_accuracy"] = (predicted == labels).astype(np.float64)
        if of_level.shape[1] > 3:
            per_image[name, "top3_accuracy"] = in_top(of_level, labels, 3)
        per_image[name, "crm_accuracy"] = (tree.to_level(decoded, level) == labels).astype(np.float64)
        keys = ((name, "balanced_accuracy"), (name, "macro_f1"))
        statistics.append(Statistic(keys, partial(_class_scores, labels, predicted)))
    if tree.n_levels == 1:
        return Figures(per_image, statistics=tuple(statistics))
    predicted = probabilities.argmax(axis=1)
    for name, nodes in (("top1", predicted), ("crm", decoded)):
        height = tree.lca_height[subject.fine, nodes].astype(np.float64)
        per_image[TREE, f"{name}_height"] = height
        per_image[TREE, f"{name}_severity"] = np.where(height > 0, height, np.nan)
    per_image[TREE, "hierarchical_f1"] = 1 - per_image[TREE, "top1_height"] / tree.n_levels  # equal depths: P = R = F
    coarse = tree.to_level(predicted, 0)
    confusion = np.zeros((tree.size(0), tree.size(0)), dtype=np.int64)
    np.add.at(confusion, (subject.labels(0), coarse), 1)
    details = {"confusion": {"of": "classifier", "table": confusion.tolist()}}
    return Figures(per_image, statistics=tuple(statistics), details=details)


def _class_scores(labels: IntArray, predicted: IntArray, weights: IntArray | None, _: int) -> tuple[float, float]:
    return class_scores(labels, predicted, weights)


def trust(subject: Subject) -> Figures:
    """Are the classifier's probabilities honest, and what can be answered at a wanted error rate?

    The last needs validation images: they teach temperature, thresholds and conformal sets, one picture a case, the
    first, as pictures of a case are not independent.
    """
    tree, config, probabilities = subject.taxonomy, subject.config, subject.test.probabilities
    if probabilities is None:
        return Figures()
    per_image: dict[Key, FloatArray] = {}
    statistics: list[Statistic] = []
    details: dict[str, Any] = {"reliability": {}, "risk_coverage": {}}
    learnt = _learnt(subject)
    for level, name in subject.levels:
        of_level, labels = tree.sum_up(probabilities, level).astype(np.float64), subject.labels(level)
        confidence, right = of_level.max(axis=1), (of_level.argmax(axis=1) == labels).astype(np.float64)
        per_image[name, "brier"] = cal.brier(of_level, labels)
        statistics.append(_trust_statistic(name, "ece", confidence, right, config.calibration_bins))
        statistics.append(_trust_statistic(name, "aurc", confidence, right, config.calibration_bins))
        shown = confidence
        if learnt is not None:
            at_temperature = tree.sum_up(cal.scaled(probabilities, learnt[2]), level)
            shown = at_temperature.max(axis=1)
            agrees = (at_temperature.argmax(axis=1) == labels).astype(np.float64)
            statistics.append(_trust_statistic(name, "ece_scaled", shown, agrees, config.calibration_bins))
        details["reliability"][name] = cal.reliability(shown, right, config.calibration_bins)
        coverage, risk = cal.risk_coverage(shown, right)
        steps = np.unique(np.linspace(0, len(coverage) - 1, min(len(coverage), 60)).astype(int))
        details["risk_coverage"][name] = [[float(coverage[i]), float(risk[i])] for i in steps]
    found = Figures(per_image, statistics=tuple(statistics), details=details)
    return found if learnt is None else _with_answers(subject, found, *learnt)


def _learnt(subject: Subject) -> tuple[FloatArray, IntArray, float] | None:
    """Scaled probabilities and conditions of one validation picture a case, and the temperature."""
    if subject.validation is None or subject.validation.probabilities is None:
        return None
    _, first = np.unique(subject.validation.case_ids, return_index=True)
    fine, probabilities = subject.fine_of(subject.validation)[first], subject.validation.probabilities[first]
    temperature = cal.temperature(probabilities, fine)
    return cal.scaled(probabilities, temperature), fine, temperature


def _trust_statistic(level: str, name: str, confidence: FloatArray, right: FloatArray, n_bins: int) -> Statistic:
    def compute(weights: IntArray | None, _: int) -> list[float]:
        if name == "aurc":
            return [cal.aurc(confidence, right, weights)]
        return [cal.calibration_error(confidence, right, n_bins, weights)]

    return Statistic(((level, name),), compute)


def _with_answers(
    subject: Subject, found: Figures, of_validation: FloatArray, validation_fine: IntArray, temperature: float
) -> Figures:
    tree, config = subject.taxonomy, subject.config
    assert subject.test.probabilities is not None
    of_test = cal.scaled(subject.test.probabilities, temperature)
    per_image, details = dict(found.per_image), dict(found.details)
    sets: Mask | None = None
    details["conformal"] = {}
    for level, name in subject.levels:
        labels, of_level = subject.labels(level), tree.sum_up(of_test, level)
        on_validation = tree.sum_up(of_validation, level)
        threshold = cal.conformal_threshold(
            on_validation, tree.to_level(validation_fine, level), config.conformal_error
        )
        sets = cal.conformal_sets(of_level, threshold)
        per_image[name, "conformal_coverage"] = sets[np.arange(len(labels)), labels].astype(np.float64)
        per_image[name, "conformal_size"] = sets.sum(axis=1).astype(np.float64)
        details["conformal"][name] = cal.coverage_by_class(sets, labels, subject.labels(0), tree.names(0))
    rule = AnswerRule.learn(of_validation, validation_fine, tree, 1 - config.answer_error)
    answers = rule.apply(of_test, tree)
    node, at = answers.node, answers.level
    answered = at >= 0
    common, said = set_overlap(subject.fine, node, at, tree)
    wrong = np.where(answered, (common < said).astype(np.float64), np.nan)
    per_image[TREE, "answer_rate"] = answered.astype(np.float64)
    per_image[TREE, "answer_error"] = wrong
    per_image[TREE, "answer_depth"] = said.astype(np.float64)
    if tree.n_levels > 1:
        assert sets is not None
        per_image[TREE, "conformal_nodes"] = cal.n_nodes(sets, tree).astype(np.float64)
    keys = tuple((TREE, f"answer_{name}") for name in ("precision", "recall", "f1"))
    scores = Statistic(keys, lambda weights, _: hierarchical_scores(common, said, tree.n_levels, weights))
    details["answers"] = {
        "temperature": temperature,
        "thresholds": [level.threshold for level in rule.levels],
        "by_level": [
            {"level": name, "answered": int((at == level).sum()), "wrong": int(np.nansum(wrong[at == level]))}
            for level, name in subject.levels
        ],
    }
    return Figures(per_image, statistics=(*found.statistics, scores), details=details)


def soft_labels(subject: Subject) -> Figures:
    """Agreement with weighted differentials; nothing where no case has several plausible conditions."""
    if c.WEIGHTS not in subject.test.frame:
        return Figures()
    weights, tree = differentials(subject.test.frame, subject.taxonomy), subject.taxonomy
    if not ((weights > 0).sum(axis=1) > 1).any():
        return Figures()
    per_image: dict[Key, Any] = {}
    nearest = subject.retrieval.nearest
    first = nearest[:, 0]
    for level, name in subject.levels:
        of_level, labels = tree.sum_up(weights, level).astype(np.float64), subject.labels(level)
        for k in (1, K):
            per_image[name, f"expected_relevance_at_{k}"] = expected_relevance(of_level, of_level, nearest, k)
        per_image[name, "nearest_is_plausible"] = is_plausible(of_level, np.where(first >= 0, labels[first], -1))
        if subject.test.probabilities is not None:
            order = np.argsort(-tree.sum_up(subject.test.probabilities, level), axis=1, kind="stable")
            per_image[name, "top1_is_plausible"] = is_plausible(of_level, order[:, 0])
            hits = [is_plausible(of_level, order[:, place]) for place in range(min(3, order.shape[1]))]
            per_image[name, "top3_has_plausible"] = np.max(hits, axis=0)
    return Figures(per_image)


def knn(subject: Subject) -> Figures:
    """Accuracy of a vote of the nearest training images."""
    if subject.train is None:
        return Figures()
    votes = knn_accuracies(subject.pictures, _labelled(subject, subject.train))
    return Figures({(name, "train_knn_accuracy"): votes[level] for level, name in subject.levels})


def probe(subject: Subject) -> Figures:
    """A linear classifier of the conditions on the frozen embeddings of the training images."""
    train, validation, tree = subject.train, subject.validation, subject.taxonomy
    if train is None or len(np.unique(subject.fine_of(train))) < 2:
        return Figures()
    held_out = (None, None) if validation is None else (validation.embeddings, subject.fine_of(validation))
    fitted = fit_linear_probe(train.embeddings, subject.fine_of(train), *held_out)
    probabilities = np.zeros((len(subject.test), tree.size(-1)))
    probabilities[:, fitted.classes] = fitted.predict_proba(subject.test.embeddings)
    per_image: dict[Key, FloatArray] = {}
    statistics = []
    for level, name in subject.levels:
        labels, predicted = subject.labels(level), tree.sum_up(probabilities, level).argmax(axis=1)
        per_image[name, "linear_probe_accuracy"] = (predicted == labels).astype(np.float64)
        statistics.append(Statistic(((name, "linear_probe_balanced_accuracy"),), partial(_balanced, labels, predicted)))
    return Figures(per_image, statistics=tuple(statistics))


def _balanced(labels: IntArray, predicted: IntArray, weights: IntArray | None, _: int) -> list[float]:
    return [class_scores(labels, predicted, weights)[0]]


def few_shots(subject: Subject) -> Figures:
    """Accuracy from 1, 5 and 10 training pictures a condition."""
    if subject.train is None:
        return Figures()
    per_image: dict[Key, FloatArray] = {}
    for shots in SHOTS:
        hits = few_shot(
            subject.train.embeddings,
            subject.fine_of(subject.train),
            subject.test.embeddings,
            subject.fine,
            subject.taxonomy,
            shots,
            n_draws=FEW_SHOT_DRAWS,
            rng=np.random.default_rng(subject.config.seed),
        )
        per_image |= {(name, f"few_shot_{shots}"): hits[level] for level, name in subject.levels}
    return Figures(per_image)


def _labelled(subject: Subject, part: EmbeddingTable) -> Labelled:
    return Labelled(part.embeddings, subject.taxonomy.ancestors[subject.fine_of(part)].T, part.case_ids)


FAMILIES: dict[str, Callable[[Subject], Figures]] = {
    "retrieval": retrieval,
    "clustering": clustering,
    "classification": classification,
    "trust": trust,
    "soft_labels": soft_labels,
    "knn": knn,
    "probe": probe,
    "few_shot": few_shots,
}
