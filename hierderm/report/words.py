"""The results of a comparison in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hierderm.data.loaders.registry import loader_of
from hierderm.evaluation.catalogue import HEADLINES, METRICS, Key, metric_name
from hierderm.evaluation.evaluation import Evaluation
from hierderm.evaluation.inference.differences import Difference, paired_difference
from hierderm.evaluation.inference.groups import Gap

MAX_NAMED = 6  # comparisons or models that a sentence names
SIGNIFICANT = 0.05  # of p-values
TIGHTER = 0.05  # difference of silhouettes from which clusters are called tighter


@dataclass(frozen=True)
class Summary:
    """The main metrics in sentences.

    `outcome`: which model has the best values, and than which the focus model is significantly better or worse;
    `standing`: in how many metrics; `significance`: how many of these differences remain after correction; `focus`: the
    focus model against each other model; `leaders`: the best model of each metric. Without a comparison only `outcome`
    is filled.
    """

    outcome: str
    standing: str = ""
    significance: str = ""
    focus: tuple[str, ...] = ()
    leaders: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """All sentences, the shortest account first."""
        return [text for text in (self.outcome, self.standing, self.significance, *self.focus, *self.leaders) if text]


def data_name(cases: str) -> str:
    """What the data of `data.cases` are called: without the folders of this machine, as it may be published."""
    if cases.startswith("synthetic:"):
        return f"built-in data {cases.removeprefix('synthetic:')}"
    loader = loader_of(cases)
    return loader[0] if loader else Path(cases).name


def slug(text: str) -> str:
    """A text as the beginning of file names."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")


def report_title(models: Sequence[str], cases: str) -> str:
    """What a report is of: the number of models, or the only one's name, and the data."""
    return f"{f'{len(models)} models' if len(models) > 1 else models[0]} on {data_name(cases)}"


def summarise(evaluations: Sequence[Evaluation], differences: Sequence[Difference], confidence: float) -> Summary:
    """The summary of a comparison. `differences`: the focus model minus each other one in the main metrics."""
    if not differences:
        return Summary("There is nothing to compare: a comparison needs two models with main metrics.")
    if all(np.isnan(difference.low) for difference in differences):
        return Summary(outcome_sentence(evaluations), "No difference was tested: evaluation.bootstrap_rounds is 0.")
    return Summary(
        f"{outcome_sentence(evaluations)[:-1]}; {short_standing(differences)}.",
        standing_sentence(differences),
        significance_sentence(differences, confidence),
        tuple(focus_sentences(differences)),
        tuple(leader_sentences(evaluations, confidence)),
    )


def outcome_sentence(evaluations: Sequence[Evaluation]) -> str:
    """Which model has the best value in how many main metrics."""
    best = [_leaders(evaluations, key) for key in HEADLINES if _scored(evaluations, key)]
    if not best:
        return "No main metric is defined for any model."
    leaders = [evaluation.model for tied in best for evaluation in tied]
    first, *others = sorted(((leaders.count(model), model) for model in set(leaders)), reverse=True)
    counts = [f"{first[1]} has the best value in {first[0]} of {len(best)} main metrics"]
    ties = " (a value that several models share counts for each)" if len(leaders) > len(best) else ""
    return f"{_list([*counts, *(f'{model} in {count}' for count, model in others)])}{ties}."


def short_standing(differences: Sequence[Difference]) -> str:
    """Than which models the focus model is significantly better or worse, and in how many metrics."""
    parts, n_others = [], len(_by_reference(differences))
    for kind, counts in _significant(differences).items():
        if counts:
            least, most = min(counts.values()), max(counts.values())
            names = _list(counts) if len(counts) <= MAX_NAMED else f"{len(counts)} of {n_others} other models"
            parts.append(f"{kind} than {names} in {most if least == most else f'{least} to {most}'} of them")
    if not parts:
        return f"{differences[0].model} is not significantly different from any other model"
    return f"{differences[0].model} is significantly {' and '.join(parts)}"


def _significant(differences: Sequence[Difference]) -> dict[str, dict[str, int]]:
    """In how many metrics the focus model is better, and worse, than each other model; without those in none."""
    groups = _by_reference(differences)
    return {
        "better": {name: n for name, against in groups.items() if (n := sum(d.better for d in against))},
        "worse": {name: n for name, against in groups.items() if (n := sum(d.worse for d in against))},
    }


def standing_sentence(differences: Sequence[Difference]) -> str:
    """In how many main metrics the focus model is significantly better or worse than each other model."""
    n_metrics, found = len({(d.level, d.name) for d in differences}), _significant(differences)
    parts = [
        f"significantly {kind} than {_list(f'{name} in {n} of {n_metrics}' for name, n in counts.items())} main metrics"
        for kind, counts in found.items()
        if counts
    ]
    if neither := [name for name in _by_reference(differences) if name not in {**found["better"], **found["worse"]}]:
        parts.append(f"not significantly different from {_list(neither)} in any main metric")
    return f"{differences[0].model} is {'; '.join(parts)}."


