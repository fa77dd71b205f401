"""Many users, slow sockets, large uploads and users who leave, on a page that `hierderm serve` serves."""

from __future__ import annotations

import http.client
import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.soak.table import Row

BOUNDARY = "soak"
GOAL = 5.0  # seconds for the slowest hundredth of searches with 20 users
GROWTH = 1.1  # memory at the end against memory after the warm-up
MEMORY = 700.0  # MB above the idle page that a crowd of large uploads may take


def attack(folder: Path, minutes: float) -> tuple[list[Row], dict[str, float]]:
    """The load on the index of `folder`; rows, and what was measured."""
    measured: dict[str, float] = {}
    rows = []
    with _page(folder / "index") as (port, process):
        picture = _picture(320, 90)
        for _ in range(4):
            _search(port, picture)
        idle = _memory(process.pid)
        rows.append(_users(port, 20, 60, picture, measured))
        rows.append(_users(port, 50, 30, picture, measured))
        rows.append(_slow_sockets(port, picture, measured))
        rows.append(_large_uploads(port, process.pid, idle, measured))
        rows.append(_leavers(port, picture, measured))
        rows.append(_long_run(port, process.pid, minutes, picture, measured))
    measured["idle_mb"] = idle
    return rows, measured


@contextmanager
def _page(index: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hierderm", "serve", str(index), "--port", str(port)]
    with subprocess.Popen(command, cwd=index.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield port, process
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/api/info")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the page did not start within a minute")


def _search(port: int, picture: bytes) -> tuple[int, float, str]:
    """Status, seconds and the Retry-After of one search; status 0 is no answer at all."""
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    try:
        connection.request("POST", "/api/search", _form(picture), _type())
        answer = connection.getresponse()
        answer.read()
        return answer.status, time.monotonic() - start, answer.headers.get("Retry-After", "")
    except (OSError, http.client.HTTPException):
        return 0, time.monotonic() - start, ""
    finally:
        connection.close()


def _users(port: int, users: int, seconds: float, picture: bytes, measured: dict[str, float]) -> Row:
    """Users who search one after another; a 503 that says when to come back is followed, and counts as refused."""
    row, took, lock = Row("load", f"{users} users"), list[float](), threading.Lock()
    until = time.monotonic() + seconds

    def user() -> None:
        while time.monotonic() < until:
            status, spent, later = _search(port, picture)
            with lock:
                if status == 200:
                    took.append(spent)
                    row.add("survived")
                elif status == 503 and later:
                    row.add("refused")
                else:
                    row.add("lost", f"status {status} after {spent:.1f} s, Retry-After '{later}'")
            if later:
                time.sleep(float(later))

    _together([user] * users)
    slowest = float(np.percentile(took, 99)) if took else float("inf")
    measured |= {f"{users}_users_p99_s": round(slowest, 2), f"{users}_users_per_s": round(len(took) / seconds, 1)}
    if users == 20 and slowest > GOAL:
        row.add("wrong", f"the slowest hundredth took {slowest:.1f} s, {GOAL:g} s are wanted")
    return row


def _slow_sockets(port: int, picture: bytes, measured: dict[str, float]) -> Row:
    """40 clients send a byte a second; others must be served meanwhile."""
    row, stop, body = Row("load", "40 slow sockets"), threading.Event(), _form(picture)

    def slow() -> None:
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = f"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {_type()['Content-Type']}\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
            for number in range(len(body)):
                if stop.wait(1):
                    return
                try:
                    client.sendall(body[number : number + 1])
                except OSError:
                    return

    def others() -> None:
        time.sleep(2)
        took = []
        for _ in range(20):
            status, spent, later = _search(port, picture)
            took.append(spent)
            row.add("survived" if status == 200 else "lost", "" if status == 200 else f"status {status}, '{later}'")
        measured["beside_slow_sockets_s"] = round(max(took), 2)
        stop.set()

    _together([*[slow] * 40, others])
    return row


def _large_uploads(port: int, process: int, idle: float, measured: dict[str, float]) -> Row:
    """40 uploads of 44 MB at once: answered or refused, and the memory stays in its bounds."""
    row, picture = Row("load", "40 uploads of 44 MB"), _picture(320, 90)
    large = picture + bytes(14_700_000 - len(picture))  # trailing bytes, as some cameras append
    body, most, stop = _form(large, large, large), [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            most[0] = max(most[0], _memory(process))

    def upload() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request("POST", "/api/search", body, _type())
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            status = 503  # closed while it was sent, with the answer on its way
        row.add("survived" if status == 200 else "refused" if status in (413, 503) else "lost", f"status {status}")

    watcher = threading.Thread(target=watch)
    watcher.start()
    _together([upload] * 40)
    stop.set()
    watcher.join()
    measured["large_uploads_mb"] = round(most[0] - idle, 1)
    if most[0] - idle > MEMORY:
        row.add("wrong", f"{most[0] - idle:.0f} MB above the idle page, {MEMORY:g} are allowed")
    return row


def _leavers(port: int, picture: bytes, measured: dict[str, float]) -> Row:
    """30 users hang up at once after sending; the next one must not wait for their searches."""
    row, body = Row("load", "30 users who leave"), _form(picture)
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = f"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {_type()['Content-Type']}\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    status, spent, _ = _search(port, picture)
    measured["after_leavers_s"] = round(spent, 2)
    row.add("survived" if status == 200 else "lost", f"status {status} after {spent:.1f} s")
    return row


def _long_run(port: int, process: int, minutes: float, picture: bytes, measured: dict[str, float]) -> Row:
    """Eight users for `minutes`; the memory must be flat after the first fifth."""
    row = Row("load", f"{minutes:g} minutes")
    first = _users(port, 8, minutes * 12, picture, {})
    early = _memory(process)
    rest = _users(port, 8, minutes * 48, picture, {})
    late = _memory(process)
    row.join(first)
    row.join(rest)
    measured |= {"memory_early_mb": round(early, 1), "memory_late_mb": round(late, 1)}
    if late > GROWTH * early:
        row.add("wrong", f"memory grew from {early:.0f} to {late:.0f} MB")
    return row


def _together(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _memory(process: int) -> float:
    """Resident MB of a process."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").split("\n"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {process} has ended")


def _picture(side: int, quality: int) -> bytes:
    noise = np.random.default_rng(0).integers(90, 200, (side // 8, side // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _form(*pictures: bytes) -> bytes:
    head = 'Content-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    parts = [f"--{BOUNDARY}\r\n{head}".encode() + picture + b"\r\n" for picture in pictures]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _type() -> dict[str, str]:
    return {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
