"""Options about many files."""

from typing import Annotated

from lavps_cli.cli.params import COMPUTE, TALK, option, unset

FILES = "Many files"

Recursive = Annotated[
    bool, option(FILES, "--recursive", "-r", help="Folders with all that is below them.")
]
Include = Annotated[
    list[str] | None,
    unset(FILES, "--include", metavar="GLOB", help="Of folders, these files alone; repeatable."),
]
Exclude = Annotated[
    list[str] | None,
    unset(FILES, "--exclude", metavar="GLOB", help="Of folders, not these files; repeatable."),
]
Limit = Annotated[int | None, unset(FILES, "--limit", min=1, help="At most so many pictures.")]
FilesFrom = Annotated[
    str | None,
    unset(FILES, "--files-from", metavar="FILE|-", help="A list of pictures, one on each line."),
]
Null = Annotated[bool, option(FILES, "--null", "-0", help="NUL ends the names of that list.")]
Manifest = Annotated[
    str | None,
    unset(
        FILES,
        "--manifest",
        metavar="FILE.jsonl|FILE.parquet|-",
        help='Jobs, one object on each line: {"input": "a.png", "mask": "m.png", "seed": 7}; keys '
        "are names of options, paths are relative to the file. Of a table, a row is a job.",
    ),
]
Shard = Annotated[
    str | None,
    unset(FILES, "--shard", metavar="I/N", help="Every n-th picture, from the i-th."),
]
FailFast = Annotated[
    bool,
    option(FILES, "--fail-fast/--keep-going", help="Stop at the first picture that fails."),
]
Journal = Annotated[
    str | None,
    unset(
        FILES,
        "--journal",
        metavar="FILE",
        help="What is done; of several pictures, .lavps/journal.jsonl in their folder if not said.",
    ),
]
Gpus = Annotated[
    str | None,
    unset(
        COMPUTE,
        "--gpus",
        metavar="N|all|DEVICE,...",
        help="One process on each; every n-th picture goes to it.",
    ),
]
ReportFile = Annotated[
    str | None,
    unset(TALK, "--report", metavar="FILE.json", help="Write one JSON document at the end."),
]
Print0 = Annotated[bool, option(TALK, "--print0", help="NUL after each path on stdout.")]
