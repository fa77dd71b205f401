"""The closed form on the tree as an estimator of scikit-learn: a transformer and a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from hierderm.errors import TaxonomyError
from hierderm.taxonomy.file import load_taxonomy
from hierderm.taxonomy.nodes import Node
from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths
from hierderm.training.tree_analysis import TreeAnalysis
from hierderm.types import FloatArray


class TreeEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Discriminants of the tree and node probabilities of any features, in closed form.

    `transform` gives embeddings whose cosine is near where images are of one node (`hierderm.training.tree_analysis`);
    `predict` and `predict_proba` the conditions, from the same means and covariance. It takes one setting of each kind:
    choose them with `GridSearchCV`, grouped by case. It standardises features itself.

    Args:
        taxonomy: Where the labels stand: a Taxonomy, the id or file of one, or a mapping from each label to its
            category, or to its path from the top ('Eczemas', or ('inflammatory', 'Eczemas')). None: without a tree.
        shrinkage: Of the covariance within conditions towards a sphere, in [0, 1].
        decay: Weight of each level relative to the one above, >= 0; 1 is flat.
        strength: Images that the parent's mean counts for when the mean of a condition is shrunk towards it, >= 0.
        probability_share: Of the node probabilities in the cosine of two embeddings, in [0, 1).
        probability_temperature: By which the logits of these are divided, > 0; above 1 they are less sure.
        components: More features than this are first reduced to as many principal components.

    Attributes:
        classes_: The labels that were seen.
        taxonomy_: The tree of these; its conditions are in the order of `classes_`, called by their texts.
        discriminants_: What was learnt (`hierderm.model.heads.Discriminants`).
        n_features_in_: Number of features.

    Examples:
        >>> import numpy as np
        >>> from hierderm import TreeEmbedding
        >>> features = np.random.default_rng(0).normal(size=(60, 4)) + np.repeat(4 * np.eye(4)[:3], 20, axis=0)
        >>> labels = np.repeat(["Atopic dermatitis", "Contact dermatitis", "Impetigo"], 20)
        >>> groups = {"Atopic dermatitis": "Eczemas", "Contact dermatitis": "Eczemas", "Impetigo": "Infections"}
        >>> model = TreeEmbedding(groups).fit(features, labels)
        >>> model.transform(features).shape, str(model.predict(features[-1:])[0])
        ((60, 10), 'Impetigo')
    """

    def __init__(
        self,
        taxonomy: Taxonomy | str | Mapping[Any, Any] | None = None,
        *,
        shrinkage: float = 0.15,
        decay: float = 1.0,
        strength: float = 3.0,
        probability_share: float = 0.2,
        probability_temperature: float = 2.0,
        components: int = 2048,
    ) -> None:
        self.taxonomy = taxonomy
        self.shrinkage = shrinkage
        self.decay = decay
        self.strength = strength
        self.probability_share = probability_share
        self.probability_temperature = probability_temperature
        self.components = components

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> TreeEmbedding:
        """Learn from features and labels.

        Args:
            X: Features, shape (n_images, n_features).
            y: Labels, shape (n_images,).

        Returns:
            The estimator itself.

        Raises:
            ValueError: Arrays that do not fit, labels of one class alone, or a setting outside its range.
            TaxonomyError: A label is not in the tree.
        """
        self._require_ranges()
        features, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have labels of at least two classes, got 1 class: {self.classes_[0]!r}.")
        self.taxonomy_, place = _tree_of(self.classes_, self.taxonomy)
        analysis = TreeAnalysis(features, place[numbers], self.taxonomy_, components=self.components)
        found = analysis.fit(
            shrinkage=self.shrinkage,
            decay=self.decay,
            strength=self.strength,
            probability_share=self.probability_share,
            probability_temperature=self.probability_temperature,
        )
        self.discriminants_, self._place = found, place
        self._n_features_out = len(found.weight) + found.membership.shape[1]
        return self

    def transform(self, X: npt.ArrayLike) -> FloatArray:
        """Embed features.

        Args:
            X: Features, shape (n_images, n_features).

        Returns:
            Vectors of unit length, shape (n_images, n_embedding).
        """
        features = self._checked(X)  # first: it says that it is not fitted
        return np.asarray(self.discriminants_.embed(features))

    def predict_proba(self, X: npt.ArrayLike) -> FloatArray:
        """Classify features.

        Args:
            X: Features, shape (n_images, n_features).

        Returns:
            Probabilities of `classes_`, shape (n_images, n_classes), rows summing to 1.
        """
        features = self._checked(X)
        found = self.discriminants_
        return np.asarray(softmax(found.scale * found.logits(features), axis=1)[:, self._place])

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Classify features, and take the first.

        Args:
            X: Features, shape (n_images, n_features).

        Returns:
            The most probable label of each row, shape (n_images,).
        """
        numbers = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[numbers])

    def _require_ranges(self) -> None:
        fits = (
            0 <= self.shrinkage <= 1
            and 0 <= self.decay < np.inf
            and 0 <= self.strength < np.inf
            and 0 <= self.probability_share < 1
            and 0 < self.probability_temperature < np.inf
            and self.components >= 1
        )
        if not fits:
            got = {name: value for name, value in self.get_params().items() if name != "taxonomy"}
            raise ValueError(
                "TreeEmbedding must have a shrinkage in [0, 1], a decay and a strength >= 0, a probability_share in "
                f"[0, 1), a probability_temperature > 0 and components >= 1, got {got}."
            )

    def _checked(self, X: npt.ArrayLike) -> FloatArray:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=[np.float64, np.float32], reset=False), dtype=np.float64)


def _tree_of(
    classes: npt.NDArray[Any], given: Taxonomy | str | Mapping[Any, Any] | None
) -> tuple[Taxonomy, npt.NDArray[np.int64]]:
    """The tree of some labels, and the number of the condition of each, shape (n_classes,)."""
    names = [str(label) for label in classes]
    if given is None:  # any labels, such as 'a' and 'A'
        nodes = tuple(Node(f"class {number}") for number in range(len(classes)))
        return Taxonomy("labels", "1", ("condition",), (nodes,)), np.arange(len(classes))
    if isinstance(given, Mapping):
        missing = [name for label, name in zip(classes, names, strict=True) if label not in given]
        if missing:
            raise TaxonomyError(f"taxonomy must have the category of every label in y, it lacks {missing[:5]}.")
        above = [given[label] for label in classes]
        paths = [[*map(str, path if isinstance(path, tuple | list) else (path,))] for path in above]
        depths = {len(path) for path in paths}
        if len(depths) > 1:
            raise TaxonomyError(f"taxonomy must have paths of one length, got lengths {sorted(depths)}.")
        levels = ["category"] if depths == {1} else [f"level {number}" for number in range(1, depths.pop() + 1)]
        whole = [[*path, name] for path, name in zip(paths, names, strict=True)]
        tree = taxonomy_from_paths(whole, [*levels, "condition"], id="labels")
    else:
        tree = given if isinstance(given, Taxonomy) else load_taxonomy(given)
    place = tree.encode(names)
    twice = [name for number, name in enumerate(names) if (place == place[number]).sum() > 1]
    if twice:
        raise TaxonomyError(f"each label must be a condition of its own, {twice[:5]} name the same ones. Use one name.")
    kept = tree.keep(names)
    return kept, kept.encode(names)
