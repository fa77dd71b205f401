"""What a split by image would have claimed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hierderm import columns as c
from hierderm.artifacts import claim_folder
from hierderm.config.describe import not_default
from hierderm.config.settings import Comparison
from hierderm.data.table import CaseTable
from hierderm.embeddings import Provenance
from hierderm.errors import ConfigError
from hierderm.evaluation.catalogue import HEADLINES
from hierderm.evaluation.tasks.registry import tasks_named
from hierderm.experiment.compare import evaluated
from hierderm.experiment.protocol import Division, divide
from hierderm.experiment.results import BENCHMARK, COMPARISON, Results
from hierderm.experiment.runner import run
from hierderm.experiment.sources import as_model
from hierderm.files import write_json
from hierderm.report.rows import Row
from hierderm.taxonomy.file import write_taxonomy

INFLATION = "inflation"  # the kind of a folder
KEYS = (*HEADLINES, ("coarse", "top1_accuracy"), ("fine", "top1_accuracy"))


def inflation(comparison: Comparison, folder: Path | str) -> list[dict[str, Any]]:
    """The same models evaluated in three ways, a row for each model and headline metric.

    `by_case`: as hierderm does; `own_case_allowed`: the same embeddings, but other images of the query's case may be
    its neighbours; `by_image`: trained and tested on a split by image, where images of one case are on both sides and
    look-alikes are not kept together. The last has other test images, so its difference is not paired.

    ConfigError where the comparison has several splits or seeds.
    """
    folder = Path(folder)
    if unread := not_default(comparison.protocol, "protocol"):
        raise ConfigError(f"inflation trains each model once, on one split: it does not read {unread}. Leave them out.")
    claim_folder(folder, INFLATION)
    by_case, table = _evaluated(comparison, folder / "by-case")
    own_case_allowed = _own_case_allowed(comparison, by_case, table, folder / "own-case-allowed")
    by_image, _ = _evaluated(_split_by_image(comparison, table, folder), folder / "by-image")
    ways = {
        "by_case": [row.evaluation for row in by_case],
        "own_case_allowed": own_case_allowed,
        "by_image": [row.evaluation for row in by_image],
    }
    rows = [
        {"model": row.entry.name, "level": key[0], "name": key[1]}
        | {way: evaluations[number][key].to_dict() for way, evaluations in ways.items()}
        for number, row in enumerate(by_case)
        for key in KEYS
        if all(evaluations[number].get(key) for evaluations in ways.values())
    ]
    write_json(folder / "inflation.json", rows)
    return rows


def _evaluated(comparison: Comparison, folder: Path) -> tuple[list[Row], CaseTable]:
    divisions = divide(comparison.data, comparison.split, comparison.protocol, folder, COMPARISON)
    return evaluated(comparison, divisions, folder), divisions[0][0].table


def _split_by_image(comparison: Comparison, table: CaseTable, folder: Path) -> Comparison:
    source, taxonomy = folder / "every-image-a-case.csv", folder / "taxonomy.csv"
    write_taxonomy(table.taxonomy, taxonomy, replace=True)
    _every_image_a_case(table).write(source, replace=True)
    data = replace(comparison.data, cases=str(source), taxonomy=str(taxonomy), image_root="")
    return replace(comparison, data=data, split=replace(comparison.split, reuse=False, near_duplicates=False))


def _every_image_a_case(table: CaseTable) -> CaseTable:
    return replace(table, frame=table.frame.assign(**{c.CASE_ID: table.frame[c.IMAGE_ID]}))


def _own_case_allowed(comparison: Comparison, rows: list[Row], table: CaseTable, folder: Path) -> list[Any]:
    unbound = {row.entry.name: replace(row.test, provenance=Provenance()) for row in rows}  # else its split is refused
    models = [as_model(name, test, folder) for name, test in unbound.items()]
    division = Division(folder, _every_image_a_case(table.part(c.TEST)))
    tasks = tasks_named(comparison.evaluation.tasks)
    claim_folder(folder, BENCHMARK)
    run(models, [[division]], tasks, comparison.evaluation, folder)
    results = Results.open(folder)
    return [results.joined(name, tasks) for name in unbound]
