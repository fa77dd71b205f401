"""What must not be in the repository: large files, registry addresses, pickles."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST = 5_000_000  # bytes; the packaged weights are the largest file


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs a git checkout to know which files are tracked")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_large_files_and_no_pickles() -> None:
    assert [path for path in tracked() if path.stat().st_size > LARGEST] == []
    assert [path for path in tracked() if path.suffix in (".ckpt", ".pt", ".pth", ".pkl", ".pickle")] == []


def test_no_registry_addresses() -> None:
    address = re.compile(r"https?://[^\s)\"'>]*(pypi|registry|simple/|npmjs|pythonhosted)")
    texts = [
        path
        for path in tracked()
        if path.suffix in (".toml", ".txt", ".md", ".py", ".cfg", ".yml", ".yaml", ".cff", "")
        and path.name != "LICENSE"
    ]
    assert [path for path in texts if address.search(path.read_text(errors="ignore"))] == []
