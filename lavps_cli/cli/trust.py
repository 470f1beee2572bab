"""What a `lavps.toml` may not decide that lies in the folder one happens to be in.

That file is read unasked, and the folder may be somebody's: unpacked, downloaded, shared, cloned.
So it may choose how pictures are restored, and nothing that reaches beyond the folder: no code is
run, nothing is written elsewhere, no other machine is talked to, no guard is lowered. Models of the
Hub may be named: only files of known names come, and nothing in them is run. The user's own file,
`--config`, variables and the command line may do all of it, as somebody chose them.
"""

from pathlib import Path, PurePath
from typing import TypeAlias

from lavps_cli.errors import UsageError

Value: TypeAlias = bool | int | float | str | list[str]

WRITES = {"output", "uncertainty", "journal", "report", "save-mask", "html", "plot", "kernel-out",
          "log-file", "cache"}  # fmt: skip
"""Options that name what is written."""
LISTS = {"manifest", "files-from"}
"""Options that name files which say what is read and written."""
LEAVES = {"push", "public"}
"""Options by which something leaves this machine."""
LOCAL_LOGS = {"jsonl", "tensorboard"}


def check_harmless(key: str, value: Value, where: str, file: str) -> None:
    """Refuse what a file that came with somebody's pictures must not decide.

    Args:
        key: An option's long name.
        value: What it is set to.
        where: What messages call the line.
        file: How the user names the file who trusts it.

    Raises:
        UsageError: It would run code, write elsewhere, talk to another machine or lower a guard.
    """
    what = _danger(key, value)
    if what is not None:
        raise UsageError(
            f"{where} {what}, which a file found in a folder may not.",
            f"If you trust it:  --config {file}      To ignore it:  --config none",
        )


def _danger(key: str, value: Value) -> str | None:
    texts = value if isinstance(value, list) else [str(value)]
    if any(".py:" in text.lower() for text in texts):
        return "would run a program"
    if key in LEAVES or (key == "log" and not set(str(value).split(",")) <= LOCAL_LOGS):
        return "would send something away"
    away = any("://" in text or text.startswith(("//", "\\\\")) for text in texts)
    if away or key == "ray-address":
        return "would talk to another machine"
    if key in WRITES and any(_leads_away(text) for text in texts):
        return "would write outside this folder"
    if key in LISTS:
        return "would choose what is read and written"
    # Of a bomb among the pictures, and of the user's own `offline = true`.
    if key == "max-pixels" or (key == "offline" and value is False):
        return "would lower a guard"
    return None


def _leads_away(text: str) -> bool:
    """Return whether a path may lead out of the folder; hidden files are often programs' own."""
    path = PurePath(text)
    return (
        path.is_absolute()
        or any(part.startswith((".", "~")) for part in path.parts)
        or any(Path(place).is_symlink() for place in (path, *path.parents))
    )
