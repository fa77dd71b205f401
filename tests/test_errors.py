from __future__ import annotations

import errno
import os

import pytest

from hierderm.errors import describe_os_error


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
