"""The bridge, with the installed MTEB: its evaluation of our model and data, beside our own values."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hierderm.data.table import CaseTable
from hierderm.embeddings import unit_length
from hierderm.errors import CaseTableError, MissingExtraError, ModelError

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of MTEB and datasets
    pytest.mark.skipif(not find_spec("mteb"), reason="pip install 'hierderm[mteb]'"),
]


class MeanColour:
    """A model without weights."""

    def encode(self, images: list[Any], /) -> np.ndarray:
        small = [np.asarray(image.convert("RGB").resize((2, 2)), dtype=np.float32).ravel() for image in images]
        return np.stack(small) + 1


def scores(task: Any) -> dict[str, float]:
    import mteb  # takes seconds, which only these tests shall wait for

    from hierderm.mteb import MtebEncoder

    result = mteb.evaluate(MtebEncoder(MeanColour()), [task], cache=None, show_progress_bar=False)
    (found,) = result.task_results
    row: dict[str, float] = dict(found.scores["test"][0])
    return row


@pytest.mark.parametrize("level", ["coarse", "tree"])
def test_retrieval_is_that_of_our_vectors(toy: CaseTable, level: str) -> None:
    from hierderm.mteb import retrieval_task

    found = scores(retrieval_task(toy, level, name=f"Toy-{level}"))
    vectors = unit_length(MeanColour().encode([Image.open(path) for path in toy.paths]))
    test = toy.splits == "test"
    similarity = vectors[test] @ vectors[~test].T
    order = np.argsort(-similarity, axis=1, kind="stable")
    levels = range(2) if level == "tree" else [0]
    depth = np.sum([np.equal.outer(toy.labels(n)[test], toy.labels(n)[~test]) for n in levels], axis=0)
    ranked = np.take_along_axis(depth, order, axis=1)
    assert found["precision_at_1"] == pytest.approx((ranked[:, 0] > 0).mean(), abs=1e-4)
    discount = 1 / np.log2(np.arange(2, 12))
    best = -np.sort(-depth, axis=1)[:, :10]
    assert found["ndcg_at_10"] == pytest.approx(np.mean(ranked[:, :10] @ discount / (best @ discount)), abs=1e-4)


def test_clusters_of_the_test_images(toy: CaseTable) -> None:
    from hierderm.mteb import clustering_task

    task = clustering_task(toy, "fine")
    task.load_data()
    assert task.dataset is not None and task.dataset["test"]["label"] == toy.fine[toy.splits == "test"].tolist()
    assert 0 < scores(task)["nmi"] < 1


def test_what_a_model_is_given(small_siglip: Any) -> None:
    """Images and texts in batches, as MTEB's loaders give them; another mixture is refused."""
    import mteb

    from hierderm.mteb import MtebEncoder

    model = MtebEncoder(f"hf:{small_siglip}")
    assert isinstance(model, mteb.EncoderProtocol) and model.mteb_model_meta.name.startswith("hierderm/")
    images = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    vectors = model.encode([{"image": images}, {"image": images[:1]}], task_metadata=None)
    np.testing.assert_allclose(vectors, model.model.encode([*images, images[0]]), atol=1e-5)
    assert model.encode([{"text": ["red papule"]}]).shape == (1, vectors.shape[1])
    with pytest.raises(ModelError, match=r"must be an image or a text, got \['image', 'text'\]"):
        model.encode([{"image": images, "text": ["a", "b"]}])
    with pytest.raises(ModelError, match="embeds images only"):
        MtebEncoder(MeanColour()).encode([{"text": ["a"]}])


def test_a_case_on_both_sides_is_refused(toy: CaseTable) -> None:
    from hierderm.mteb import retrieval_task

    frame = toy.frame.copy()
    frame["case_id"] = "one"
    with pytest.raises(CaseTableError, match=r"must be on one side of the split, \['one'\] are on both"):
        retrieval_task(replace(toy, frame=frame))
    with pytest.raises(CaseTableError, match="needs a split"):
        retrieval_task(replace(toy, frame=toy.frame.drop(columns="split")))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.delitem(sys.modules, "hierderm.mteb", raising=False)
    with pytest.raises(MissingExtraError, match=r"hierderm.mteb needs .* pip install 'hierderm\[mteb\]'"):
        import hierderm.mteb  # noqa: F401
