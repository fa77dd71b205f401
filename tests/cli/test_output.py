from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hierderm.cli.output import describe_os_error
from tests.cli.test_main import refusal


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/a.npy"),
         "/runs/a.npy: No space left on device. Free some space, or choose a folder on another disk."),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/cd"), "/cd: Read-only file system. Choose a folder that can be written."),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a", None, "b"),
         "a -> b: Permission denied. Choose another place, or ask for permission."),
        (OSError("12 requested and 4 written"), "12 requested and 4 written."),
        (TimeoutError(), "TimeoutError."),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_a_message(error: OSError, message: str) -> None:
    assert describe_os_error(error) == message


def test_a_place_that_can_not_be_written(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    table, tree = toy_folder / "cases.csv", toy_folder / "taxonomy.csv"
    message = refusal("split", table, "-t", tree, "-o", tmp_path / "file" / "split.csv")
    assert str(tmp_path / "file") in message and "choose another place" in message
    message = refusal("data", "csv", table, "-t", tree, "-o", "/proc/none/cases.csv")
    assert message.startswith("Error: /proc/none") and "Check the path" in message
