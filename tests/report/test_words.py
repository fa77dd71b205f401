from __future__ import annotations

from pathlib import Path

import numpy as np

from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.evaluation.inference.differences import Difference, paired_difference
from hierderm.evaluation.inference.groups import Gap
from hierderm.report.words import (
    calibration_sentences,
    collapse_sentences,
    focus_sentences,
    gap_sentence,
    leader_sentences,
    outcome_sentence,
    report_title,
    short_standing,
    significance_sentence,
    slug,
    standing_sentence,
    summarise,
    warning_sentences,
)

ROUNDS = np.random.default_rng(0).normal(0, 0.01, 200)


def evaluation(name: str, coarse: float, fine: float) -> Evaluation:
    values = {("coarse", "ami"): coarse, ("fine", "ami"): fine}
    metrics = tuple(Metric(*key, value, value - 0.02, value + 0.02, 50) for key, value in values.items())
    return Evaluation(
        name,
        metrics,
        (),
        50,
        30,
        {key: ROUNDS + value + np.roll(ROUNDS, ord(name[0])) for key, value in values.items()},
        {},
        np.arange(50).astype(str),
    )


TREE, FLAT, VANILLA = evaluation("tree", 0.50, 0.30), evaluation("flat", 0.40, 0.301), evaluation("vanilla", 0.20, 0.50)


def differences() -> list[Difference]:
    keys = [("coarse", "ami"), ("fine", "ami")]
    found = [paired_difference(TREE, other, key, 0.95) for other in (FLAT, VANILLA) for key in keys]
    return [difference for difference in found if difference is not None]


def test_the_best_model_of_each_metric() -> None:
    coarse, fine = leader_sentences([VANILLA, FLAT, TREE], 0.95)
    excluded = "(95% intervals of the differences exclude 0)."
    assert coarse == f"coarse AMI: tree leads with 0.500; better than vanilla and flat {excluded}"
    assert fine == f"fine AMI: vanilla leads with 0.500; better than flat and tree {excluded}"
    alone = leader_sentences([FLAT, TREE], 0.95)[1]
    assert alone.startswith("fine AMI: flat leads with 0.301; no significant difference from tree (+0.001, -0.0")


def test_the_focus_against_each_other_model() -> None:
    against_flat, against_vanilla = focus_sentences(differences())
    assert against_flat.startswith("tree against flat: better in coarse AMI (+0.100, ")
    assert "; no significant difference in fine AMI (-0.001" in against_flat
    assert "; worse in fine AMI (-0.200" in against_vanilla


def test_the_outcome_in_numbers_of_metrics() -> None:
    models = [VANILLA, FLAT, TREE]
    assert outcome_sentence(models) == "vanilla has the best value in 1 of 2 main metrics and tree in 1."
    assert standing_sentence(differences()) == (
        "tree is significantly better than flat in 1 of 2 and vanilla in 1 of 2 main metrics; "
        "significantly worse than vanilla in 1 of 2 main metrics."
    )
    alike = [d for d in differences() if (d.reference, d.level) == ("flat", "fine")]
    assert standing_sentence(alike) == "tree is not significantly different from flat in any main metric."
    assert summarise(models, differences(), 0.95).sentences[:2] == [
        "vanilla has the best value in 1 of 2 main metrics and tree in 1; tree is significantly better than flat and "
        "vanilla in 1 of them and worse than vanilla in 1 of them.",
        standing_sentence(differences()),
    ]
    assert short_standing(alike) == "tree is not significantly different from any other model"
    twice = [Difference(level, "ami", "tree", "flat", 0.1, 0.05, 0.2) for level in ("coarse", "fine")]
    assert short_standing([*twice, differences()[2]]) == (
        "tree is significantly better than flat and vanilla in 1 to 2 of them"
    )
    many = [Difference("fine", "ami", "tree", f"m{k}", 0.1, 0.05 if k else -0.1, 0.2) for k in range(8)]
    assert short_standing(many) == "tree is significantly better than 7 of 8 other models in 1 of them"
    assert summarise([TREE], [], 0.95).sentences == [
        "There is nothing to compare: a comparison needs two models with main metrics."
    ]


def test_how_many_differences_remain_after_correction() -> None:
    def found(*p_adjusted: float) -> str:
        significant = [Difference("coarse", "ami", "tree", "flat", 0.1, 0.05, 0.2, p, p) for p in p_adjusted]
        open_ = Difference("fine", "ami", "tree", "flat", 0.0, -0.1, 0.1, 0.9, 0.9)
        return significance_sentence([*significant, open_], 0.95)

    assert found(0.01) == (
        "Significant differences between tree and the other models: 1 of 2 (95% interval excludes 0), 1 after Holm's "
        "correction (adjusted p < 0.05): coarse AMI against flat (p = 0.010)."
    )
    assert "2 of 3 (95% interval excludes 0), 1 after Holm's" in found(0.01, 0.3)
    assert "1 of 2 (95% interval excludes 0), 0 after Holm's correction (adjusted p < 0.05)." in found(0.3)
    assert found(*[0.01] * 9).endswith("(p = 0.010) and 3 more.")
    assert "models: 0 of 1 (95%" in found()


