"""The command that says whether hierderm works here."""

from __future__ import annotations

from dataclasses import asdict

import typer

from hierderm.cli.output import JsonFlag, say, show_json, show_table


def doctor(as_json: JsonFlag = False) -> None:
    """Check whether hierderm works on this machine.

    Versions, cores, memory, devices, libraries together, folders, the hub, the browser, optional parts. Takes some
    seconds. Exit code 1 only where something is broken. Give the output with a report of a fault.

    Example: `hierderm doctor --json > doctor.json`
    """
    from rich.markup import escape
    from rich.table import Table

    from hierderm.cli.checkup import findings

    say("Looking at this machine ...")
    found = list(findings())
    broken = [one.name for one in found if one.state == "broken"]
    if as_json:
        show_json({"works": not broken, "findings": [asdict(one) for one in found]})
    else:
        shown = Table(title=f"Broken: {', '.join(broken)}" if broken else "hierderm works here")
        for column in ("what", "state", "found"):
            shown.add_column(column, overflow="fold")
        for one in found:
            style = {"broken": "bold red", "warning": "yellow"}.get(one.state, "")
            shown.add_row(escape(one.name), one.state, escape(one.text), style=style)
        show_table(shown)
    if broken:
        raise typer.Exit(1)
