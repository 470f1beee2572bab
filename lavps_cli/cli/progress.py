"""Talk on stderr: notes, warnings and progress."""

import json
import sys
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING

from lavps_cli.cli.errors import say
from lavps_cli.cli.params import ProgressMode

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from lavps_cli.pipeline.results import Progress


_LOUDNESS: ContextVar[tuple[bool, int]] = ContextVar("loudness", default=(False, 0))


def set_loudness(*, quiet: bool, verbose: int) -> None:
    """Keep what `-q` and `-v` before the command say."""
    _LOUDNESS.set((quiet, verbose))


class Terminal:
    """Writes what the pipeline tells to stderr, as loudly as asked."""

    def __init__(self, mode: ProgressMode, *, quiet: bool, verbose: int) -> None:
        before = _LOUDNESS.get()
        self.quiet, self.verbose = quiet or before[0], verbose + before[1]
        if mode == "auto":
            mode = "bar" if sys.stderr.isatty() and not self.quiet else "none"
        self.mode = mode
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._said = (0, -1)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the bar off the screen, before a result is printed on it."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def note(self, text: str) -> None:
        if not self.quiet:
            self._say(text)

    def detail(self, text: str) -> None:
        if self.verbose:
            self._say(text)

    def warn(self, text: str) -> None:
        if not self.quiet:
            self._say(f"warning: {text}")

    def error(self, text: str) -> None:
        self._say(text)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            say(text)

    def progress(self, progress: "Progress") -> None:
        if self.mode == "bar":
            self._draw(progress)
        elif self.mode == "json":
            say(json.dumps({"schema": 1, "type": "progress"} | progress.told))
        elif self.mode == "plain" and (progress.index, progress.tenth) != self._said:
            self._said = (progress.index, progress.tenth)
            say(progress.text)

    def _draw(self, progress: "Progress") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        if self._bar is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", left="")
        assert self._task is not None
        self._bar.update(
            self._task,
            description=progress.title,
            total=progress.total,
            completed=progress.done,
            left=progress.left,
        )
