from __future__ import annotations

from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config, ModelEntry
from hierderm.evaluation.evaluation import Evaluation
from hierderm.report.methods import methods
from hierderm.report.rows import Row


def models_paragraph(config: Config, *entries: ModelEntry) -> str:
    nothing = Evaluation("m", (), (), 0, 0, {})
    rows = [Row(entry, nothing, None, None, 0.0) for entry in entries]  # type: ignore[arg-type]  # no pictures are read
    return dict(methods(config, rows))["Models"]


def test_views_are_named_where_they_are_learnt_from() -> None:
    config = with_overrides(Config(), {"training.views": 3})
    said = ", with 3 augmented views of each training picture."
    assert models_paragraph(config, ModelEntry(name="tree")).endswith(said)
    assert models_paragraph(config, ModelEntry(name="lda", method="lda")).endswith(said)
    assert "views" not in models_paragraph(config, ModelEntry(name="vanilla", method="vanilla"))
    own = ModelEntry(name="lda", method="lda", set={"training.views": 0})
    assert "views" not in models_paragraph(config, own)


def test_the_control_and_a_single_level_are_named() -> None:
    control = ModelEntry(name="random", set={"tree_lda.shuffle": True})
    assert "conditions have changed places in the tree by chance, as a control" in models_paragraph(Config(), control)
    flat = ModelEntry(name="flat", set={"tree_lda.belief_levels": ["fine"]})
    assert "belief in the fine level of" in models_paragraph(Config(), flat)
