# Markdown tables of the record, from the saved JSON.
# Command: python experiments/tables.py report runs/photographs/report.json
#          python experiments/tables.py against runs/photographs/report.json   (the focus model minus each other model)
#          python experiments/tables.py scarce scarce.json
#          python experiments/tables.py costs benchmarks/training.json
#          python experiments/tables.py plot runs/photographs/report.json plot.png   (the same as a forest plot)

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from hierderm.evaluation.inference.differences import Difference
from hierderm.plots import forest, png

HEADLINES = [
    ("coarse", "ami"),
    ("coarse", "map_at_r"),
    ("coarse", "recall_at_1"),
    ("fine", "ami"),
    ("fine", "map_at_r"),
    ("fine", "recall_at_1"),
    ("tree", "hap"),
    ("tree", "mistake_severity"),
]
RIVALS = ("vanilla", "flat-fine", "flat-coarse", "random-tree")
TITLES = "coarse AMI | coarse MAP@R | coarse R@1 | fine AMI | fine MAP@R | fine R@1 | H-AP | height ↓"


def report(content: Any) -> list[str]:
    lines = [f"| model | {TITLES} | seconds |", "|---" * 10 + "|"]
    for model in content["models"]:
        metrics = {(metric["level"], metric["name"]): metric["value"] for metric in model["metrics"]}
        cells = [f"{metrics[key]:.4f}" if key in metrics else "–" for key in HEADLINES]
        lines.append(f"| {model['model']} | {' | '.join(cells)} | {model['seconds']:.0f} |")
    return [*lines, "", *[f"- {sentence}" for sentence in content["summary"]]]


def against(content: Any) -> list[str]:
    """The focus model minus each other model, with 95 % intervals; bold where the interval excludes 0."""
    focus = content["config"]["focus"]
    found = {(d["reference"], d["level"], d["name"]): d for d in content["differences"] if d["model"] == focus}
    lines = [f"| {focus} minus | {' | '.join(TITLES.split(' | ')[:6])} |", "|---" * 7 + "|"]
    for rival in dict.fromkeys(reference for reference, *_ in found):
        cells = []
        for key in HEADLINES[:6]:
            d = found[rival, *key]
            text = f"{d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})"
            cells.append(f"**{text}**" if d["significant"] else text)
        lines.append(f"| {rival} | {' | '.join(cells)} |")
    return lines


def plot(content: Any, place: Path) -> None:
    """The differences of `against` as a forest plot."""
    focus = content["config"]["focus"]
    names = {field.name for field in fields(Difference)}
    found = [
        Difference(**{name: value for name, value in d.items() if name in names})
        for key in HEADLINES[:6]
        for d in content["differences"]
        if (d["model"], d["level"], d["name"]) == (focus, *key) and d["reference"] in RIVALS
    ]
    place.write_bytes(png(forest(found)))


def scarce(content: Any) -> list[str]:
    groups = {**content.pop("by training images"), **content}
    metrics = {"coarse_map_at_r": "coarse MAP@R", "fine_map_at_r": "fine MAP@R", "h_ap": "H-AP", "height": "height ↓"}
    titles = [*metrics.values(), *(f"Δ {title}" for title in metrics.values())]
    lines = [f"| training images | images | model | {' | '.join(titles)} |", "|---" * 11 + "|"]
    for label, group in groups.items():
        for name, row in group.items():
            if name == "n_images":
                continue
            found = [row.get(f"hierarchical - {key}") for key in metrics]
            ends = [f"{f[0]:+.4f} ({f[1]:+.4f} to {f[2]:+.4f})" if f else "" for f in found]
            cells = [*(f"{row[key]:.4f}" for key in metrics), *ends]
            lines.append(f"| {label} | {group['n_images']} | {name} | {' | '.join(cells)} |")
    return lines


def costs(content: Any) -> list[str]:
    """Peak memory above that of a process that only loads table and backbone, the first row."""
    idle = content[0]["peak_gb"]
    lines = ["| way | seconds | seconds an epoch | memory above loading, GB |", "|---" * 4 + "|"]
    for row in content[1:]:
        per_epoch = "" if row["seconds_per_epoch"] is None else f"{row['seconds_per_epoch']:.1f}"
        lines.append(f"| {row['way']} | {row['seconds']:.1f} | {per_epoch} | {row['peak_gb'] - idle:.2f} |")
    return lines


if __name__ == "__main__":
    kind, path = sys.argv[1], Path(sys.argv[2])
    make = {"report": report, "against": against, "scarce": scarce, "costs": costs}
    found = json.loads(path.read_text(encoding="utf-8"))
    if kind == "plot":
        plot(found, Path(sys.argv[3]))
    else:
        print("\n".join(make[kind](found)))
