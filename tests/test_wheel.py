"""The wheel carries trees, demo and weights: it is built, installed aside, and used from another folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

ROOT = Path(__file__).parents[1]


def test_the_wheel_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    wheel = tmp_path / build_wheel(str(tmp_path))
    assert wheel.stat().st_size < 8_000_000
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    for path in (ROOT / "hierderm").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(ROOT)
            assert (tmp_path / "site" / name).read_bytes() == path.read_bytes(), name
    script = (
        "import hierderm, pathlib; assert 'site' in hierderm.__file__; "
        "from hierderm.taxonomy.file import load_taxonomy; print(load_taxonomy('scin').summary()); "
        "from hierderm.config.loading import load_comparison, load_config; print(len(load_comparison('three_way').models)); "
        "from hierderm.shipped import shipped_experiments; print(load_config('two_head').name, *shipped_experiments())"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {script}"]
    used = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert used.returncode == 0, used.stderr
    assert used.stdout.splitlines()[0].endswith("16 x category, 230 x condition")
    experiments = [path.stem for path in sorted((ROOT / "experiments").glob("*.toml"))]
    assert used.stdout.splitlines()[1:] == ["7", " ".join(["two-head", *experiments])]
