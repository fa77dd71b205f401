"""What hierderm writes is whole or absent, whatever the moment of a kill, and nothing that is not its own is lost."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from hierderm import artifacts
from hierderm.artifacts import HEADER, claim_folder, holds, read_folder, read_header, require_free_folder, write_folder
from hierderm.errors import EmbeddingError, OutputError
from hierderm.files import file_hash, is_temporary, locked, replacing, require_free, write_atomically, write_json
from tests.killing import kill_at_every_change
from tests.processes import prepared

NAMES = ["a.txt", "below/b.txt"]


def save(path: Path, word: str, *, replace: bool = False) -> None:
    def write(folder: Path) -> None:
        (folder / "below").mkdir()
        for name in NAMES:
            (folder / name).write_text(word)

    write_folder(path, "words", {"word": word}, write, replace=replace)


def save_old(path: Path) -> None:
    save(path, "old")


def save_new(path: Path) -> None:
    save(path, "new", replace=True)


def load(path: Path) -> str:
    """The word that all files and the header of a folder agree on."""
    words = read_folder(path, "words", lambda h: {h.content["word"], *((path / name).read_text() for name in h.files)})
    (word,) = words
    return str(word)


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder with its bytes, and every link with its target."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and not path.name.endswith(".lock")
    }


# --- files -------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            assert is_temporary(temporary.name)
            temporary.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": 1.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"ä": 1.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})


def test_two_writers_of_a_file_have_a_temporary_each(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert path.read_text() == "first"  # its block ended last


def test_what_a_killed_writer_left_goes_after_an_hour_and_nothing_else(tmp_path: Path) -> None:
    names = (".a.txt.1-00000000.tmp", ".a.txt.2-00000001.tmp", ".b.txt.1-00000000.tmp", ".a.txt.tmp", ".a.txt.1-x.tmp")
    long_dead, fresh, *others = [tmp_path / name for name in names]
    for path in (long_dead, fresh, *others):
        path.write_text("half")
        if path != fresh:
            os.utime(path, (0, time.time() - 3601))
    write_atomically(tmp_path / "a.txt", "new")
    assert not long_dead.exists()
    assert all(path.exists() for path in (fresh, *others))


def test_names_of_our_own() -> None:
    for name in (".x.12-0123abcd.tmp", ".x.y.csv.12-0123abcd.old", ".x.lock"):
        assert is_temporary(name), name
    for name in ("x.12-0123abcd.tmp", ".x.tmp", ".x.12-0123abcg.tmp", ".x.12.tmp", "hierderm.json", "x.lock", ".x"):
        assert not is_temporary(name), name


def test_an_output_file_must_be_free(tmp_path: Path) -> None:
    taken, link = tmp_path / "cases.csv", tmp_path / "link.csv"
    require_free(tmp_path / "not" / "yet" / "there.csv")
    taken.write_text("mine")
    with pytest.raises(OutputError, match=r"cases.csv exists and would be overwritten. .* replace it \(--replace\)"):
        require_free(taken)
    require_free(taken, replace=True)
    with pytest.raises(OutputError, match=r"must be a file to write, it is a folder"):
        require_free(tmp_path, replace=True)
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=r"link.csv must be a file to write, it is a symbolic link"):
        require_free(link, replace=True)
    with pytest.raises(OutputError, match=r"can't be written: .*cases.csv is not a folder"):
        require_free(taken / "deep" / "a.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_write_protected_place_is_named_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=r"is write-protected. Choose another path"):
        require_free(tmp_path / "a.csv")
    with pytest.raises(OutputError, match=r"is write-protected. Choose another path"):
        require_free_folder(tmp_path / "a", "words")


# --- folders of one piece ----------------------------------------------------------------------------------------


def test_a_folder_carries_its_header(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "w"
    save(path, "old")
    header = json.loads((path / HEADER).read_text())
    assert header == {
        "format": "hierderm words",
        "version": 1,
        "files": {name: file_hash(path / name) for name in NAMES},
        "content": {"word": "old"},
    }
    assert load(path) == "old"
    assert sorted(p.name for p in path.parent.iterdir()) == [".w.lock", "w"]


def test_an_old_folder_is_kept_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.mkdir()  # an empty folder is free
    save(path, "old")
    with pytest.raises(OutputError, match=r"w holds a hierderm words folder. .* replace it \(--replace\)"):
        save(path, "new")
    assert load(path) == "old"
    save(path, "new", replace=True)
    assert load(path) == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".w.lock", "w"]


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    save(tmp_path / "w", "old")
    before = snapshot(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "a.txt").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"w could not be written: .*No space left on device"):
        write_folder(tmp_path / "w", "words", {}, fail, replace=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_not_ours_is_refused_and_stays(replace: bool, tmp_path: Path) -> None:
    images, file, ours, other, link = (tmp_path / name for name in ("images", "file", "ours", "other", "link"))
    images.mkdir()
    for name in ("d.jpg", "c.jpg", "b.jpg", "a.jpg"):
        (images / name).write_bytes(b"jpeg")
    file.write_text("thesis")
    save(ours, "old")
    (ours / "below" / "notes.txt").write_text("mine")
    write_folder(other, "numbers", {}, lambda folder: None)
    link.symlink_to(ours)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = snapshot(tmp_path)
    for name, message in {
        "images": r"images holds files that hierderm did not write \(a.jpg, b.jpg, c.jpg and 1 more\). Choose another",
        "file": r"file must be a folder to write, it is a file. Choose another path",
        "ours": r"ours holds files besides those of its words \(below/notes.txt\). Move them, or choose another path",
        "other": r"other must be a hierderm words folder, it is a numbers folder",
        "link": r"link must be a folder to write, it is a symbolic link. Give the folder it points to",
        "dangling": r"dangling must be a folder to write, it is a symbolic link",
        "file/below": r"below can't be written: .*file is not a folder",
    }.items():
        with pytest.raises(OutputError, match=message):
            save(tmp_path / name, "new", replace=replace)
        with pytest.raises(OutputError, match=message):
            require_free_folder(tmp_path / name, "words", replace=replace)
    assert snapshot(tmp_path) == before


def test_a_file_that_comes_while_we_write_stays(tmp_path: Path) -> None:
    path = tmp_path / "w"
    save(path, "old")

    def write(folder: Path) -> None:
        (path / "late.txt").write_text("mine")

    with pytest.raises(OutputError, match=r"holds files besides those of its words \(late.txt\)"):
        write_folder(path, "words", {}, write, replace=True)
    assert (path / "late.txt").read_text() == "mine"
    assert (path / "a.txt").read_text() == "old"


def test_the_folder_one_stands_in_is_not_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"it is the one you are in. Name a folder inside it"):
        save(Path(), "new")
    save(Path("inside"), "new")
    assert load(Path("inside")) == "new"


def test_a_path_through_a_link_is_the_one_the_system_means(tmp_path: Path) -> None:
    (tmp_path / "large" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "large" / "disk")
    for path in (tmp_path / "link" / "w", tmp_path / "link" / ".." / "v"):
        save(path, "old")
        save(path, "new", replace=True)
        assert load(path) == "new"
    assert load(tmp_path / "large" / "v") == "new" and (tmp_path / "link").is_symlink()


def test_a_linked_file_is_foreign_and_what_it_points_to_stays(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "w", tmp_path / "elsewhere"
    save(path, "old")
    (path / "below").rename(elsewhere)
    (path / "below").symlink_to(elsewhere)
    with pytest.raises(OutputError, match=r"holds files besides those of its words \(below\)"):
        save(path, "new", replace=True)
    assert (elsewhere / "b.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"hierderm.json is damaged \(.*\). Restore a copy, or delete the folder and make it"),
        ("[" * 100_000, r"hierderm.json is damaged"),
        ("\udcff", r"hierderm.json is damaged"),
        ("[]", r"hierderm.json must be the header of a folder that hierderm wrote"),
        ('{"format": "thesis"}', r"hierderm.json must be the header of a folder that hierderm wrote"),
        ('{"format": 3}', r"hierderm.json must be the header of a folder that hierderm wrote"),
        ('{"format": "hierderm words"}', r"hierderm.json is damaged: 'version' must be a whole number"),
        ('{"format": "hierderm words", "version": true, "files": {}, "content": {}}', r"is damaged"),
        ('{"format": "hierderm words", "version": 1, "files": [], "content": {}}', r"is damaged"),
        ('{"format": "hierderm words", "version": 1, "files": {}, "content": []}', r"is damaged"),
        ('{"format": "hierderm words", "version": 1, "files": {"a.txt": 1}, "content": {}}', r"is damaged"),
        (
            '{"format": "hierderm words", "version": 1, "files": {"../x": "0123456789ab"}, "content": {}}',
            r"'files' the hash of each file",
        ),
        ('{"format": "hierderm words", "version": 1, "files": {"/x": "0123456789ab"}, "content": {}}', r"is damaged"),
    ],
)
def test_a_damaged_header_is_named_and_nothing_is_touched(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "w"
    save(path, "old")
    (path / HEADER).write_bytes(text.encode(errors="surrogateescape"))
    before = snapshot(tmp_path)
    with pytest.raises(EmbeddingError, match=message):
        read_folder(path, "words", lambda header: header, error=EmbeddingError)
    with pytest.raises(OutputError, match=message):
        save(path, "new", replace=True)
    with pytest.raises(OutputError, match=message):
        claim_folder(path, "words")
    assert not holds(path, "words")
    assert snapshot(tmp_path) == before


def test_readers_say_what_is_not_there_and_what_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    save(tmp_path / "w", "old")
    for name, message in {
        "none": "none must be a hierderm words folder, it does not exist",
        "empty": "empty must be a hierderm words folder, it has no hierderm.json",
        "file": "file must be a hierderm words folder, it is a file",
    }.items():
        with pytest.raises(EmbeddingError, match=message):
            read_header(tmp_path / name, "words", error=EmbeddingError)
    with pytest.raises(OutputError, match="w must be a hierderm numbers folder, it is a words folder. Give another"):
        read_header(tmp_path / "w", "numbers")
    with pytest.raises(OutputError, match="w has format version 1, this hierderm reads version 2. Make the folder"):
        read_folder(tmp_path / "w", "words", lambda header: header, version=2)
    assert holds(tmp_path / "w", "words") and not holds(tmp_path / "w", "numbers") and not holds(tmp_path, "words")


def test_each_damaged_file_is_named(tmp_path: Path) -> None:
    save(tmp_path / "w", "old")
    (tmp_path / "w" / "a.txt").write_text("odd")
    (tmp_path / "w" / "below" / "b.txt").unlink()
    message = r"w: a.txt is damaged: its checksum differs \(3 bytes\); below/b.txt is missing. Restore a copy"
    with pytest.raises(EmbeddingError, match=message):
        read_folder(tmp_path / "w", "words", lambda header: header, error=EmbeddingError)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_are_those_of_the_umask(umask: int, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "private").touch(0o600)  # as safetensors makes its files

    before = os.umask(umask)
    try:
        write_folder(tmp_path / "w", "words", {}, write)
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    for name in ("w/private", "w/hierderm.json", "a.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask, name
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o777 & ~umask


# --- kills -------------------------------------------------------------------------------------------------------


def left_over(path: Path) -> list[str]:
    return [name.name for name in path.parent.iterdir() if name.name not in ("w", ".w.lock")]


@pytest.mark.together("processes")
def test_whatever_the_moment_of_a_kill_the_old_or_the_new_folder_is_whole(tmp_path: Path) -> None:
    paths = kill_at_every_change(tmp_path, save_old, save_new)
    words = [load(path) for path in paths]
    n_old = words.count("old")
    assert words == ["old"] * n_old + ["new"] * (len(words) - n_old)
    assert n_old > 8 and len(words) - n_old > 4  # before, between and after the two moves
    assert any(left_over(path) for path in paths)
    for path in paths:
        save(path, "newest", replace=True)
        assert load(path) == "newest" and not left_over(path)


@pytest.mark.together("processes")
def test_after_a_kill_the_old_folder_is_still_refused(tmp_path: Path) -> None:
    for path in kill_at_every_change(tmp_path, save_old, save_new):
        with pytest.raises(OutputError, match="holds a hierderm words folder"):
            save(path, "newest")
        assert load(path) in ("old", "new")


@pytest.mark.together("processes")
def test_whatever_the_moment_of_a_kill_a_new_folder_is_whole_or_absent(tmp_path: Path) -> None:
    paths = kill_at_every_change(tmp_path, None, save_new)
    there = [holds(path, "words") for path in paths]
    assert there == sorted(there) and there.count(False) > 8
    for path, found in zip(paths, there, strict=True):
        assert path.exists() == found
        if found:
            assert load(path) == "new"
        else:
            save(path, "again")
            assert load(path) == "again" and not left_over(path)


def interrupted(path: Path) -> Path:
    """A folder as a kill between the two moves leaves it: absent, and the old one aside."""
    save(path, "old")
    aside = path.with_name(f".{path.name}.1-00000000.old")
    path.rename(aside)
    return aside


def test_the_old_folder_returns_for_readers_and_claims(tmp_path: Path) -> None:
    path = tmp_path / "w"
    aside = interrupted(path)
    assert holds(path, "words")
    assert load(path) == "old" and not aside.exists()
    aside = interrupted(tmp_path / "v")
    with pytest.raises(OutputError, match="holds a hierderm words folder"):
        require_free_folder(tmp_path / "v", "words")  # before any work


def test_an_empty_folder_in_its_place_does_not_cost_the_old_one(tmp_path: Path) -> None:
    interrupted(tmp_path / "w")
    (tmp_path / "w").mkdir()
    assert load(tmp_path / "w") == "old"


def test_a_foreign_folder_in_its_place_costs_neither(tmp_path: Path) -> None:
    path = tmp_path / "w"
    aside = interrupted(path)
    path.mkdir()
    (path / "thesis.doc").touch()
    with pytest.raises(OutputError, match=r"did not write \(thesis.doc\)"):
        save(path, "new", replace=True)
    assert (path / "thesis.doc").exists() and (aside / "a.txt").read_text() == "old"


def test_a_folder_half_removed_does_not_return(tmp_path: Path) -> None:
    path = tmp_path / "w"
    aside = interrupted(path)
    (aside / "a.txt").unlink()  # the new one had moved in, and was deleted by its owner since
    with pytest.raises(OutputError, match="it does not exist"):
        load(path)
    assert not aside.exists()


def test_what_lies_aside_loses_only_what_its_header_lists(tmp_path: Path) -> None:
    path = tmp_path / "w"
    aside = interrupted(path)
    (aside / "notes.txt").write_text("mine")
    save(path / ".." / "v", "new")  # no relation
    (tmp_path / "v").rename(path)
    save(path, "newest", replace=True)
    assert snapshot(aside) == {"notes.txt": b"mine"}


# --- several processes -------------------------------------------------------------------------------------------


def rewrite(path: Path, name: str) -> None:
    for number in range(30):
        save(path, f"{name}{number}", replace=True)


@pytest.mark.together("processes")
def test_two_rewrite_a_folder_while_a_third_reads(tmp_path: Path) -> None:
    path = tmp_path / "w"
    save(path, "start")
    writers = [prepared().Process(target=rewrite, args=(path, name)) for name in ("first", "second")]
    for writer in writers:
        writer.start()
    words = set()
    while any(writer.is_alive() for writer in writers):
        words.add(load(path))  # never a mixture, never absent
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(words) > 1 and load(path) in ("first29", "second29")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".w.lock", "w"]


def test_of_two_that_do_not_replace_one_is_refused(tmp_path: Path) -> None:
    path, started, errors = tmp_path / "w", threading.Event(), list[str]()

    def slow(folder: Path) -> None:
        started.set()
        time.sleep(0.3)

    first = threading.Thread(target=write_folder, args=(path, "words", {"word": "first"}, slow))
    first.start()
    assert started.wait(10)
    try:
        save(path, "second")
    except OutputError as error:
        errors.append(str(error))
    first.join()
    assert len(errors) == 1 and "holds a hierderm words folder" in errors[0]
    assert load(path) == "first"


def test_a_second_writer_waits_and_then_says_so(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with (
        locked(path),
        pytest.raises(EmbeddingError, match="w has been written by another process for 0.1 s. Try again later"),
        locked(path, timeout=0.1, error=EmbeddingError),
    ):
        pass


def test_a_folder_rewritten_all_the_time_is_an_error(tmp_path: Path) -> None:
    path, count = tmp_path / "w", iter(range(1000))
    save(path, "old")
    with pytest.raises(OutputError, match="is being rewritten all the time. Try again later"):
        read_folder(path, "words", lambda header: save(path, f"new{next(count)}", replace=True))
    assert next(count) == artifacts.ATTEMPTS


# --- folders that fill step by step ------------------------------------------------------------------------------


def test_a_claimed_folder_is_accepted_again_and_others_are_not(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    claim_folder(run, "run")
    (run / "cases.csv").write_text("ours")
    claim_folder(run, "run")
    assert (run / "cases.csv").read_text() == "ours"
    with pytest.raises(OutputError, match="run must be a hierderm benchmark folder, it is a run folder"):
        claim_folder(run, "benchmark")
    claim_folder(run, "benchmark", "run")
    with pytest.raises(OutputError, match="run must be a hierderm benchmark or tuning folder, it is a run folder"):
        claim_folder(run, "benchmark", "tuning")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cases.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"mine holds files that hierderm did not write \(cases.csv\)"):
        claim_folder(tmp_path / "mine", "run")
    with pytest.raises(OutputError, match=r"cases.csv must be a folder to write, it is a file"):
        claim_folder(tmp_path / "mine" / "cases.csv", "run")
    assert snapshot(tmp_path / "mine") == {"cases.csv": b"mine"}


def test_a_claim_killed_before_its_header_can_be_made_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".{HEADER}.1-00000000.tmp").write_text("{")
    (tmp_path / "run" / ".model.lock").touch()
    claim_folder(tmp_path / "run", "run")
    assert holds(tmp_path / "run", "run")


def test_a_claim_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "large-disk")
    claim_folder(tmp_path / "run", "run")
    claim_folder(tmp_path / "run", "run")
    assert (tmp_path / "run").is_symlink() and holds(tmp_path / "large-disk", "run")
