"""`lavps models push`, and `train --push`: a model folder with its card on the Hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavps_cli import __version__
from lavps_cli.bench.records import Record, read
from lavps_cli.bench.summary import summarise
from lavps_cli.errors import UsageError
from lavps_cli.weights.checkpoint import digest, read_config
from lavps_cli.weights.hub import parse_reference, push
from lavps_cli.weights.index import resolve

LICENCES = {
    "apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "unlicense", "bsd-3-clause",
}  # fmt: skip
"""As the Hub spells them; others are told by name."""
_USE = {
    "denoiser": "lavps restore input.png --kernel 21 --model {repo}",
    "inference": "lavps restore input.png --kernel 21 --inference {repo}",
    "latino": "lavps restore input.png --kernel 21 --method latino --inference {repo}",
    "conditional": "lavps restore input.png --kernel 21 --method conditional --model {repo}",
    "aps": "lavps restore input.png --kernel 21 --method aps --model {repo}",
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """What became of a model."""

    repo: str
    url: str
    public: bool


def publish(
    model: str,
    repo: str,
    *,
    public: bool = False,
    message: str | None = None,
    records: Sequence[str] = (),
) -> Published:
    """Upload a model folder of ours, or the newest one of a training run.

    Args:
        model: A name or a folder.
        repo: `user/repo`.
        public: Whether everyone may read it.
        message: Of the commit.
        records: Files or folders of records, which the card sums up.

    Raises:
        WeightsError: There is no such model, or the Hub refuses.
        UsageError: There are no such records.
    """
    folder = resolve(model, offline=True)
    found = _records(records)
    url = push(
        folder, repo, card(folder, repo, found), public=public,
        message=message or f"Upload with lavps {__version__}",
    )  # fmt: skip
    return Published(repo=repo, url=url, public=public)


def _records(places: Sequence[str]) -> list[Record]:
    paths = [path / "records.jsonl" if (path := Path(place)).is_dir() else path for place in places]
    for path in paths:
        if not path.is_file():
            raise UsageError(
                f"--records {path}: there is no such file.", "Give the -o of a benchmark."
            )
    return read(paths) if paths else []


def card(folder: Path, repo: str, records: Sequence[Record] = ()) -> str:
    """Return the model card: what the Hub wants to know, how to use it, what is known of it.

    Args:
        folder: A model folder; its own README.md, if any, is the body.
        repo: Where it goes.
        records: What is summed up, by method and task.
    """
    config = read_config(folder)
    licence = str(config.get("licence", "not stated"))
    spelt = licence.lower().replace(" ", "-")
    head = (
        [f"license: {spelt}"]
        if spelt in LICENCES
        else ["license: other", f"license_name: {_quoted(licence)}"]
    )
    tags = "image-restoration, diffusion, posterior-sampling"
    head += ["library_name: lavps", "pipeline_tag: image-to-image", f"tags: [{tags}]"]
    parts = ["---", *head, "---"]
    own = folder / "README.md"
    body = own.read_text(encoding="utf-8") if own.is_file() else ""
    if body.startswith("---"):
        body = body.split("---", 2)[-1].lstrip()
    use = _USE.get(str(config.get("kind")), _USE["denoiser"]).format(repo=repo)
    parts += ["", body.rstrip() or _facts(repo, config), "", "## Use", "", "```bash", use, "```"]
    parts += ["", f"sha256 of model.safetensors: `{digest(folder)}`"]
    if records:
        parts += ["", "## Measured", "", *_table(records)]
    return "\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _facts(repo: str, config: dict[str, Any]) -> str:
    shown = {key: value for key, value in config.items() if key not in ("model", "format")}
    rows = [f"| {key} | {value} |" for key, value in shown.items()]
    return "\n".join([f"# {repo.rpartition('/')[2]}", "", "| | |", "|---|---|", *rows])


def _table(records: Sequence[Record]) -> list[str]:
    """Return a table of the test images, one row for each configuration."""
    of: dict[str, list[Record]] = {}
    for record in records:
        if record.split == "test":
            of.setdefault(record.config, []).append(record)
    names = sorted({name for record in records for name in record.metrics})
    lines = [
        "| " + " | ".join(["method", "task", "images", "evaluations", *names]) + " |",
        "|---" * (4 + len(names)) + "|",
    ]
    for several in of.values():
        row = summarise(several, names)
        means = [row.metrics[name].mean for name in names]
        cells = [row.method, row.task, str(row.n), f"{row.units:.0f}"]
        cells += ["" if mean is None else f"{mean:.4g}" for mean in means]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def check_push(repo: str | None, public: bool) -> None:
    """Check the flags `--push` and `--public` before a long run.

    Raises:
        UsageError: They do not go together, or name no repository.
    """
    if repo is None:
        if public:
            raise UsageError("--public has no effect without --push.", "Add:  --push user/repo")
        return
    reference = parse_reference(repo)
    if reference is None or "@" in repo:
        raise UsageError(f"--push {repo}: that is no repository.", "For example:  --push me/faces")
