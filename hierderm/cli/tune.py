"""The command that chooses settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierderm.cli.output import JsonFlag, show
from hierderm.cli.settings import file_and_settings, require_read
from hierderm.cli.train import Settings
from hierderm.errors import ConfigError

RangeList = Annotated[
    list[str] | None,
    typer.Option(
        "--range", help="A setting and its range, NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C; repeatable."
    ),
]


def tune(
    arguments: Settings = None,
    ranges: RangeList = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many settings to try in all.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="For how long; the last trial is finished.")] = None,
    folds: Annotated[int, typer.Option(min=0, help="Inner folds; 0 for the split's own validation.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the search; runs/NAME-tune.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Choose settings on validation, or on inner folds.

    The test is not touched. Ranges may stand in the file, too, under [tune]. The best settings are in best.toml, for
    `hierderm train` and `compare`. After an interruption give the same command again: it continues.

    Example: `hierderm tune --data.cases cases.csv --data.taxonomy tree.csv --range training.shrinkages=0.05:0.5
    --trials 20 -o runs/tune`
    """
    from hierderm.config.loading import load_tuning
    from hierderm.experiment.tune import Range
    from hierderm.experiment.tune import tune as search

    file, settings = file_and_settings(arguments)
    require_read("tune", settings, ["evaluation"], "Give them to compare or evaluate.")
    config, texts = load_tuning(file, settings)
    for text in ranges or []:
        name, equals, given = text.partition("=")
        if not equals:
            raise ConfigError(f"--range must be NAME=RANGE, got '{text}'.")
        texts[name.strip()] = given
    folder = out or Path("runs") / f"{config.name}-tune"
    chosen = {name: Range.parse(text) for name, text in texts.items()}
    found = search(config, chosen, folder, trials=trials, minutes=minutes, folds=folds)
    best = found.trials.iloc[int(found.trials["value"].argmax())]
    values = {name: best[name] for name in chosen}
    lines = [f"{name} = {value}" for name, value in values.items()]
    text = f"Best of {len(found.trials)} trials, {found.value:.4f} on validation:\n  " + "\n  ".join(lines)
    content = {"value": found.value, "trials": len(found.trials), "settings": {k: str(v) for k, v in values.items()}}
    show(content, as_json, f"{text}\nTrain with: hierderm train {folder / 'best.toml'}")
