"""The summary in words: who wins, by how much, and how certain that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierderm.evaluation.catalogue import HEADLINES, Key, metric_name
from hierderm.evaluation.evaluation import Evaluation
from hierderm.evaluation.inference.differences import Difference, paired_difference


def verdict(evaluations: Sequence[Evaluation], differences: Sequence[Difference]) -> str:
    """One sentence: who leads how many headline figures, and how the focus model stands against each other one."""
    leaders = [_leader(evaluations, key).model for key in HEADLINES if _scored(evaluations, key)]
    counts = sorted(((leaders.count(model), model) for model in set(leaders)), reverse=True)
    text = f"Of {len(leaders)} headline figures {_list(f'{model} leads {count}' for count, model in counts)}"
    standings = []
    for reference in dict.fromkeys(d.reference for d in differences):
        against = [d for d in differences if d.reference == reference]
        wins = sum(d.better for d in against)
        losses = sum(d.worse for d in against)
        standings.append(f"{wins} to {losses} against {reference}")
    if standings:
        text += f"; counting only what the intervals resolve, {differences[0].model} stands {_list(standings)}"
    return f"{text}."


def _scored(evaluations: Sequence[Evaluation], key: Key) -> list[Evaluation]:
    return [e for e in evaluations if e.get(key) is not None and not np.isnan(e[key].value)]


def _leader(evaluations: Sequence[Evaluation], key: Key) -> Evaluation:
    return max(_scored(evaluations, key), key=lambda e: e[key].value)


def headline_sentences(evaluations: Sequence[Evaluation], confidence: float) -> list[str]:
    """For each headline metric one sentence: the leader, whom it beats beyond doubt, and whom it does not."""
    sentences = []
    for key in HEADLINES:
        scored = _scored(evaluations, key)
        if not scored:
            continue
        leader = _leader(evaluations, key)
        others = [paired_difference(leader, e, key, confidence) for e in scored if e is not leader]
        beaten = [d for d in others if d is not None and d.significant]
        open_ = [d for d in others if d is not None and not d.significant]
        text = f"{metric_name(*key)}: {leader.model} leads with {leader[key].value:.3f}"
        if beaten:
            text += f"; it is better than {_list(d.reference for d in beaten)} beyond the interval"
        if open_:
            text += f"; its lead over {_list(f'{d.reference} ({_signed(d)})' for d in open_)} is not resolved"
        sentences.append(text + ".")
    return sentences


def focus_sentences(differences: Sequence[Difference]) -> list[str]:
    """For each rival of the focus model one sentence with the metrics it wins, loses and leaves open."""
    sentences = []
    for reference in dict.fromkeys(d.reference for d in differences):
        against = [d for d in differences if d.reference == reference]
        wins = [d for d in against if d.better]
        losses = [d for d in against if d.worse]
        unresolved = [d for d in against if not d.significant]
        parts = [
            f"{verb} {_list(f'{metric_name(d.level, d.name)} ({_signed(d)})' for d in some)}"
            for verb, some in (("better in", wins), ("worse in", losses), ("not told apart in", unresolved))
            if some
        ]
        sentences.append(f"{against[0].model} against {reference}: {'; '.join(parts)}.")
    return sentences


def certainty_sentence(differences: Sequence[Difference]) -> str:
    """How much of what the intervals resolve also holds for all comparisons together (Holm), at 5 %."""
    if not differences:
        return "One model alone: nothing is compared."
    resolved = [d for d in differences if d.significant]
    sure = [d for d in resolved if d.p_adjusted < 0.05]
    text = f"Of {len(differences)} headline comparisons of {differences[0].model} the intervals resolve {len(resolved)}"
    if not resolved:
        return f"{text}: the test is too small, or the models too alike, to tell them apart."
    everything = "it" if len(sure) == 1 else "all of them"
    kept = everything if len(sure) == len(resolved) else "none" if not sure else str(len(sure))
    verb = "holds" if len(sure) == 1 else "hold"
    text += f"; {kept} {verb} when all {len(differences)} are allowed for (Holm, p below 0.05)"
    named = [f"{metric_name(d.level, d.name)} against {d.reference} (p {d.p_adjusted:.3f})" for d in sure[:6]]
    return f"{text}{': ' + _list(named) if named else ''}{' and more' if len(sure) > 6 else ''}."


def _signed(difference: Difference) -> str:
    return f"{difference.value:+.3f}, {difference.low:+.3f} to {difference.high:+.3f}"


def _list(items: object) -> str:
    words = list(items)  # type: ignore[call-overload]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
