from collections.abc import Iterator

import pytest

from lavps_cli.storage.places import located
from lavps_cli.storage.remote import Remote


@pytest.fixture
def store() -> Iterator[Remote]:
    """An empty place in memory."""
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    remote = located("memory://box")
    assert isinstance(remote, Remote)
    yield remote
    memory.store.clear()
