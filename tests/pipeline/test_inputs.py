"""Which pictures a command line names."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.sniffing import begins_like_picture
from lavps_cli.pipeline.inputs import find_sources, share
from lavps_cli.pipeline.job import Source
from lavps_cli.pipeline.requests import Selection
from lavps_cli.pipeline.results import Pipes, Progress
from lavps_cli.storage.names import natural

PNG = b"\x89PNG\r\n\x1a\n"


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def detail(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...


def find(*inputs: str | Path, stdin: bytes = b"", **select: Any) -> list[Source]:
    pipes = Pipes(read=lambda: stdin, write=lambda _: None)
    return find_sources(map(str, inputs), Selection(**select), Heard(), pipes)


def names(sources: list[Source], root: Path) -> list[str]:
    return [str(Path(source.path).relative_to(root)) for source in sources]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Pictures at two levels, and what lies beside pictures."""
    for name in ("a10.png", "a2.png", "b.jpg", "sub/c.png", "sub/a2.png", "sub/.hidden/d.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    (tmp_path / ".e.png").write_bytes(PNG)
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (tmp_path / "fake.png").write_text("no picture")
    return tmp_path


def test_folders_come_sorted_and_without_what_is_no_picture(tree: Path) -> None:
    assert names(find(tree), tree) == ["a2.png", "a10.png", "b.jpg"]
    below = find(tree, recursive=True)
    assert names(below, tree) == ["a2.png", "a10.png", "b.jpg", "sub/a2.png", "sub/c.png"]
    assert [source.tree for source in below] == ["", "", "", "sub", "sub"]


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({"include": ("*.jpg",)}, ["b.jpg"]),
        ({"include": ("sub/*",)}, ["sub/a2.png", "sub/c.png"]),
        ({"exclude": ("a*",)}, ["b.jpg", "sub/c.png"]),
        ({"include": ("*.png",), "exclude": ("sub/*", "a10*")}, ["a2.png"]),
        ({"limit": 2}, ["a2.png", "a10.png"]),
    ],
)
def test_selections(tree: Path, select: dict[str, Any], expected: list[str]) -> None:
    assert names(find(tree, recursive=True, **select), tree) == expected


def test_what_is_named_twice_is_done_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    found = find("a2.png", "./a2.png", tree / "a2.png", "*.png", "sub/../b.jpg")
    assert [source.path for source in found] == ["a2.png", "a10.png", "fake.png", "sub/../b.jpg"]


def test_links_in_circles_end(tree: Path) -> None:
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "sub" / "self").symlink_to("self")
    (tree / "again").symlink_to(tree / "sub")
    found = [Path(source.path).name for source in find(tree, recursive=True)]
    assert sorted(found) == ["a10.png", "a2.png", "a2.png", "b.jpg", "c.png"]


def test_a_folder_that_cannot_be_listed_is_an_item_that_fails(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = os.scandir

    def refuse(path: Path) -> Any:
        if Path(path).name == "sub":
            raise PermissionError
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(find(tree, recursive=True), tree) == ["a2.png", "a10.png", "b.jpg", "sub"]


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures"):
        find(tmp_path)


def test_patterns_are_for_names_that_are_not_there(tmp_path: Path) -> None:
    for name in ("a1.png", "a[1].png"):
        (tmp_path / name).write_bytes(PNG)
    assert names(find(tmp_path / "a[1].png"), tmp_path) == ["a[1].png"]
    assert names(find(tmp_path / "a*.png"), tmp_path) == ["a1.png", "a[1].png"]
    assert names(find(tmp_path / "b*.png"), tmp_path) == ["b*.png"]


def test_lists(tree: Path) -> None:
    (tree / "list").write_bytes(f"{tree}/b.jpg\r\n\n{tree}/a2.png\n".encode())
    assert names(find(files_from=str(tree / "list")), tree) == ["b.jpg", "a2.png"]
    odd = f"{tree}/line\nbreak.png\0{tree}/b.jpg\0".encode()
    assert names(find(files_from="-", null=True, stdin=odd), tree) == ["line\nbreak.png", "b.jpg"]
    # A list names files, not patterns: what has gone is missing, not something else.
    assert names(find(files_from="-", stdin=f"{tree}/*.jpg".encode()), tree) == ["*.jpg"]


@pytest.mark.parametrize(
    ("inputs", "stdin", "select", "message"),
    [
        (["-", "-"], b"", {}, "stdin can be read once"),
        (["-"], b"", {"files_from": "-"}, "stdin can be read once"),
        ([], b"a\0b\0", {"files_from": "-"}, "NUL ends the names"),
        ([], b"-\n", {"files_from": "-"}, "which is no file"),
        ([], b"", {"files_from": "/nowhere/list"}, "No such file"),
        (["a"], b"", {"null": True}, "about a list"),
        (["a"], b"", {"shard": "0/4"}, "expected i/n"),
        (["a"], b"", {"shard": "5/4"}, "expected i/n"),
        (["a"], b"", {"shard": "half"}, "expected i/n"),
    ],
)
def test_contradictions(
    inputs: list[str], stdin: bytes, select: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        find(*inputs, stdin=stdin, **select)


def test_shares_are_told_from_one() -> None:
    assert share(Selection(shard="2/4")) == (1, 4)
    assert share(Selection()) == (0, 1)


def test_numbers_sort_as_numbers() -> None:
    shuffled = ["b", "a10", "a9b2", "a9b10", "10", "9", "", "\N{SUPERSCRIPT TWO}"]
    expected = ["", "9", "10", "a9b2", "a9b10", "a10", "b", "\N{SUPERSCRIPT TWO}"]
    assert sorted(shuffled, key=natural) == expected


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "gif", "bmp", "ppm", "npy"])
def test_pictures_are_known_by_their_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        if kind == "npy":
            np.save(file, np.zeros((3, 3), np.float32))
        else:
            PillowImage.new("RGB", (3, 3)).save(file, kind)
    assert begins_like_picture(path.read_bytes()[:32])
    for other in (b"", b"P", b"BM", b"PK\x03\x04", b"RIFF....WAVEfmt ", b"%PDF-1.7", b"Pictures"):
        assert not begins_like_picture(other)