def significance_sentence(differences: Sequence[Difference], confidence: float) -> str:
    """How many differences are significant one by one, and how many after Holm's correction for all of them."""
    significant = [d for d in differences if d.better or d.worse]
    corrected = [d for d in significant if d.p_adjusted < SIGNIFICANT]
    named = [f"{metric_name(d.level, d.name)} against {d.reference} (p = {d.p_adjusted:.3f})" for d in corrected]
    if len(named) > MAX_NAMED:
        named = [*named[:MAX_NAMED], f"{len(named) - MAX_NAMED} more"]
    return (
        f"Significant differences between {differences[0].model} and the other models: {len(significant)} of "
        f"{len(differences)} ({_percent(confidence)} interval excludes 0), {len(corrected)} after Holm's correction "
        f"(adjusted p < {SIGNIFICANT}){': ' + _list(named) if named else ''}."
    )


def leader_sentences(evaluations: Sequence[Evaluation], confidence: float) -> list[str]:
    """For each main metric the model with the best value, and whether it is significantly better than the others."""
    sentences = []
    for key in HEADLINES:
        scored = _scored(evaluations, key)
        if not scored:
            continue
        leader, *tied = _leaders(evaluations, key)
        found = [paired_difference(leader, other, key, confidence) for other in scored if other is not leader]
        better = [d.reference for d in found if d is not None and d.better]
        similar = [f"{d.reference} ({_signed(d)})" for d in found if d is not None and not d.better]
        lead = f"{_list(e.model for e in (leader, *tied))} share" if tied else f"{leader.model} leads with"
        text = f"{metric_name(*key)}: {lead} {leader[key].value:.3f}"
        if better:
            differences = (
                "interval of the difference excludes" if len(better) == 1 else "intervals of the differences exclude"
            )
            text += f"; better than {_list(better)} ({_percent(confidence)} {differences} 0)"
        if similar:
            text += f"; no significant difference from {_list(similar)}"
        sentences.append(f"{text}.")
    return sentences


def focus_sentences(differences: Sequence[Difference]) -> list[str]:
    """For each other model: the metrics in which the focus model is better, worse, or not significantly different."""
    sentences = []
    for reference, against in _by_reference(differences).items():
        better, worse = [d for d in against if d.better], [d for d in against if d.worse]
        neither = [d for d in against if not d.better and not d.worse]
        kinds = (("better in", better), ("worse in", worse), ("no significant difference in", neither))
        parts = [
            f"{kind} {_list(f'{metric_name(d.level, d.name)} ({_signed(d)})' for d in some)}"
            for kind, some in kinds
            if some
        ]
        sentences.append(f"{against[0].model} against {reference}: {'; '.join(parts)}.")
    return sentences


def calibration_sentences(evaluation: Evaluation, target_error: float, nominal_coverage: float) -> list[str]:
    """How many images the model answers at each level and how its conformal sets cover; none without a classifier."""
    answers = evaluation.details.get("answers")
    if answers is None:
        return []
    sentences = [_temperature_sentence(evaluation, answers)]
    for row in answers["by_level"]:
        n, wrong, target = row["answered"], row["wrong"], f"at most {target_error:.0%}"
        sentences.append(
            f"{n / evaluation.n_images:.0%} of the test images are answered at the {row['level']} level, with an error "
            f"of {wrong / n:.0%} ({wrong} of {n}; target: {target})."
            if n
            else f"No test image is answered at the {row['level']} level (target error: {target})"
            + _why_unanswered(evaluation, row)
        )
    n_validation = answers["n_validation"]
    if np.ceil((n_validation + 1) * nominal_coverage) > n_validation:
        sentences.append(
            f"The {n_validation} validation cases are too few for conformal sets of coverage {nominal_coverage:.0%}: "
            "every set contains all classes."
        )
    for level, rows in evaluation.details["conformal"].items():
        covered, size = evaluation.get((level, "conformal_coverage")), evaluation.get((level, "conformal_size"))
        if covered is not None and size is not None:
            lowest = min(rows, key=lambda row: row["coverage"])
            ends = "" if np.isnan(covered.low) else f"{covered.low:.0%} to {covered.high:.0%}; "
            sentences.append(
                f"Conformal sets at the {level} level contain the true class of {covered.value:.0%} of the test images "
                f"({ends}nominal {nominal_coverage:.0%}), with {size.value:.1f} "
                f"classes on average; the lowest coverage is {lowest['coverage']:.0%}, for {lowest['category']} "
                f"({lowest['n_images']} images)."
            )
    return sentences


