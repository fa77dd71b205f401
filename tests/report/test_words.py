from __future__ import annotations

import numpy as np

from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.evaluation.inference.differences import Difference, paired_difference
from hierderm.report.words import certainty_sentence, focus_sentences, headline_sentences, verdict

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


def test_the_leader_and_what_is_not_resolved() -> None:
    coarse, fine = headline_sentences([VANILLA, FLAT, TREE], 0.95)
    assert coarse == "coarse AMI: tree leads with 0.500; it is better than vanilla and flat beyond the interval."
    assert fine.startswith("fine AMI: vanilla leads with 0.500; it is better than flat and tree beyond the interval.")
    alone = headline_sentences([FLAT, TREE], 0.95)[1]
    assert alone.startswith("fine AMI: flat leads with 0.301; its lead over tree (+0.001, -0.0")
    assert alone.endswith("is not resolved.")


def test_the_focus_against_each_rival() -> None:
    keys = [("coarse", "ami"), ("fine", "ami")]
    found = [paired_difference(TREE, other, key, 0.95) for other in (FLAT, VANILLA) for key in keys]
    differences = [difference for difference in found if difference is not None]
    against_flat, against_vanilla = focus_sentences(differences)
    assert against_flat.startswith("tree against flat: better in coarse AMI (+0.100, ")
    assert "not told apart in fine AMI (-0.001" in against_flat
    assert "worse in fine AMI (-0.200" in against_vanilla
    assert verdict([VANILLA, FLAT, TREE], differences) == (
        "Of 2 headline figures vanilla leads 1 and tree leads 1; counting only what the intervals resolve, "
        "tree stands 1 to 0 against flat and 1 to 1 against vanilla."
    )


def test_how_much_holds_for_all_comparisons_together() -> None:
    def found(*p_adjusted: float) -> str:
        resolved = [Difference("coarse", "ami", "tree", "flat", 0.1, 0.05, 0.2, p, p) for p in p_adjusted]
        open_ = Difference("fine", "ami", "tree", "flat", 0.0, -0.1, 0.1, 0.9, 0.9)
        return certainty_sentence([*resolved, open_])

    assert "intervals resolve 1; it holds when all 2 are allowed for" in found(0.01)
    assert "intervals resolve 2; all of them hold when all 3 are" in found(0.01, 0.02)
    assert "intervals resolve 2; 1 holds when all 3 are" in found(0.01, 0.3)
    assert "intervals resolve 1; none hold when all 2 are" in found(0.3)
    assert found().endswith("the test is too small, or the models too alike, to tell them apart.")
