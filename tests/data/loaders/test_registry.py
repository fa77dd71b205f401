from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from hierderm.cli.data import _loader_command, data_app
from hierderm.data.loaders.published import Published
from hierderm.data.loaders.registry import LOADERS


@pytest.mark.parametrize("name", LOADERS)
def test_each_loader_is_a_command_that_explains_itself(name: str) -> None:
    shown = CliRunner().invoke(data_app, [name, "--help"]).output
    assert f"hierderm data {name}" in shown
    for option in ("--out", "--taxonomy", "--unreadable", "--unknown", "--replace", "--json"):
        assert option in shown


def test_a_function_is_all_that_a_new_loader_needs() -> None:
    def read_mine(
        table: Annotated[str, "My table."],
        *,
        taxonomy: Annotated[str, "Tree."] = "t",
        level: Annotated[int, "Of what."],
    ) -> Published:
        """Mine."""
        raise LookupError(f"{table} {taxonomy} {level}")

    app = typer.Typer()
    app.command()(_loader_command(read_mine))
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "Mine." in shown and "My table." in shown and "--level" in shown and "Of what." in shown
    done = CliRunner().invoke(app, ["x", "-o", "y.csv", "--level", "4"])
    assert str(done.exception) == "x t 4"
