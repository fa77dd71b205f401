from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from hierderm.config.loading import build_comparison, entries_of, model_config
from hierderm.config.methods import METHODS, ClosedForm, Gradient, Lda, LinearProbe, Loss, Method, TreeLda, Vanilla
from hierderm.evaluation.evaluation import Evaluation
from hierderm.report.methods import describe_method, methods
from hierderm.report.rows import Row, chosen_setting


def paragraphs(content: dict[str, Any]) -> dict[str, str]:
    comparison = build_comparison(content)
    nothing, history = Evaluation("m", (), (), 0, 0, {}), pd.DataFrame()
    configs = [(entry, model_config(comparison, entry)) for entry in entries_of(comparison)]
    rows = [
        Row(entry, config, nothing, None, history, 0, getattr(config.training, "monitor", ""), 0.0)  # type: ignore[arg-type]  # no images are read
        for entry, config in configs
    ]
    return dict(methods(comparison, rows))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_described(method: str) -> None:
    assert len(describe_method(METHODS[method]())) > 30


def test_views_are_named_where_they_are_learnt_from() -> None:
    views = ", with 3 augmented views of each training image"
    assert all(describe_method(kind(views=3)).endswith(views) for kind in (TreeLda, Lda, LinearProbe))
    assert views in describe_method(Gradient(views=3))
    without: list[Method] = [Vanilla(), Lda(views=0), Gradient(init="random", freeze="full")]
    assert not any("views" in describe_method(settings) for settings in without)


def test_the_control_and_a_single_level_are_named() -> None:
    assert "as a control the conditions are assigned to categories at random" in describe_method(TreeLda(shuffle=True))
    flat = TreeLda(probability_levels={"fine": 1.0})
    assert "a share of the node probabilities (fine 1, temperature 2) of 0.1, " in describe_method(flat)
    assert "a share of the node probabilities of 0, with" in describe_method(TreeLda(probability_shares=(0.0,)))


def test_losses_are_named_with_their_levels_and_weights() -> None:
    loss = Loss(contrastive_levels={"coarse": 2.0, "fine": 0.0}, schedule="coarse_then_fine")
    assert describe_method(Gradient(loss=loss, init="random", freeze="lora")) == (
        "SupCon on the coarse level (weight 2) and CrossEntropy on the fine level (weight 1), the second faded in over "
        "the first 30% of the epochs; of the backbone, LoRA adapters of rank 8 learn; features: layers"
    )


def test_the_start_is_named() -> None:
    assert describe_method(Gradient(views=0, closed_form=ClosedForm(strengths=(0.0,), folds=0))) == (
        "SupCon on the coarse level (weight 1) and the fine level (weight 1) and CrossEntropy on the fine level "
        "(weight 1), starting as discriminants of the tree and node probabilities, in closed form on frozen features, the "
        "best on validation with a shrinkage of 0.05, 0.15, 0.4, a decay of 1, a strength of 0, a share of the node "
        "probabilities (coarse 0.7, fine 0.3, temperature 2) of 0.1, 0.2, 0.35, 0.5, 0.65, 0.8; of the backbone, nothing learns; features: layers"
    )


def test_training_says_what_was_chosen_how_and_how_often() -> None:
    several = {
        "models": [
            {"name": "v", "method": "vanilla"},
            {"name": "t", "set": {"training.monitor": "coarse_map_at_r"}},
            {"name": "g", "method": "gradient", "set": {"training.batch_size": 0}},
        ],
        "protocol": {"seeds": 3},
    }
    training = paragraphs(several)["Training"]
    assert "chosen by coarse MAP@R or the mean of MAP@R and recall@1 of both levels on validation." in training
    assert "AdamW, 10 epochs at most in one batch; learning rate 0.001 for heads, weight decay 0.05." in training
    assert training.endswith("Each was trained 3 times with other seeds.")
    alone = paragraphs({"models": several["models"][:1]})  # type: ignore[index]
    assert "AdamW" not in alone["Training"] and "chosen" not in alone["Training"]
    assert alone["Models"] == "v: the backbone's own output, nothing learnt."


def test_the_chosen_setting_in_words() -> None:
    history = pd.DataFrame(
        {"features": ["layers"], "probability_share": [0.1], "held_out": [0.5], "fine_recall_at_1": [1]}
    )
    assert chosen_setting(history, 0) == "features layers, probability share 0.1"
    assert chosen_setting(pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.0]}), 1) == "epoch 2"
    assert chosen_setting(pd.DataFrame({"mean_map_at_r": [0.1]}), 0) == ""
