"""Models on the Hugging Face hub: a repository that holds the files of a model folder, and a card with metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from hierderm.artifacts import HEADER, read_header
from hierderm.errors import CheckpointError, HierdermError, ModelError

SECONDS = 5.0  # to wait for an answer of the hub
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"\w[\w./-]*")  # a branch, a tag or a commit


def is_hub_name(name: str) -> bool:
    """Whether a name is 'user/name' or 'user/name@revision', a repository's, and no folder of that name is here."""
    repository, at, revision = name.partition("@")
    return (
        _REPOSITORY.fullmatch(repository) is not None
        and (not at or _REVISION.fullmatch(revision) is not None)
        and not name.endswith((".npy", ".onnx", ".safetensors"))
        and not Path(name).exists()
    )


def require_repository(name: str) -> None:
    """ModelError where a name can't be that of a repository to write to."""
    if not _REPOSITORY.fullmatch(name):
        raise ModelError(f"a repository must be named 'user/name', got '{name}'.")


def unreachable(seconds: float | None = None) -> str:
    """Why the hub does not answer, '' where it does; it is not asked in offline mode."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    seconds, reason = seconds or SECONDS, list[str]()
    asked = Thread(target=_ask, args=(constants.ENDPOINT, seconds, reason), daemon=True)
    asked.start()
    asked.join(seconds)  # looking a name up has no limit of its own
    return reason[0] if reason else f"no answer within {seconds:g} s"


def _ask(address: str, seconds: float, reason: list[str]) -> None:
    """Put why an address does not answer into `reason`, '' where it does."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(address, method="HEAD"), timeout=seconds).close()
    except HTTPError:
        reason.append("")  # it answers
    except (URLError, OSError, ValueError) as error:
        reason.append(str(getattr(error, "reason", error)))
    else:
        reason.append("")


def require_hub() -> None:
    """ModelError where the hub can't be reached."""
    from huggingface_hub import constants

    if reason := unreachable():
        raise ModelError(f"the hub can't be reached at {constants.ENDPOINT} ({reason}). Nothing was put there.")


def at_revision(name: str, revision: str) -> str:
    """The name of a repository at a revision; ModelError where it is none, or has another revision already."""
    if not is_hub_name(name) or "@" in name or not _REVISION.fullmatch(revision):
        raise ModelError(
            "revision must be the branch, tag or commit of a repository of the hub, 'user/name', got "
            f"'{revision}' of '{name}'."
        )
    return f"{name}@{revision}"


def downloaded(name: str, kind: str) -> Path | None:
    """The folder with the files of a repository, of one commit; None where it holds no hierderm folder.

    Files that are in the cache of the hub are not downloaded again, and are all there is where it can't be reached.
    CheckpointError where the repository can't be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    cached = bool(unreachable())  # huggingface_hub would try for half a minute
    with _hub_faults(name, CheckpointError):
        try:
            folder = Path(
                hf_hub_download(repository, HEADER, revision=revision or None, local_files_only=cached)
            ).parent
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None
        header = read_header(folder, kind, error=CheckpointError)
        for file in header.files:
            hf_hub_download(repository, file, revision=folder.name, local_files_only=cached)  # the commit of the header
    return folder


def upload(folder: Path, name: str, *, private: bool, token: str | None) -> str:
    """Put the files of a folder into a repository, in one commit; the address of the commit.

    The repository is made where there is none. ModelError where the hub refuses, or can't be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    require_hub()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), str(path)) for path in files]
    with _hub_faults(name, ModelError):
        api = HfApi(token=token)
        place = api.create_repo(name, private=private, exist_ok=True)
        done = api.create_commit(place.repo_id, operations, commit_message="Upload by hierderm")
    return str(done.commit_url)


@contextmanager
def _hub_faults(name: str, error: type[HierdermError]) -> Iterator[None]:
    """What the hub refuses, or that it can't be reached, as `error`."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except HierdermError:
        raise
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise error(
            f"a model must be a model folder, a backbone such as 'hierderm:tiny', or a repository of the hub, got "
            f"'{name}': there is no such folder, and the hub can't be reached, or HF_HUB_OFFLINE is set."
        ) from None
    except Exception as fault:  # of the hub, of HTTP, of the disk: all kinds
        reason = " ".join(str(fault).split())[:300] or type(fault).__name__
        raise error(
            f"the hub does not give or take '{name}' ({reason}). Check the name, and for your own or private ones the "
            "token: HF_TOKEN, or hf auth login."
        ) from None
