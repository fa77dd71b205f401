"""What the frozen embeddings of the training images teach: k-NN vote, linear probe, few-shot prototypes."""

from __future__ import annotations

from functools import partial

import numpy as np

from hierderm.evaluation.catalogue import Key
from hierderm.evaluation.metrics.classification import class_scores
from hierderm.evaluation.metrics.group_sums import Weights
from hierderm.evaluation.metrics.probing import few_shot_accuracies, fit_linear_probe, knn_accuracies
from hierderm.evaluation.scores import Scores, Statistic
from hierderm.evaluation.subject import Subject
from hierderm.types import FloatArray, IntArray

SHOTS = (1, 5, 10)
FEW_SHOT_DRAWS = 20


def knn(subject: Subject) -> Scores:
    """Accuracy of a vote of the nearest training images."""
    if subject.train is None:
        return Scores()
    votes = knn_accuracies(subject.labelled, subject.label(subject.train))
    return Scores({(name, "train_knn_accuracy"): votes[level] for level, name in subject.levels})


def linear_probe(subject: Subject) -> Scores:
    """A linear classifier of the conditions, its penalty chosen by accuracy on validation."""
    train, validation, tree = subject.train, subject.validation, subject.taxonomy
    if train is None or len(np.unique(subject.fine_of(train))) < 2:
        return Scores()
    held_out = (None, None) if validation is None else (validation.embeddings, subject.fine_of(validation))
    probe = fit_linear_probe(train.embeddings, subject.fine_of(train), *held_out)
    probabilities = np.zeros((len(subject.test), tree.size(-1)))
    probabilities[:, probe.classes] = probe.predict_proba(subject.test.embeddings)
    per_image: dict[Key, FloatArray] = {}
    statistics = []
    for level, name in subject.levels:
        labels, predicted = subject.labels(level), tree.sum_up(probabilities, level).argmax(axis=1)
        per_image[name, "linear_probe_accuracy"] = (predicted == labels).astype(np.float64)
        statistics.append(Statistic(((name, "linear_probe_balanced_accuracy"),), partial(_balanced, labels, predicted)))
    return Scores(per_image, statistics=tuple(statistics))


def _balanced(labels: IntArray, predicted: IntArray, weights: Weights, _: IntArray | None) -> FloatArray:
    return class_scores(labels, predicted, weights)[:, :1]


def few_shot(subject: Subject) -> Scores:
    """Accuracy from 1, 5 and 10 training images a condition."""
    if subject.train is None:
        return Scores()
    per_image: dict[Key, FloatArray] = {}
    for shots in SHOTS:
        hits = few_shot_accuracies(
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
    return Scores(per_image)
