"""The command line as a whole: help, version, config, and errors of the system."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hierderm.cli.main import app
from hierderm.errors import ConfigError
from hierderm.model import listing
from tests.cli.commands import fails, refusal, run


def test_config_lists_every_setting_and_checks_a_file(tmp_path: Path) -> None:
    listed = run("config", "--method", "gradient")
    assert "epochs = 10  # passes over the training images, at most" in listed and "\nstrengths" in listed
    assert "strengths = " in run("config") and "epochs" not in run("config")
    (tmp_path / "all.toml").write_text(listed)
    assert "[training]" in run("config", tmp_path / "all.toml")
    assert "[[models]]" in run("config", "experiments/three_way.toml")
    assert "training.method must be one of" in fails("config", "--method", "x")
    assert "either a file, which names its method, or --method" in fails(
        "config", tmp_path / "all.toml", "--method", "lda"
    )


def test_help_of_every_command_has_an_example() -> None:
    for arguments in (["train"], ["embed"], ["backbones"], ["evaluate"], ["compare"], ["inflation"], ["bench", "run"], ["bench", "table"], ["split"], ["config"], ["data", "csv"],
                      ["data", "folder"], ["data", "scin"], ["taxonomy", "show"], ["taxonomy", "from-csv"]):  # fmt: skip
        assert "Example:" in run(*arguments, "--help")
    assert run("--version").startswith("hierderm ")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("hierderm tr", {"train", "truncate"}),
        ("hierderm taxonomy fi", {"find"}),
        ("hierderm compare three", {"three_way"}),
        ("hierderm search --ag", {"--aggregation"}),
    ],
)
def test_the_shell_completes(words: str, found: set[str]) -> None:
    """As bash asks, once `hierderm --install-completion` has told it to."""
    asked = {"_HIERDERM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = CliRunner().invoke(app, [], prog_name="hierderm", env=asked)
    assert set(done.stdout.split()) == found
    assert "--install-completion" in run("--help")


def test_backbones_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "TIMED_IMAGES", 2)
    monkeypatch.setattr(listing, "BACKBONES", listing.BACKBONES[:1] + listing.BACKBONES[-1:])
    shown = run("backbones")
    assert "hierderm:tiny" in shown and "nothing: it is here" in shown and "images/s" not in shown
    tiny, siglip = json.loads(run("backbones", "--time", "--json"))
    assert (tiny["needs"], tiny["parameters"], tiny["size"], tiny["licence"]) == ("", 1.45, 96, "Apache-2.0")
    assert tiny["images_per_second"] > 1
    assert siglip["needs"].startswith("internet once, for google/siglip2-") and siglip["images_per_second"] is None


def test_what_the_system_refuses_is_a_message(toy_csv: Path) -> None:
    """In a process of its own, as users have it."""
    arguments = ["taxonomy", "from-csv", str(toy_csv), "--levels", "condition", "-o", "/proc/none/tree.csv"]
    done = subprocess.run([sys.executable, "-m", "hierderm", *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: /proc/none: No such file or directory. Check the path.\n"
    assert refusal(*arguments) == done.stderr


def test_several_processes_do_not_write_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = r"compare runs in one process, torchrun has started 2, .*\. Start it without torchrun; with it run train and embed\."
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(app, ["compare", "three_way"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="is neither"):  # what may run goes on to its own refusals
        CliRunner().invoke(app, ["train", "no.toml"], catch_exceptions=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "[training]" in run("config")
