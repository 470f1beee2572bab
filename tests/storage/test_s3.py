"""S3, against a real server on this machine, also over a connection that breaks."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from lavps_cli.storage import failures
from lavps_cli.storage.failures import UnreachableError
from lavps_cli.storage.parts import Parts
from lavps_cli.storage.places import located
from lavps_cli.storage.remote import Remote

s3fs = pytest.importorskip("s3fs")
fsspec = pytest.importorskip("fsspec")
moto = pytest.importorskip("moto.server")

# The clients' own: sockets that a broken connection leaves to the collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)  # fmt: skip


class Proxy:
    """Passes bytes on until it is told to cut connections."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.cuts = 0
        """Connections that are still to be cut."""
        self.after = 0
        """Bytes of an answer that pass before the cut."""
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listening.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                for pair in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        passed = 0
        with suppress(OSError):
            while content := source.recv(1 << 14):
                if self.cuts and (answers or self.after == 0):
                    content = content[: max(self.after - passed, 0)]
                    if not content:
                        self.cuts -= 1
                        break
                passed += len(content)
                sink.sendall(content)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port()[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # The clients try for themselves, too, for a minute and more.
        patch.setattr(s3fs.S3FileSystem, "retries", 1)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setattr(failures, "WAITS", (0.0, 0.0))
        fsspec.filesystem("s3").mkdir("box")
        yield proxy
    proxy.close()
    server.stop()


@pytest.fixture
def box(proxy: Proxy) -> Remote:
    proxy.cuts = proxy.after = 0
    remote = located("s3://box/in")
    assert isinstance(remote, Remote)
    return remote


def test_objects_answer_as_files_do(box: Remote) -> None:
    file = box / "a b" / "ü.png"
    assert not file.exists()
    file.write_bytes(b"one")
    assert (file.read_bytes(), file.stat().st_size) == (b"one", 3)
    assert box.is_dir()
    before = file.stat()
    file.write_bytes(b"two")
    assert file.stat() != before
    assert [str(each) for each in box.below()] == ["s3://box/in/a b/ü.png"]
    assert [each.stat() for each in box.below()] == [file.stat()]
    assert box.glob("*/*.png") == [file]
    file.unlink()
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        located("s3://nowhere/a").read_bytes()
    with pytest.raises(FileNotFoundError):
        located("s3://nowhere/a").write_bytes(b"1")


@pytest.mark.parametrize("after", [0, 900, 100_000])
def test_a_cut_connection_is_made_again(box: Remote, proxy: Proxy, after: int) -> None:
    content = bytes(range(256)) * 2000
    file = box / "large"
    file.write_bytes(content)
    proxy.cuts, proxy.after = 2, after
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert proxy.cuts < 2
    proxy.cuts = 0
    file.unlink()


def test_a_write_that_is_cut_is_whole_or_not_there(box: Remote, proxy: Proxy) -> None:
    old, new = b"old" * 1000, b"newer" * 100_000
    file = box / "result"
    file.write_bytes(old)
    proxy.cuts = 2
    file.write_bytes(new)
    proxy.cuts = 0
    assert file.read_bytes() == new
    proxy.cuts = 1 << 20
    with pytest.raises(UnreachableError, match="3 times"):
        file.write_bytes(old)
    proxy.cuts = 0
    assert file.read_bytes() in (old, new)


def test_a_store_that_is_gone_is_told_in_bounded_time(box: Remote, proxy: Proxy) -> None:
    proxy.cuts = 1 << 20
    for ask in (box.exists, box.read_bytes, box.below):
        with pytest.raises(UnreachableError, match="3 times"):
            ask()


def test_lines_grow_over_a_connection_that_breaks(
    box: Remote, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavps_cli.storage.parts._FULL", 60)
    log = Parts(box / "log")
    for i in range(12):
        proxy.cuts = int(i % 4 == 2)
        log.add(b"line %d" % i)
    proxy.cuts = 0
    assert sorted(set(Parts(box / "log").read())) == sorted(b"line %d" % i for i in range(12))


def test_without_credentials_access_is_denied(box: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    (box / "a").write_bytes(b"1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        with pytest.raises(PermissionError, match="credentials"):
            (box / "a").read_bytes()
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
