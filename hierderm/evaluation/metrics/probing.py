"""What can be learnt from frozen embeddings of training cases: nearest neighbours, a linear probe, a few pictures."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.ranking import K_VOTE, Labelled, rankings, vote_is_right
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray

PENALTIES = (0.01, 0.1, 1.0, 10.0)  # inverse strength of the probe's L2 penalty


def knn_accuracies(test: Labelled, train: Labelled) -> list[FloatArray]:
    """For each level, coarse first: 1 where most of the 5 nearest training images are right, shape (n_images,)."""
    nearest = [ranking.nearest for ranking in rankings(test, train, k=K_VOTE)]
    return [
        np.array([vote_is_right(of_train[near], int(label)) for near, label in zip(nearest, of_test, strict=True)])
        for of_test, of_train in zip(test.labels, train.labels, strict=True)
    ]


def linear_probe(
    train: Floats, train_labels: IntArray, validation: Floats | None, validation_labels: IntArray | None
) -> tuple[StandardScaler, LogisticRegression]:
    """Multinomial logistic regression on standardised embeddings (scikit-learn); the penalty is chosen on validation.

    Without validation images it is scikit-learn's default of 1.
    """
    scaler = StandardScaler().fit(train)
    features = scaler.transform(train)
    penalties = PENALTIES if validation is not None else (1.0,)
    models = [LogisticRegression(C=penalty, max_iter=3000).fit(features, train_labels) for penalty in penalties]
    if validation is None or validation_labels is None:
        return scaler, models[0]
    held_out = scaler.transform(validation)
    return scaler, max(models, key=lambda model: float(model.score(held_out, validation_labels)))


def few_shot(
    train: Floats,
    train_fine: IntArray,
    test: Floats,
    test_fine: IntArray,
    taxonomy: Taxonomy,
    shots: int,
    *,
    n_draws: int,
    rng: np.random.Generator,
) -> list[FloatArray]:
    """For each level, coarse first: how often each test image is right from `shots` pictures a condition.

    Each draw takes that many training pictures of every condition that has them; a test image goes to the condition
    whose mean picture has the highest cosine (a prototype classifier: Snell et al. 2017, arXiv 1703.05175, on frozen
    embeddings). Shares over the draws, shape (n_images,), nan for images whose condition has too few pictures.
    """
    members = {number: np.flatnonzero(train_fine == number) for number in np.unique(train_fine)}
    known = np.array([number for number, rows in members.items() if len(rows) >= shots], dtype=np.int64)
    eligible = np.isin(test_fine, known)
    hits = [np.full(len(test), np.nan) for _ in range(taxonomy.n_levels)]
    if len(known) < 2 or not eligible.any():
        return hits
    for of_level in hits:
        of_level[eligible] = 0.0
    for _ in range(n_draws):
        chosen = [rng.choice(members[number], shots, replace=False) for number in known]
        prototypes = unit_length(np.stack([train[rows].mean(axis=0) for rows in chosen]))
        predicted = known[(test[eligible] @ prototypes.T).argmax(axis=1)]
        for level, of_level in enumerate(hits):
            right = taxonomy.to_level(predicted, level) == taxonomy.to_level(test_fine[eligible], level)
            of_level[eligible] += right / n_draws
    return hits
