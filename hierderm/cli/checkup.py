"""What `hierderm doctor` looks at: each check is a function that gives findings, and harms and changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from hierderm import __version__

State = Literal["ok", "optional", "warning", "broken"]
HUB_SECONDS = 2.0  # to wait for the hub
CHILD_SECONDS = 120.0  # to wait for a library that is tried in a process of its own
LITTLE = 2e9  # bytes of free disk that are few
UNUSED = "dev"  # the extra that users do not need
_TOGETHER = """
import torch
from hierderm.engines import import_faiss
import numpy as np
faiss = import_faiss()
vectors = np.eye(64, dtype=np.float32)
torch.ones(256, 256) @ torch.ones(256, 256)
index = faiss.index_factory(64, "Flat", faiss.METRIC_INNER_PRODUCT)
index.add(vectors)
assert (index.search(vectors, 1)[1][:, 0] == np.arange(64)).all()
assert float((torch.ones(256, 256) @ torch.ones(256, 256)).sum()) == 256**3
print(f"{faiss.omp_get_max_threads()} threads of FAISS, {torch.get_num_threads()} of torch")
"""
_ONNX = """
import onnxruntime
print(", ".join(onnxruntime.get_available_providers()))
"""


@dataclass(frozen=True)
class Finding:
    """`state`: 'optional' is missing and needed by some commands only; 'broken' keeps hierderm from working."""

    name: str
    state: State
    text: str


def findings() -> Iterator[Finding]:
    """All of them, one after another."""
    for check in CHECKS:
        yield from check()


def versions() -> Iterator[Finding]:
    """hierderm, Python and what hierderm needs, against the lowest versions that are declared."""
    about, own = metadata("hierderm")["Requires-Python"], platform.python_version()
    yield Finding("hierderm", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    right = own in SpecifierSet(about)
    yield Finding("Python", "ok" if right else "broken", f"{own}, {about} is needed; {platform.platform()}")
    wanted = _required()
    faults = [fault for one in wanted if (fault := _fault(one))]
    if faults:
        text = f"{'; '.join(faults)}. Install them with: pip install --upgrade hierderm"
        yield Finding("packages", "broken", text)
    else:
        yield Finding("packages", "ok", f"all {len(wanted)} have the versions that hierderm needs")


def extras() -> Iterator[Finding]:
    """The optional parts: here, or the command that installs them."""
    for extra in metadata("hierderm").get_all("Provides-Extra") or []:
        wanted = _required(extra)
        faults = [fault for one in wanted if (fault := _fault(one))]
        text = f"{'; '.join(faults)}. Install it with: pip install 'hierderm[{extra}]'" if faults else _versions(wanted)
        if extra != UNUSED:
            yield Finding(f"hierderm[{extra}]", "optional" if faults else "ok", text)


def machine() -> Iterator[Finding]:
    """Cores, threads, memory and devices."""
    from hierderm.experiment.parallel import machine_memory
    from hierderm.threads import n_threads

    yield Finding("cores", "ok", f"{os.cpu_count()} in the machine, hierderm computes with {n_threads()} threads")
    yield Finding("memory", "ok", f"{machine_memory() / 1e9:.1f} GB")
    try:
        import torch
    except Exception as error:  # a library that can't be loaded raises errors of all kinds
        yield Finding("devices", "broken", f"torch can't be imported ({error}). Install it again.")
        return
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("Apple GPU (mps)")
    yield Finding(
        "devices", "ok", f"{', '.join(devices) or 'no GPU'}; CPU with {torch.backends.cpu.get_cpu_capability()}"
    )


def libraries() -> Iterator[Finding]:
    """Libraries that bring their own threads, each tried in a process of its own: a crash must not end the report."""
    from importlib.util import find_spec

    state, text = _tried(_TOGETHER)
    yield Finding("FAISS with torch", state, f"in one process: {text}")
    if find_spec("onnxruntime"):
        state, text = _tried(_ONNX)
        yield Finding("ONNX Runtime", "ok" if state == "ok" else "warning", text)


def hub() -> Iterator[Finding]:
    """Whether the Hugging Face hub answers within two seconds; it is not asked in offline mode."""
    from huggingface_hub import constants

    from hierderm.model.hub import unreachable

    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "optional", "not asked: HF_HUB_OFFLINE is set; models in its cache can be used")
    elif answer := unreachable(HUB_SECONDS):
        text = f"{constants.ENDPOINT} can't be reached ({answer}); what is here or in its cache can be used"
        yield Finding("hub", "optional", text)
    else:
        yield Finding("hub", "ok", f"{constants.ENDPOINT} answers")


def browser() -> Iterator[Finding]:
    """The browser that prints reports as PDF."""
    from hierderm.errors import ConfigError
    from hierderm.report.pdf import find_browser

    try:
        yield Finding("browser", "ok", f"{find_browser()}, for reports as PDF")
    except ConfigError as error:
        yield Finding("browser", "optional", str(error))


def folders() -> Iterator[Finding]:
    """Where hierderm and its libraries write: whether they can, and how much room there is."""
    from huggingface_hub import constants

    places: tuple[tuple[str, str | Path, State], ...] = (
        ("temporary files", tempfile.gettempdir(), "broken"),
        ("this folder", Path.cwd(), "warning"),
        ("cache of the hub", constants.HF_HUB_CACHE, "warning"),
    )
    for name, wanted, state in places:
        place = next(folder for folder in (Path(wanted), *Path(wanted).absolute().parents) if folder.is_dir())
        try:
            with tempfile.TemporaryFile(dir=place):
                free = shutil.disk_usage(place).free
        except OSError as error:
            yield Finding(name, state, f"{wanted} can't be written ({error.strerror}). Choose another place.")
            continue
        yield Finding(name, "warning" if free < LITTLE else "ok", f"{wanted}, {free / 1e9:.1f} GB free")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (versions, machine, libraries, folders, hub, browser, extras)


def _required(extra: str = "") -> list[Requirement]:
    """What hierderm declares: what is always needed here, or what an extra adds to it."""
    declared = list(map(Requirement, requires("hierderm") or []))
    always = [one for one in declared if one.marker is None or one.marker.evaluate({"extra": ""})]
    if not extra:
        return always
    return [one for one in declared if one not in always and one.marker and one.marker.evaluate({"extra": extra})]


def _fault(wanted: Requirement) -> str:
    """What is wrong with an installed package, '' where nothing is."""
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is not installed"
    right = wanted.specifier.contains(found, prereleases=True)
    return "" if right else f"{wanted.name} must be {wanted.specifier}, it is {found}"


def _versions(wanted: list[Requirement]) -> str:
    return ", ".join(f"{one.name} {version(one.name)}" for one in wanted)


def _tried(program: str) -> tuple[State, str]:
    """How a program ends in a process of its own: what it prints, or why it failed."""
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=CHILD_SECONDS)
    except subprocess.TimeoutExpired:
        return "broken", f"no end within {CHILD_SECONDS:g} s"
    if done.returncode == 0:
        return "ok", done.stdout.strip()
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return "broken", f"ended with code {done.returncode} ({last[:300]})"
