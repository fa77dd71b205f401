"""One number of threads for torch, BLAS, OpenMP and FAISS."""

from __future__ import annotations

import os
import subprocess
import sys

import joblib
import pytest

from hierderm.threads import VARIABLES, n_threads, set_threads

ASK = """
from hierderm.threads import set_threads
set_threads(1)
import numpy, torch
from threadpoolctl import threadpool_info
from hierderm.engines import import_faiss
print(torch.get_num_threads(), import_faiss().omp_get_max_threads(), *(one["num_threads"] for one in threadpool_info()))
"""


def test_every_library_computes_with_as_many_threads() -> None:
    own = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "HOME")}
    environment = {**own, "OMP_NUM_THREADS": "2"}  # tests before this one leave other variables behind
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"1"}


def test_what_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)
    monkeypatch.setattr(os, "environ", environment := dict[str, str]())
    for given, expected in (("5", 5), ("4,2", 4), ("", 3)):
        environment["OMP_NUM_THREADS"] = given
        assert n_threads() == expected
    set_threads()
    assert environment == dict.fromkeys(VARIABLES, "3")
