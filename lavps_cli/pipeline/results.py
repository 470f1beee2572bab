"""What commands report about each picture, and how they listen to the work."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

from lavps_cli.errors import LavpsError


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished file; the fields are those of the JSON line."""

    status: str = "ok"
    input: str
    output: str
    task: str
    details: dict[str, Any] = field(default_factory=dict)
    """The other fields of the JSON line, in order."""

    @property
    def told(self) -> dict[str, Any]:
        kind = "plan" if self.status == "planned" else "result"
        head = {"type": kind, "status": self.status, "input": self.input, "output": self.output}
        return head | {"task": self.task} | self.details

    @property
    def plan(self) -> str:
        """What a dry run says."""
        return ", ".join(
            f"{key.removesuffix('_bytes')} {_plain(key, value)}"
            for key, value in self.details.items()
        )


def _plain(key: str, value: Any) -> str:
    if key.endswith("_bytes") and value is not None:
        return f"{value / 2**30:.1f} GiB"
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One picture that could not be done."""

    input: str
    error: LavpsError
    journal: str = ""
    """Where it is kept, if anywhere."""

    @property
    def told(self) -> dict[str, Any]:
        error = self.error
        about = {"code": error.code, "exit": error.exit_code, "message": error.message}
        return {
            "type": "result",
            "status": "error",
            "input": self.input,
            "error": about | {"hint": error.hint},
        }


Outcome = Result | Failure


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one picture is."""

    input: str
    index: int
    """Of the picture, from 1."""
    count: int
    """Pictures of the run."""
    done: int
    total: int
    """Steps."""
    seconds_left: float

    @property
    def told(self) -> dict[str, Any]:
        return asdict(self) | {"seconds_left": round(self.seconds_left, 1)}

    @property
    def tenth(self) -> int:
        """How many tenths are done."""
        return 10 * self.done // self.total

    @property
    def title(self) -> str:
        return f"[{self.index}/{self.count}] {self.input}" if self.count > 1 else self.input

    @property
    def left(self) -> str:
        """Say the time left in words."""
        seconds = round(self.seconds_left)
        if seconds >= 3600:
            return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min left"
        return (
            f"{seconds // 60} min {seconds % 60:02d} s left"
            if seconds >= 60
            else f"{seconds} s left"
        )

    @property
    def text(self) -> str:
        return f"{self.title}: step {self.done}/{self.total}, {self.left}"


@runtime_checkable
class Listener(Protocol):
    """Whoever wants to know; everything goes to stderr."""

    def note(self, text: str) -> None: ...

    def detail(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...


@dataclass(frozen=True)
class Said:
    """A listener that remembers."""

    messages: list[tuple[str, str]] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.messages.append(("note", text))

    def detail(self, text: str) -> None:
        self.messages.append(("detail", text))

    def warn(self, text: str) -> None:
        self.messages.append(("warn", text))

    def progress(self, progress: Progress) -> None:
        """Pass over: what counts on a cluster is pictures."""


@dataclass(frozen=True)
class Pipes:
    """Standard input and output, as bytes."""

    read: Callable[[], bytes]
    write: Callable[[bytes], None]


def _refused(content: bytes) -> None:
    raise AssertionError("results of other processes go to files")


FILES_ONLY = Pipes(read=bytes, write=_refused)
"""Of a worker, which has no standard input or output."""


class Summary:
    """The outcomes of one command, counted."""

    def __init__(self) -> None:
        self.codes: dict[str, set[int]] = {}
        self.reasons: Counter[str] = Counter()
        self.skipped = 0
        self.journals: set[str] = set()

    def add(self, outcome: Outcome) -> None:
        """Count one outcome; the results of one input count once."""
        codes = self.codes.setdefault(outcome.input, set())
        if isinstance(outcome, Failure):
            codes.add(outcome.error.exit_code)
            self.reasons[outcome.error.code] += 1
            self.journals.add(outcome.journal)
        else:
            codes.add(0)
            self.skipped += outcome.status == "skipped"

    @property
    def exit_code(self) -> int:
        """0 if all went well, the common code if none did, else 7."""
        codes = {max(each) for each in self.codes.values()}
        return codes.pop() if len(codes) == 1 else 7 if codes else 0

    @property
    def told(self) -> dict[str, Any]:
        """Counts of pictures."""
        failed = self.reasons.total()
        return {
            "pictures": len(self.codes),
            "failed": failed,
            "skipped": self.skipped,
            "reasons": dict(self.reasons),
            "exit": self.exit_code,
        }

    @property
    def text(self) -> str:
        """What to say at the end; nothing about a single picture."""
        count, failed = len(self.codes), self.reasons.total()
        if count < 2:
            return ""
        if not failed:
            before = f", {self.skipped} of them before" if self.skipped else ""
            return f"{count} pictures done{before}"
        reasons = ", ".join(f"{number} {code}" for code, number in self.reasons.items())
        text = f"{failed} of {count} failed ({reasons})"
        (journal, *others) = sorted(self.journals)
        return f"{text}. Details: {journal}" if journal and not others else text
