"""What is done already, as it survives kills, full disks and moves."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lavps_cli.errors import OutputError
from lavps_cli.pipeline.journal import NAME, Entry, Journal, Journals, Stamp, is_untouched, stamp_of


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """An input and its result, in different folders."""
    source, result = tmp_path / "in.png", tmp_path / "out" / "in.png"
    source.write_bytes(b"observation")
    result.parent.mkdir()
    result.write_bytes(b"result")
    files = ((result, stamp_of(result)),)
    return Entry(str(result), str(source), "digest", stamp_of(source), files, task="sr")


def known(folder: Path, entry: Entry) -> Entry | None:
    return Journal(folder / NAME).known(str(folder / "in.png"), entry.settings)


def test_what_is_added_is_known_to_the_next_run(tmp_path: Path, entry: Entry) -> None:
    out = tmp_path / "out"
    Journal(out / NAME).add(entry)
    assert known(out, entry) == entry
    assert known(out, replace(entry, settings="other")) is None
    assert entry.is_done
    assert entry.owned == {(out / "in.png").resolve()}


def test_failures_are_kept_and_tried_again(tmp_path: Path, entry: Entry) -> None:
    journal = Journal(tmp_path / "out" / NAME)
    journal.add(replace(entry, error="no memory", files=()))
    (line,) = map(json.loads, journal.path.read_text().splitlines())
    assert (line["status"], line["error"]) == ("error", "no memory")
    assert known(tmp_path / "out", entry) is None


def test_a_result_that_was_changed_is_not_ours(tmp_path: Path, entry: Entry) -> None:
    result = tmp_path / "out" / "in.png"
    os.utime(result, ns=(1, 1))
    assert entry.is_done  # Touched, and the same.
    result.write_bytes(b"edited")
    assert not entry.is_done
    assert not entry.owned
    result.unlink()
    assert not entry.is_done


def test_the_folder_may_be_moved(tmp_path: Path, entry: Entry) -> None:
    Journal(tmp_path / "out" / NAME).add(entry)
    moved = (tmp_path / "out").rename(tmp_path / "elsewhere")
    found = known(moved, entry)
    assert found is not None
    assert found.is_done


@pytest.mark.parametrize(
    "damage",
    [b'{"schema":1,"sta', b"\0\0\0\n", b"[]\n", b'{"status":"ok"}\n', b"\xff\xfe\n", b"9" * 5000],
)
def test_damaged_lines_cost_nothing_else(tmp_path: Path, entry: Entry, damage: bytes) -> None:
    out = tmp_path / "out"
    Journal(out / NAME).add(replace(entry, place=str(out / "first.png")))
    with (out / NAME).open("ab") as file:
        file.write(damage)
    Journal(out / NAME).add(entry)
    assert known(out, entry) == entry
    assert Journal(out / NAME).known(str(out / "first.png"), "digest") is not None


def test_several_processes_append_to_one_file(tmp_path: Path, entry: Entry) -> None:
    journals = [Journal(tmp_path / "j.jsonl") for _ in range(3)]
    for row in range(30):
        journals[row % 3].add(replace(entry, place=str(tmp_path / f"{row}.png")))
    whole = Journal(tmp_path / "j.jsonl")
    assert all(whole.known(str(tmp_path / f"{row}.png"), "digest") for row in range(30))


def test_names_are_kept_as_they_are(tmp_path: Path, entry: Entry) -> None:
    odd = [os.fsdecode(b"\xe9"), "a\nb", "\N{CAT FACE}", '"']
    journal = Journal(tmp_path / "j.jsonl")
    for name in odd:
        journal.add(replace(entry, place=str(tmp_path / name), input=name))
    assert len(journal.path.read_bytes().splitlines()) == len(odd)
    assert all(Journal(journal.path).known(str(tmp_path / name), "digest") for name in odd)


def test_a_journal_that_cannot_be_used_is_told(tmp_path: Path, entry: Entry) -> None:
    (tmp_path / "j").mkdir()
    with pytest.raises(OutputError, match="cannot be used"):
        Journals().at(tmp_path / "j")
    assert Journals().at(None) is None


def test_stamps_tell_changes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    stamp = stamp_of(path)
    assert stamp == Stamp.of_content(b"one", stamp.time)
    assert is_untouched(path, stamp)
    path.write_bytes(b"other")
    assert not is_untouched(path, stamp)
    assert not is_untouched(tmp_path / "none", stamp)
