"""Models on the Hugging Face Hub: `user/repo[@revision]`, by the Hub's own client.

HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are the client's, and so are the cache and going
on with what broke off. Only files of known names are fetched, and no pickles. The cache comes
before the network: a revision that lies there is used as it is, until it is downloaded anew.
"""

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lavps_cli.errors import WeightsError

FILES = (
    "config.json",
    "model.safetensors",
    "README.md",
    "model_index.json",
    "scheduler_config.json",
    "diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
)
"""What is fetched: a model folder of ours, or one of diffusers."""
PUSHED = ("config.json", "model.safetensors")
WAITS = (1.0, 4.0)
"""Seconds before each further try where the Hub is busy."""
_BUSY = (429, 500, 502, 503, 504)
_BROKEN = ("RemoteProtocolError", "ReadError", "ReadTimeout")
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "requests")
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][\w./-]{{0,199}}))?"
)

T = TypeVar("T")


@dataclass(frozen=True)
class Reference:
    """A repository at a revision: a branch, a tag or a commit."""

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


def parse_reference(text: str) -> Reference | None:
    """Return what `user/repo[@revision]` names, None where it is something else."""
    match = _REFERENCE.fullmatch(text)
    if match is None or ".." in text:
        return None
    return Reference(match["repo"], match["revision"] or "main")


def fetched(reference: Reference, *, offline: bool = False, anew: bool = False) -> Path:
    """Return the folder of a snapshot in the cache, which is fetched where it does not lie there.

    Args:
        reference: Repository and revision.
        offline: Never touch the network.
        anew: Ask the Hub what the revision is now, whatever lies in the cache.

    Raises:
        WeightsError: There is no such repository or revision, it may not be read, it holds no
            model, or the Hub cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()

    def snapshot(*, cached: bool) -> Path:
        folder = snapshot_download(
            reference.repo,
            revision=reference.revision,
            allow_patterns=list(FILES),
            local_files_only=cached,
        )
        return Path(folder)

    offline = offline or bool(constants.HF_HUB_OFFLINE)
    if not anew:
        try:
            found = snapshot(cached=True)
            if is_whole(found):
                return found
        except OSError:  # What the client raises where something is missing.
            pass
    if offline:
        raise WeightsError(
            f"weights {reference} are not in the cache, and the network is not to be touched.",
            f"On a machine with network:  lavps models download {reference}      "
            f"Cache: {constants.HF_HUB_CACHE}",
        )
    found = _asked(lambda: snapshot(cached=False), reference)
    if not is_whole(found):
        raise WeightsError(
            f"{reference} holds no model that can be read.",
            "That takes config.json and model.safetensors, or a diffusers folder with safetensors; "
            "pickled weights (.bin, .pt) are not fetched.",
        )
    return found


def is_whole(folder: Path) -> bool:
    """Return whether a snapshot has all files of a model."""
    groups = (
        ("config.json", "model.safetensors"),
        ("unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
        ("config.json", "diffusion_pytorch_model.safetensors"),
    )
    return any(all((folder / name).is_file() for name in group) for group in groups)


def name_of(folder: Path) -> str:
    """Return what a model folder is called: the repository and the commit for a snapshot."""
    cache = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cache.startswith("models--"):
        return f"{cache.removeprefix('models--').replace('--', '/')}@{folder.name[:8]}"
    return folder.resolve().name


def push(folder: Path, repo: str, card: str, *, public: bool, message: str) -> str:
    """Upload a model folder with its card, in one commit; return where it is.

    The repository is made where there is none, private unless `public`.

    Args:
        folder: A model folder of ours.
        repo: `user/repo`.
        card: The text of README.md.
        public: Whether everyone may read it.
        message: Of the commit.

    Raises:
        WeightsError: The Hub refuses or cannot be reached, or the repository is public and
            `public` was not said.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    reference = parse_reference(repo)
    if reference is None or "@" in repo:
        raise WeightsError(
            f"{repo!r} is no repository.", "For example:  lavps models push DIR me/faces"
        )
    api = HfApi()
    url = _asked(lambda: api.create_repo(repo, private=not public, exist_ok=True), reference)
    if not public and not _asked(lambda: api.model_info(repo), reference).private:
        raise WeightsError(
            f"{repo} is there already, and public.", "If everyone may read it:  --public"
        )
    operations = [CommitOperationAdd(name, str(folder / name)) for name in PUSHED]
    operations.append(CommitOperationAdd("README.md", card.encode()))
    _asked(
        lambda: api.create_commit(repo, operations=operations, commit_message=message), reference
    )
    return str(url)


def _asked(ask: Callable[[], T], reference: Reference) -> T:
    """Return the Hub's answer, after a few tries where it is busy, or a clear error."""
    for wait in (*WAITS, None):
        try:
            return ask()
        except Exception as error:
            if wait is None or not _may_pass(error):
                told = _told(error, reference)
                if told is None:
                    raise
                raise told from error
            time.sleep(wait)  # What was received is gone on with.
    raise AssertionError("unreachable")


def _may_pass(error: Exception) -> bool:
    """Return whether the same question may be answered in a while."""
    cause = error.__cause__ or error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    broken = _of_transport(error) and type(error).__name__ in _BROKEN
    return status in _BUSY or broken


def _told(error: Exception, reference: Reference) -> WeightsError | None:
    """Return what a user is told, None where the error is not the Hub's."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return WeightsError(
            f"{reference} is only for those who accepted its conditions.",
            "Accept them on its page, then set HF_TOKEN, or:  hf auth login",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsError(
            f"there is no repository {reference.repo} that you may read.",
            "Check the name. A private one needs HF_TOKEN, or:  hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(
            f"{reference.repo} has no revision {reference.revision!r}.",
            "A branch, a tag or a commit:  user/repo@main",
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return WeightsError(
                f"the Hub refuses {reference}: {status}.",
                "Set HF_TOKEN to a token that may do it, or:  hf auth login",
            )
        return _unreachable(reference, f"it answers {status}")
    if isinstance(error, errors.HFValidationError | OSError | RuntimeError):
        lines = str(error.__cause__ or error).strip().splitlines()
        return _unreachable(reference, lines[0] if lines else type(error).__name__)
    if _of_transport(error):
        return _unreachable(reference, str(error) or type(error).__name__)
    return None


def _of_transport(error: Exception) -> bool:
    """Return whether an error comes from what the client talks through, by its version."""
    return type(error).__module__.partition(".")[0] in _TRANSPORTS


def _unreachable(reference: Reference, why: str) -> WeightsError:
    return WeightsError(
        f"{reference} cannot be had from the Hub: {why}.",
        "Try again later, or use what lies on the disk:  --offline",
    )
