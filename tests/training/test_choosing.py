from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hierderm.config.loading import with_overrides
from hierderm.config.methods import ClosedForm, Gradient, Lda, Loss, TreeLda, Vanilla
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.errors import ConfigError
from hierderm.experiment.run import prepare, train
from hierderm.taxonomy.tree import taxonomy_from_paths
from hierderm.training.choosing import require_levels, with_usable_monitor
from hierderm.training.frozen import best_of

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")


def table(*validation: tuple[str, int], train: tuple[tuple[str, int], ...] = (("t", 0), ("u", 4))) -> CaseTable:
    """Rows of (case, condition) of validation and of training."""
    rows = [*((*row, "validation") for row in validation), *((*row, "train") for row in train)]
    frame = pd.DataFrame(rows, columns=["case_id", "fine", "split"])
    return CaseTable(frame.assign(condition=[f"F{fine}" for fine in frame["fine"]]), TREE, Path())


BOTH = table(("a", 0), ("b", 0), ("c", 4), ("d", 4))
COARSE = table(("a", 0), ("b", 1), ("c", 4), ("d", 5))  # one case a condition
ONE_CATEGORY = table(("a", 0), ("b", 0), ("c", 1), ("d", 1))
ONE_CONDITION = table(("a", 0), ("b", 0))
ALONE = table(("a", 0), ("a", 0), ("b", 4))


@pytest.mark.parametrize(
    ("data", "wanted", "used"),
    [
        (BOTH, "mean_map_at_r", "mean_map_at_r"),
        (BOTH, "mean_retrieval", "mean_retrieval"),
        (COARSE, "mean_retrieval", "coarse_map_at_r"),
        (BOTH, "coarse_map_at_r", "coarse_map_at_r"),
        (COARSE, "mean_map_at_r", "coarse_map_at_r"),
        (COARSE, "fine_map_at_r", "coarse_map_at_r"),
        (ONE_CATEGORY, "mean_map_at_r", "mean_map_at_r"),  # its coarse part is 1 for all
        (ONE_CATEGORY, "coarse_map_at_r", "fine_map_at_r"),
    ],
)
def test_the_score_that_can_tell(data: CaseTable, wanted: str, used: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert with_usable_monitor(Gradient(monitor=wanted), data).monitor == used  # type: ignore[arg-type]
    assert (f"Chosen by {used} instead of {wanted}" in caplog.text) == (used != wanted)


def test_every_unknown_level_is_named_before_anything_slow(toy_config: Config, tmp_path: Path) -> None:
    loss = Loss(contrastive_levels={"category": 1.0, "body": 1.0}, classification_level="condition")
    settings = Gradient(loss=loss, closed_form=ClosedForm(probability_levels={"conditions": 1.0}))
    wanted = (
        "levels must be of taxonomy 't', coarse, fine, category, condition: training.closed_form.probability_levels "
        "names 'conditions'; training.loss.contrastive_levels names 'body'."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(wanted)}$"):
        require_levels({"training": settings}, TREE)
    with pytest.raises(ConfigError, match=f"^{re.escape(wanted)}$"):
        train(replace(toy_config, training=settings), BOTH, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # it stays free for the settings that were meant
    require_levels({"training": Gradient(), "other": Vanilla()}, TREE)


@pytest.mark.parametrize("data", [ONE_CONDITION, ALONE])
def test_nothing_to_choose_by_stops(data: CaseTable) -> None:
    with pytest.raises(ConfigError, match=r"able to choose, by mean_retrieval: of its \d images none has another case"):
        with_usable_monitor(Lda(), data)
    assert with_usable_monitor(Vanilla(), data) == Vanilla()  # chooses nothing
    with_parts = table(("a", 0), train=(("t", 0), ("u", 0), ("v", 4), ("w", 4)))
    assert with_usable_monitor(TreeLda(folds=2), with_parts) == TreeLda(folds=2)  # by parts of training


def test_an_undefined_score_is_never_the_best() -> None:
    scores = [float("nan"), 0.2, 0.5, float("nan")]
    _, history, chosen = best_of([({"score": score}, None) for score in scores], "score")  # type: ignore[misc]
    assert chosen == 2 and len(history) == 4
    with pytest.raises(ConfigError, match="no setting has a defined score"):
        best_of([({"score": float("nan")}, None)], "score")  # type: ignore[list-item]


@pytest.mark.parametrize("method", ["gradient", "lda", "tree_lda"])
def test_training_with_one_case_a_condition_in_validation(
    toy_config: Config, tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The embedding that is best at the level that is defined wins, and the run, its card and its folder say so."""
    quick = {"lda": {"training.views": 1}, "tree_lda": {"training.views": 0, "training.folds": 0}}
    config = with_overrides(toy_config, {"training.method": method, **quick.get(method, {})})
    whole, _ = prepare(config.data, config.split, tmp_path / "data")
    cases = whole.frame.drop_duplicates("case_id")
    kept = cases[cases["split"] == "validation"].drop_duplicates("condition")["case_id"]
    rows = (whole.splits != "validation") | whole.frame["case_id"].isin(kept).to_numpy()
    with caplog.at_level(logging.INFO):
        run = train(config, whole.select(rows), tmp_path / "run")
    assert "Chosen by coarse_map_at_r instead of mean_retrieval" in caplog.text
    assert "have another case of their node: " in caplog.text and ", 0 for conditions" in caplog.text.replace(
        "categories, 0", ", 0"
    )
    assert run.by == "coarse_map_at_r" and np.isnan(run.history["fine_map_at_r"]).all()
    by = "held_out" if method == "tree_lda" else "coarse_map_at_r"
    if method != "gradient":  # of whose epochs only those with all losses in force can be chosen
        assert run.history[by][run.chosen] == run.history[by].max()
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "by coarse_map_at_r on validation" in card and "fine undefined; recall@1 coarse 0." in card
    assert re.search(r"images that have another case to find: coarse \d+, fine 0 of \d+ \|", card)
