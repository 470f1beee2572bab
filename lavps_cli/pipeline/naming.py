"""Names of many results, settled before the first picture is opened."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from lavps_cli.errors import UsageError
from lavps_cli.pipeline.job import Source
from lavps_cli.pipeline.paths import STDIO, expected_file
from lavps_cli.pipeline.requests import Output
from lavps_cli.storage.places import Place, located


@dataclass(frozen=True)
class Named:
    """An input and where its result goes."""

    source: Source
    output: Output
    default: str
    """The template without `-o`."""
    task: str | None
    seed: int

    @cached_property
    def place(self) -> str:
        """The result's name as far as it is known, "" for stdout."""
        file = expected_file(
            self.source, self.output, default=self.default, task=self.task, seed=self.seed
        )
        if file is None:
            return ""
        return os.path.normpath(file) if isinstance(file, Path) else str(file)

    @property
    def is_certain(self) -> bool:
        """Whether nothing of the name depends on what is in the picture."""
        return bool(self.place) and "{task}" not in self.place


def settled(named: Sequence[Named]) -> list[Named]:
    """Return the inputs, `{stem}` standing for the whole name where stems alone would collide.

    `a.png` and `a.jpg` that would both become `a.png` become `a.png.png` and `a.jpg.png`.

    Raises:
        UsageError: Two results would have one name, or lie among the pictures of a folder.
    """
    _check_folders(named)
    rows: dict[str, list[int]] = {}
    for row, each in enumerate(named):
        if each.is_certain:
            rows.setdefault(each.place, []).append(row)
    result = list(named)
    for shared in rows.values():
        for row in shared if len(shared) > 1 else ():
            source = named[row].source
            result[row] = replace(
                named[row], source=replace(source, stem=located(source.path).name)
            )
    if any(len(shared) > 1 for shared in rows.values()):
        _check_different(result)
    return result


def _check_different(named: Sequence[Named]) -> None:
    taken: dict[str, str] = {}
    for each in named:
        if not each.is_certain:
            continue
        path = each.source.path
        if each.place in taken:
            other = taken[each.place]
            both = "twice" if other == path else f"of {other} and of {path}"
            raise UsageError(
                f"{each.place} would be the result {both}.",
                "Tell them apart:  -o '{dir}/{stem}_new.{ext}'   or '{tree}' for their folders",
            )
        taken[each.place] = path


def _check_folders(named: Sequence[Named]) -> None:
    checked: set[tuple[Place, str | None]] = set()
    for each in named:
        root, output = each.source.root, each.output.output
        if root is None or (root, output) in checked:
            continue
        checked.add((root, output))
        if output is None:
            raise UsageError(
                f"{root} is a folder: where shall the results go?", "Into another one:  -o DIR/"
            )
        if output == STDIO or "{" in output:
            continue
        inside = located(output).resolve()
        if root.resolve() in (inside, *inside.parents):
            raise UsageError(
                f"-o {output} lies in {root}, among the pictures.",
                "Elsewhere:  -o DIR/   or, if you mean it:  -o '{dir}/{stem}_new.{ext}'",
            )