def _temperature_sentence(evaluation: Evaluation, answers: dict[str, Any]) -> str:
    """What temperature scaling does to the calibration error, and where it makes it worse."""
    parts, worse = [], []
    for row in answers["by_level"]:
        before, after = (evaluation.get((row["level"], name)) for name in ("ece", "ece_scaled"))
        if before is not None and after is not None:
            parts.append(f"from {before.value:.3f} to {after.value:.3f} at the {row['level']} level")
            worse += [row["level"]] if after.value > before.value else []
    text = f"A temperature of {answers['temperature']:.2f}, learnt on {answers['n_validation']} validation cases"
    if not parts:
        return f"{text}, is used for answers and conformal sets."
    text = f"{text}, changes the expected calibration error {_list(parts)}"
    if worse:
        text += (
            f". It is worse at the {_list(worse)} level: the temperature makes the fine classes of validation most "
            "likely, which does not bind the error on the test"
        )
    return f"{text}."


def _why_unanswered(evaluation: Evaluation, row: dict[str, Any]) -> str:
    accuracy = evaluation.get((row["level"], "top1_accuracy"))
    right = "" if accuracy is None else f" Of all predictions there {accuracy.value:.0%} are right."
    why = f": {row['why_never']}. More validation cases may allow answers" if row["why_never"] else ""
    return f"{why}.{right}"


def warning_sentences(warnings: Mapping[str, Iterable[str]]) -> list[str]:
    """Each warning once, with the models that it holds for. `warnings`: those of each model."""
    models_of: dict[str, list[str]] = {}
    for model, texts in warnings.items():
        for text in dict.fromkeys(texts):
            models_of.setdefault(text, []).append(model)
    of_all = f"all {len(warnings)} models"
    return [
        f"{of_all if 1 < len(models) == len(warnings) else _list(models)}: {text}" for text, models in models_of.items()
    ]


def comparison_warnings(evaluations: Sequence[Evaluation]) -> list[str]:
    """What must be known before believing the values of several models."""
    return [*warning_sentences({e.model: e.warnings for e in evaluations}), *collapse_sentences(evaluations)]


def collapse_sentences(evaluations: Sequence[Evaluation]) -> list[str]:
    """Where clusters are tighter than the first model's but agree no better with the labels."""
    first, found = evaluations[0], []
    for evaluation in evaluations[1:]:
        for level in ("coarse", "fine"):
            tight, base = (e.get((level, "cluster_silhouette")) for e in (evaluation, first))
            ami, base_ami = (e.get((level, "ami")) for e in (evaluation, first))
            if not (tight and base and ami and base_ami):
                continue
            if tight.value > base.value + TIGHTER and ami.value <= base_ami.value:
                found.append(
                    f"{evaluation.model}: the {level} clusters are tighter than those of {first.model} (silhouette "
                    f"{tight.value:.3f} against {base.value:.3f}) but do not agree better with the labels "
                    f"({METRICS['ami'].title} {ami.value:.3f} against {base_ami.value:.3f}): this is no improvement."
                )
    return found


def gap_sentence(gap: Gap) -> str:
    """The gap between the best and the worst group, and whether it is significant."""
    ends = "" if np.isnan(gap.low) else f" ({gap.low:.3f} to {gap.high:.3f})"
    tested = f", {'' if gap.p_value < SIGNIFICANT else 'not '}significant (p = {gap.p_value:.3f})"
    return (
        f"{metric_name(gap.level, gap.name)}: worst in {gap.worst}, best in {gap.best}; gap {gap.value:.3f}{ends}"
        f"{'' if np.isnan(gap.p_value) else tested}."
    )


def _by_reference(differences: Sequence[Difference]) -> dict[str, list[Difference]]:
    names = dict.fromkeys(d.reference for d in differences)
    return {name: [d for d in differences if d.reference == name] for name in names}


def _scored(evaluations: Sequence[Evaluation], key: Key) -> list[Evaluation]:
    return [e for e in evaluations if e.get(key) is not None and not np.isnan(e[key].value)]


def _leaders(evaluations: Sequence[Evaluation], key: Key) -> list[Evaluation]:
    """The models with the best value, several where they share it."""
    scored = _scored(evaluations, key)
    best = max(e[key].value for e in scored)
    return [e for e in scored if e[key].value == best]


def _percent(confidence: float) -> str:
    return f"{100 * confidence:g}%"


def _signed(difference: Difference) -> str:
    return f"{difference.value:+.3f}, {difference.low:+.3f} to {difference.high:+.3f}"


def _list(items: Iterable[str]) -> str:
    *words, last = items
    return f"{', '.join(words)} and {last}" if words else last