def test_calibration_of_a_model() -> None:
    answers = {
        "by_level": [
            {"level": "coarse", "answered": 20, "wrong": 3, "why_never": ""},
            {"level": "fine", "answered": 0, "wrong": 0, "why_never": "20 cases are too few"},
        ],
        "n_validation": 20,
        "temperature": 1.5,
    }
    conformal = {
        "fine": [
            {"category": "a", "n_images": 30, "coverage": 0.9},
            {"category": "b", "n_images": 20, "coverage": 0.7},
        ]
    }
    errors = {
        ("coarse", "ece"): 0.1, ("coarse", "ece_scaled"): 0.05, ("fine", "ece"): 0.219, ("fine", "ece_scaled"): 0.25,
    }  # fmt: skip
    metrics = (
        Metric("fine", "conformal_coverage", 0.82, 0.78, 0.86, 50),
        Metric("fine", "conformal_size", 3.14, 3.0, 3.3, 50),
        Metric("fine", "top1_accuracy", 0.78, 0.7, 0.8, 50),
        *(Metric(*key, value, value, value, 50) for key, value in errors.items()),
    )
    classifier = Evaluation("m", metrics, (), 50, 30, {}, details={"answers": answers, "conformal": conformal})
    assert calibration_sentences(classifier, 0.2, 0.9) == [
        "A temperature of 1.50, learnt on 20 validation cases, changes the expected calibration error from 0.100 to "
        "0.050 at the coarse level and from 0.219 to 0.250 at the fine level. It is worse at the fine level: the "
        "temperature makes the fine classes of validation most likely, which does not bind the error on the test.",
        "40% of the test images are answered at the coarse level, with an error of 15% (3 of 20; target: at most 20%).",
        "No test image is answered at the fine level (target error: at most 20%): 20 cases are too few. More validation "
        "cases may allow answers. Of all predictions there 78% are right.",
        "Conformal sets at the fine level contain the true class of 82% of the test images (78% to 86%; nominal 90%), "
        "with 3.1 classes on average; the lowest coverage is 70%, for b (20 images).",
    ]
    assert calibration_sentences(TREE, 0.2, 0.9) == []
    assert (
        "The 20 validation cases are too few for conformal sets of coverage 96%: every set contains all classes."
        in calibration_sentences(classifier, 0.2, 0.96)
    )


def test_tighter_clusters_that_are_no_improvement_are_named() -> None:
    def model(name: str, silhouette: float, ami: float) -> Evaluation:
        metrics = [Metric("coarse", n, v, v, v, 9) for n, v in (("cluster_silhouette", silhouette), ("ami", ami))]
        return Evaluation(name, tuple(metrics), (), 9, 9, {})

    first, collapsed, better = model("vanilla", 0.03, 0.3), model("tight", 0.23, 0.25), model("good", 0.2, 0.4)
    assert collapse_sentences([first, collapsed, better]) == [
        "tight: the coarse clusters are tighter than those of vanilla (silhouette 0.230 against 0.030) but do not agree "
        "better with the labels (AMI 0.250 against 0.300): this is no improvement."
    ]


def test_a_warning_is_said_once_with_the_models_it_holds_for() -> None:
    found = {"a": ("all alike.", "twins."), "b": ("all alike.",), "c": ("all alike.", "twins.", "twins.")}
    assert warning_sentences(found) == ["all 3 models: all alike.", "a and c: twins."]
    assert warning_sentences({"a": ("twins.",)}) == ["a: twins."] and warning_sentences({"a": ()}) == []


def test_a_title_says_what_is_in_the_report(tmp_path: Path) -> None:
    assert report_title(["a", "b", "c"], "synthetic:demo") == "3 models on built-in data demo"
    assert report_title(["a"], str(tmp_path / "skin.csv")) == "a on skin.csv"
    assert report_title(["a", "b"], "ham10000:/data/of/me") == "2 models on ham10000"
    assert slug("built-in data demo 3 models/ä*") == "built-in-data-demo-3-models-ä"


def test_a_gap_that_was_not_tested_has_no_p_value() -> None:
    untested = Gap("monk", "fine", "map_at_r", "7-10", "1-3", 0.1, -0.05, 0.25, float("nan"))
    assert gap_sentence(untested) == "fine MAP@R: worst in 7-10, best in 1-3; gap 0.100 (-0.050 to 0.250)."


def test_a_best_value_that_models_share_is_no_ones_alone() -> None:
    alike = [evaluation(name, 1.0, 0.3) for name in ("a", "b")]
    assert outcome_sentence(alike) == (
        "b has the best value in 2 of 2 main metrics and a in 2 (a value that several models share counts for each)."
    )
    assert leader_sentences(alike, 0.95)[0].startswith("coarse AMI: a and b share 1.000; no significant difference")
    assert outcome_sentence([evaluation("a", np.nan, np.nan)]) == "No main metric is defined for any model."


def test_what_was_not_tested_is_not_called_insignificant() -> None:
    untested = [Difference("coarse", "ami", "tree", "flat", 0.1, np.nan, np.nan, np.nan, np.nan)]
    assert summarise([FLAT, TREE], untested, 0.95).sentences == [
        outcome_sentence([FLAT, TREE]),
        "No difference was tested: evaluation.bootstrap_rounds is 0.",
    ]
    assert "nan" not in gap_sentence(Gap("monk", "fine", "map_at_r", "7-10", "1-3", 0.1, *[np.nan] * 3))
