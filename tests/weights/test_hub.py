"""The Hub's real client against a small Hub on this machine."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from lavps_cli.errors import UsageError, WeightsError
from lavps_cli.pipeline.listing import download
from lavps_cli.pipeline.publishing import card, check_push, publish
from lavps_cli.weights import hub
from lavps_cli.weights.checkpoint import digest
from lavps_cli.weights.hub import Reference, name_of, parse_reference
from lavps_cli.weights.index import resolve

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import Hub, Repo, serving


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with the model acme/faces, which the client in this process asks."""
    with serving() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        template = found.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(hub, "WAITS", (0.0, 0.0))
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield found


def model_files(folder: Path) -> dict[str, bytes]:
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    return files | {"README.md": b"# Faces\n", "evil.bin": b"pickled", "training/opt.pt": b"x"}


@pytest.fixture
def faces(server: Hub, model_folder: Path) -> Repo:
    repo = server.repos["acme/faces"] = Repo()
    repo.commit(model_files(model_folder))
    return repo


def test_references() -> None:
    assert parse_reference("acme/faces") == Reference("acme/faces")
    assert parse_reference("acme/faces@9f3c1e0") == Reference("acme/faces", "9f3c1e0")
    assert parse_reference("acme/faces@refs/pr/1") == Reference("acme/faces", "refs/pr/1")
    for text in (
        "faces",
        "a/b/c",
        "../faces",
        "acme/..",
        "/etc/passwd",
        "acme/",
        "~/x",
        "a/b@../c",
    ):
        assert parse_reference(text) is None


def test_a_model_is_fetched_once_and_then_lies_in_the_cache(
    server: Hub, faces: Repo, model_folder: Path
) -> None:
    folder = resolve("acme/faces")
    assert digest(folder) == digest(model_folder)
    assert sorted(path.name for path in folder.rglob("*")) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert name_of(folder) == f"acme/faces@{faces.main[:8]}"
    server.asked.clear()
    for text in ("acme/faces", f"acme/faces@{faces.main}"):
        assert resolve(text) == folder
        assert resolve(text, offline=True) == folder
    assert server.asked == []


def test_a_revision_stays_until_it_is_downloaded_anew(
    server: Hub, faces: Repo, model_folder: Path
) -> None:
    first = resolve("acme/faces")
    old = faces.main
    newer = json.loads((model_folder / "config.json").read_text()) | {"licence": "MIT"}
    faces.commit(model_files(model_folder) | {"config.json": json.dumps(newer).encode()})
    assert resolve("acme/faces") == first
    found = download("acme/faces")
    assert found["revision"] == faces.main != old
    assert json.loads((resolve("acme/faces") / "config.json").read_text())["licence"] == "MIT"
    assert resolve(f"acme/faces@{old}") == first  # What is pinned is what it was.


def test_what_cannot_be_had_ends_in_one_clear_error(server: Hub, faces: Repo) -> None:
    server.repos["acme/secret"] = Repo({"0" * 40: {}}, private=True)
    server.repos["acme/gated"] = Repo({"0" * 40: {}}, gated=True)
    server.repos["acme/pickles"] = Repo({"0" * 40: {"config.json": b"{}", "model.bin": b""}})
    for text, words in (
        ("acme/nothing", "no repository"),
        ("acme/secret", "no repository"),
        ("acme/gated", "conditions"),
        ("acme/faces@nowhere", "no revision"),
        ("acme/pickles", "no model that can be read"),
    ):
        with pytest.raises(WeightsError, match=words) as error:
            resolve(text)
        assert error.value.hint
    with pytest.raises(WeightsError, match="not to be touched") as error:
        resolve("acme/faces", offline=True)
    assert "lavps models download acme/faces" in error.value.hint


def test_a_token_opens_what_is_private(
    server: Hub, faces: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces.private, server.token = True, "hf_test"
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    assert (resolve("acme/faces") / "model.safetensors").is_file()


def test_a_busy_hub_is_asked_again(server: Hub, faces: Repo) -> None:
    server.busy = 1
    assert resolve("acme/faces").is_dir()


def test_a_hub_that_stays_busy_or_is_gone_is_told(server: Hub, faces: Repo) -> None:
    server.busy = 10_000
    with pytest.raises(WeightsError, match="cannot be had"):
        resolve("acme/faces")
    server.busy = 0
    constants.ENDPOINT = "http://127.0.0.1:9"  # Undone by the fixture.
    with pytest.raises(WeightsError, match="cannot be had"):
        resolve("acme/faces")


def test_a_connection_that_breaks_off_is_resumed(
    server: Hub, faces: Repo, model_folder: Path
) -> None:
    files = faces.commits[faces.main]
    server.cut_at = len(files["model.safetensors"]) // 2
    assert server.cut_at > max(len(files["config.json"]), len(files["README.md"]))
    folder = resolve("acme/faces")
    assert digest(folder) == digest(model_folder)
    gets = [line for line in server.asked if line.startswith("GET") and "model.safetensors" in line]
    assert len(gets) == 2


def test_names_that_climb_out_are_not_written(
    server: Hub, faces: Repo, tmp_path: Path, model_folder: Path
) -> None:
    faces.commit(model_files(model_folder) | {"../../../../config.json": b"{}", "unet/../x": b""})
    resolve("acme/faces")
    outside = [p for p in tmp_path.rglob("*") if (tmp_path / "hub") not in (p, *p.parents)]
    assert outside == []


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # The client's own.
def test_push_and_back(server: Hub, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "hf_test"
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    found = publish(str(model_folder), "me/mine")
    assert found.url == f"{server.endpoint}/me/mine"
    repo = server.repos["me/mine"]
    assert repo.private
    assert set(repo.commits[repo.main]) == {"config.json", "model.safetensors", "README.md"}
    text = repo.commits[repo.main]["README.md"].decode()
    assert text.startswith("---\nlicense: cc0-1.0\n")
    assert "--model me/mine" in text
    assert digest(resolve("me/mine")) == digest(model_folder)
    publish(str(model_folder), "me/open", public=True)
    assert not server.repos["me/open"].private
    with pytest.raises(WeightsError, match="public"):
        publish(str(model_folder), "me/open")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(WeightsError, match="refuses"):
        publish(str(model_folder), "me/other")


def test_flags_of_pushing_are_checked_before_training() -> None:
    check_push(None, False)
    check_push("me/mine", True)
    for repo, public in (("mine", False), ("a/b/c", False), (None, True)):
        with pytest.raises(UsageError):
            check_push(repo, public)


def test_the_card_of_a_licence_that_the_hub_does_not_know(
    tmp_path: Path, model_folder: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"licence": 'Mine: "all"\nof it'}))
    (tmp_path / "README.md").write_text("---\nold: front\n---\n\n# My model\n")
    text = card(tmp_path, "me/mine")
    assert 'license: other\nlicense_name: "Mine: \\"all\\" of it"\n' in text
    assert "old: front" not in text
    assert "# My model" in text


def test_the_environment_is_honoured(server: Hub, faces: Repo, tmp_path: Path) -> None:
    """As a user's shell sets it: the client reads it when it is imported."""
    env = os.environ | {
        "HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "lavps_cli", "models", "download", "acme/faces"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\S+/home/hub/models--acme--faces/snapshots/\w+\n", done.stdout)
    env["HF_HUB_OFFLINE"] = "1"
    server.asked.clear()
    info = [sys.executable, "-m", "lavps_cli", "models", "path", "acme/faces"]
    again = subprocess.run(info, env=env, capture_output=True, text=True, check=False)
    assert again.stdout == done.stdout
    assert server.asked == []
