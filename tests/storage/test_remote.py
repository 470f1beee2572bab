"""Objects answer as files do: the same laws on a disk and in a store."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lavps_cli.errors import UsageError
from lavps_cli.storage import failures
from lavps_cli.storage.failures import UnreachableError
from lavps_cli.storage.parts import Parts
from lavps_cli.storage.places import Place, is_url, located
from lavps_cli.storage.remote import Remote

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(params=["file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, store: Remote) -> Place:
    return located(f"file://{tmp_path}") if request.param == "file" else store


def test_what_is_written_is_read(folder: Place) -> None:
    file = folder / "a.b.png"
    assert not file.exists()
    assert not file.is_file()
    file.write_bytes(b"one")
    assert (file.read_bytes(), file.stat().st_size) == (b"one", 3)
    assert (file.name, file.stem, file.suffix) == ("a.b.png", "a.b", ".png")
    assert file.parent == folder
    assert folder.is_dir()
    assert not folder.is_file()
    before = file.stat().st_mtime_ns
    file.with_name("c.png").write_bytes(b"two")
    file.write_bytes(b"six")
    assert file.stat().st_mtime_ns != before
    assert {each.name for each in folder.glob("*.png")} == {"a.b.png", "c.png"}
    file.unlink()
    with pytest.raises(FileNotFoundError):
        file.unlink()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        file.read_bytes()
    with pytest.raises(FileNotFoundError):
        file.stat()


def test_streams_can_be_read_anywhere(store: Remote) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for i in range(50):
            archive.writestr(f"{i}.txt", b"%d" % i * 1000)
    (store / "x.zip").write_bytes(content.getvalue())
    with (store / "x.zip").open() as stream, zipfile.ZipFile(stream) as archive:
        assert archive.read("7.txt") == b"7" * 1000
        assert archive.testzip() is None
    with pytest.raises(FileNotFoundError):
        (store / "none").open()


def test_no_more_is_fetched_than_may_be(store: Remote) -> None:
    (store / "large").write_bytes(bytes(1000))
    assert len((store / "large").read_bytes(most=10)) == 11
    assert len((store / "large").read_bytes(most=1000)) == 1000


def test_patterns_are_those_of_paths(folder: Place) -> None:
    for name in ("a.png", "b.jpg", "sub/c.png", "sub/deep/d.png"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"1")
    for pattern, count in (("*.png", 1), ("**/*.png", 3), ("*/*.png", 1), ("?.*", 2), ("x*", 0)):
        assert len(list(folder.glob(pattern))) == count, pattern


@pytest.mark.parametrize(
    "text",
    [
        "memory://box/../other",
        "memory://box//a",
        "memory://box/a\nb",
        "memory://box/" + "a" * 2000,
        "memory://",
        "zip://x.png::s3://box/a.zip",
        "simplecache::memory://box/a",
        "http://example.org/a.png",
        "s3://key:secret@box/a",
        "ssh://host/a",
        "file://host/a",
    ],
)
def test_urls_that_are_not_followed(text: str) -> None:
    assert is_url(text)
    with pytest.raises(UsageError) as error:
        located(text)
    assert "secret" not in error.value.message


@pytest.mark.parametrize("text", ["a.png", "/a/b", "hf:user/name", "C:\\a", "a:b", "gaussian:7@2"])
def test_paths_are_no_urls(text: str) -> None:
    assert located(text) == Path(text)


def test_names_that_mean_another_place_are_not_listed(store: Remote) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/box/good.png", b"1")
    for name in ("/box/sub/../../etc.png", "/box/a\x07.png"):
        memory.store[name] = memory.store["/box/good.png"]
    assert [each.name for each in store.below()] == ["good.png"]


def test_a_store_without_its_package_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavps_cli.storage.places.find_spec", lambda name: None)
    with pytest.raises(UsageError) as error:
        located("gs://box/a.png")
    assert "pip install fsspec gcsfs" in error.value.hint


def test_local_paths_do_not_import_fsspec() -> None:
    code = (
        "import sys; from lavps_cli.storage.places import located; import lavps_cli.storage.parts;"
        "located('a.png'), located('file:///a'); sys.exit('fsspec' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_lost_connection_is_tried_again_and_told(
    store: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "WAITS", (0.0, 0.0))
    (store / "a").write_bytes(b"content")
    memory = type(fsspec.filesystem("memory"))
    whole, calls = memory.cat_file, 0

    def cut(times: int) -> None:
        def cat_file(self: object, *args: object, **kwargs: object) -> bytes:
            nonlocal calls
            calls += 1
            content: bytes = whole(self, *args, **kwargs)
            if calls > times:
                return content
            if calls == 1:
                raise ConnectionResetError("reset")
            return content[:3]

        monkeypatch.setattr(memory, "cat_file", cat_file)

    cut(2)
    assert (store / "a").read_bytes() == b"content"
    assert calls == 3
    calls = 0
    cut(99)
    with pytest.raises(UnreachableError, match="3 times") as error:
        (store / "a").read_bytes()
    assert calls == 3
    assert error.value.filename == "memory://box/a"


def test_denials_are_not_tried_again(store: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def pipe_file(self: object, *args: object, **kwargs: object) -> None:
        calls.append(args)
        raise PermissionError("no")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", pipe_file)
    with pytest.raises(PermissionError, match="access is denied"):
        (store / "a").write_bytes(b"1")
    assert len(calls) == 1


def test_lines_of_several_writers_are_all_kept(
    store: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavps_cli.storage.parts._FULL", 300)
    lines = [json.dumps({"line": i}).encode() for i in range(60)]
    writers = [Parts(store / "log"), Parts(store / "log")]
    for i, line in enumerate(lines):
        writers[i % 2].add(line)
    assert sorted(Parts(store / "log").read()) == sorted(lines)
    objects = (store / "log").below()
    assert 2 < len(objects) < 20
    assert all(each.read_bytes().endswith(b"\n") for each in objects)


def test_lines_added_at_once_share_requests(store: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    whole, writes = Remote.write_bytes, []

    def slow(self: Remote, content: bytes) -> int:
        writes.append(len(content))
        time.sleep(0.005)
        return whole(self, content)

    monkeypatch.setattr(Remote, "write_bytes", slow)
    log = Parts(store / "log")

    def work(name: int) -> None:
        for i in range(5):
            log.add(b"%d-%d" % (name, i))
            mine = b"%d-%d\n" % (name, i)
            assert any(mine in each.read_bytes() for each in log.folder.below())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(Parts(log.folder).read())) == 40
    assert len(writes) < 40


def test_a_line_that_could_not_be_written_does_not_hold_up_the_next(
    store: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, whole = Parts(store / "log"), Remote.write_bytes

    def broken(self: Remote, content: bytes) -> int:
        raise UnreachableError("gone")

    monkeypatch.setattr(Remote, "write_bytes", broken)
    with pytest.raises(UnreachableError):
        log.add(b"first")
    monkeypatch.setattr(Remote, "write_bytes", whole)
    log.add(b"second")
    assert b"second" in list(Parts(log.folder).read())
