"""The comparison report: `report.json` for scripts and a self-contained `report.html` for people."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hierderm import __version__
from hierderm import columns as c
from hierderm.config.loading import to_dict
from hierderm.config.settings import Comparison
from hierderm.data.splits import SplitReport
from hierderm.data.table import CaseTable
from hierderm.errors import OutputError
from hierderm.evaluation.catalogue import HEADLINES
from hierderm.evaluation.evaluation import Evaluation
from hierderm.evaluation.inference.differences import Difference, adjusted, paired_difference
from hierderm.files import file_hash, write_atomically, write_json
from hierderm.json_files import read_json
from hierderm.report.page import render
from hierderm.report.pdf import print_pdf
from hierderm.report.rows import Row
from hierderm.report.sections import first_screen, page_sections
from hierderm.report.tables import main_table
from hierderm.report.words import comparison_warnings, report_title, summarise

logger = logging.getLogger(__name__)


def write_report(
    config: Comparison,
    table: CaseTable,
    split_report: SplitReport | None,
    rows: Sequence[Row],
    folder: Path,
    environment: Mapping[str, str],
    browser: str = "",
) -> Path:
    """Write `report.html`, `report.json` and, by `browser`, `report.pdf` to `folder`; returns the path of the page.

    A page that shows the same values already stays as it is.
    """
    evaluations = [row.evaluation for row in rows]
    focus = next(row for row in rows if row.evaluation.model == (config.focus or rows[-1].evaluation.model))
    main, others = focus_differences(focus.evaluation, evaluations, config.evaluation.confidence)
    summary = summarise(evaluations, main, config.evaluation.confidence)
    facts = data_facts(config, table, split_report, rows)
    warnings = comparison_warnings(evaluations)
    title = report_title([evaluation.model for evaluation in evaluations], config.data.cases)
    content = {
        "hierderm": __version__,
        "name": config.name,
        "title": title,
        "split_hash": table.split_hash,
        "taxonomy": table.taxonomy.summary(),
        "facts": facts,
        "summary": summary.sentences,
        "main": main_table(evaluations),
        "warnings": warnings,
        "models": [_model_content(row) for row in rows],
        "differences": [difference.to_dict() for difference in (*main, *others)],
        "environment": dict(environment),
        "config": to_dict(config),
    }
    head = {"title": title, "about": about_sentence(config, table, evaluations), "warnings": warnings}
    head |= first_screen(config, evaluations, focus, main, summary)
    path = folder / "report.html"
    if not _is_drawn(folder, content):
        logger.info("Writing the report ...")
        sections = page_sections(config, table, rows, focus, main)
        page = render("report.html.j2", facts=facts, environment=environment, **head, **sections)
        write_atomically(path, page)
        write_json(folder / "report.json", {**content, "page": file_hash(path)})  # last: the page is of these values
    if browser:
        print_pdf(render("one_page.html.j2", **head), folder / "report.pdf", browser)
    return path


def _is_drawn(folder: Path, content: Mapping[str, Any]) -> bool:
    """Whether the page that is there shows these values."""
    path, page = folder / "report.json", folder / "report.html"
    if not (path.is_file() and page.is_file()):
        return False
    try:
        saved = read_json(path, dict[str, Any], OutputError)
    except OutputError:
        return False
    return bool(saved == {**json.loads(json.dumps(content)), "page": file_hash(page)})


def about_sentence(config: Comparison, table: CaseTable, evaluations: Sequence[Evaluation]) -> str:
    """Which models were tested on what."""
    first, n_cases = evaluations[0], len(np.unique(table.case_ids))
    models = ", ".join(evaluation.model for evaluation in evaluations)
    how = f"each of {config.split.folds} folds" if config.protocol.every_fold else "held out"
    return (
        f"{models}. Tested on {first.n_images} images of {first.n_cases} cases ({how}) of {len(table)} images of "
        f"{n_cases} cases; backbone {config.backbone.name}."
    )


def focus_differences(
    focus: Evaluation, evaluations: Sequence[Evaluation], confidence: float
) -> tuple[list[Difference], list[Difference]]:
    """The focus model minus every other one: in the main metrics, adjusted together, and in all other metrics."""
    found = [
        paired_difference(focus, other, (metric.level, metric.name), confidence)
        for other in evaluations
        if other is not focus
        for metric in focus.metrics
    ]
    known = [difference for difference in found if difference is not None]
    main = adjusted([d for d in known if (d.level, d.name) in HEADLINES])
    return main, [d for d in known if (d.level, d.name) not in HEADLINES]


def data_facts(
    config: Comparison, table: CaseTable, split_report: SplitReport | None, rows: Sequence[Row]
) -> list[tuple[str, str]]:
    """Name and value of what a reader must know of the data and the split."""
    evaluation, protocol = rows[0].evaluation, config.protocol
    facts = [("Data", config.data.cases), ("Taxonomy", table.taxonomy.summary())]
    for split in c.SPLITS:
        inside = table.splits == split
        facts.append((split.capitalize(), f"{inside.sum()} images of {len(np.unique(table.case_ids[inside]))} cases"))
    facts += [("Split", f"by case, hash {table.split_hash}"), ("Backbone", config.backbone.name)]
    if protocol.every_fold:
        repeats = f" with {protocol.repeats} repeats" if protocol.repeats > 1 else ""
        total = f"{evaluation.n_cases} test cases in total; the counts above are those of the first fold"
        facts.append(("Cross-validation", f"{config.split.folds} folds{repeats}, {total}"))
    if protocol.seeds > 1 or protocol.repeats > 1:
        facts.append(("Training runs per model", str(max(row.n_runs for row in rows))))
    if split_report:
        facts.append(("Conditions with a single case", f"{split_report.single_group_conditions}, all in training"))
        facts.append(("Cases grouped as near-duplicates", str(split_report.cases_joined)))
    if table.excluded:
        facts.append(("Excluded rows", f"{len(table.excluded)}, listed under Reproducibility"))
    for metric in evaluation.metrics:
        if metric.name == "map_at_r":
            title = f"Queries without a relevant gallery image ({metric.level})"
            facts.append((title, f"{metric.skipped}, left out of the retrieval metrics"))
    return facts


def _model_content(row: Row) -> dict[str, Any]:
    return {
        **row.evaluation.to_dict(),
        "method": row.config.training.method,
        "seconds": row.seconds,
        "n_runs": row.n_runs,
    }
