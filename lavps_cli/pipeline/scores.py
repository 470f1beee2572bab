"""`lavps evaluate`: restored pictures against references."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.nn.functional import interpolate

from lavps_cli.bench.summary import Statistic, statistic_of
from lavps_cli.core.types import Image
from lavps_cli.errors import DataError, LavpsError, UsageError
from lavps_cli.images.picture import Picture
from lavps_cli.images.reading import load_picture
from lavps_cli.pipeline.metrics import ImageMetric, open_metrics
from lavps_cli.pipeline.results import Listener
from lavps_cli.pipeline.set_metrics import CMMD, Cmmd, told

MADE = (".restored", ".degraded", ".compare")
"""What our own commands put between the stem and the suffix."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Everything that `evaluate` is asked."""

    restored: str
    reference: str
    metrics: str = "psnr,ssim,lpips"
    own_metrics: tuple[str, ...] = ()
    resize: bool = False
    border: int = 0
    offline: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of pairs of pictures."""

    pairs: list[dict[str, Any]]
    """Names, values and what was noted, pair by pair."""
    metrics: dict[str, Statistic]
    about: list[dict[str, Any]]
    """Range, border, net and version of the metrics."""
    missing: list[str]
    """Restored pictures without a reference, and references without a restored picture."""
    failed: list[dict[str, Any]]

    @property
    def told(self) -> dict[str, Any]:
        return {"type": "evaluation"} | asdict(self)

    @property
    def exit_code(self) -> int:
        """0; 3 where no pair could be scored; 7 where some could not, or are missing."""
        if not self.pairs:
            return 3
        return 7 if self.failed or self.missing else 0


def evaluate(request: EvaluationRequest, listener: Listener) -> Evaluation:
    """Score pairs of pictures, matched by stem; a pair that fails does not stop the others.

    Raises:
        UsageError: The flags make no sense.
        DataError: There are no pairs at all.
    """
    names = [name.strip() for name in request.metrics.split(",") if name.strip()]
    wants_cmmd = CMMD in names
    metrics = open_metrics(
        [*[n for n in names if n != CMMD], *request.own_metrics], offline=request.offline
    )
    if request.border < 0:
        raise UsageError(f"--border {request.border}: it cannot be negative.", "Give 0 or more.")
    for metric in metrics:
        if metric.score is None:
            listener.warn(f"{metric.name} is left out: {metric.reason}")
    pairs, missing = _pairs(Path(request.restored), Path(request.reference))
    for text in missing:
        listener.warn(text)
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    sides: tuple[list[Image], list[Image]] = ([], [])
    for restored, reference in pairs:
        try:
            xhat, x, notes = _aligned(restored, reference, request.resize, request.border)
        except LavpsError as error:
            listener.warn(error.message)
            failed.append({"restored": str(restored), "error": error.message, "hint": error.hint})
            continue
        scores = {metric.name: metric.measure(xhat, x) for metric in metrics}
        reasons = {name: reason for name, (_, reason) in scores.items() if reason}
        rows.append(
            {
                "restored": str(restored),
                "reference": str(reference),
                "metrics": {name: value for name, (value, _) in scores.items()},
                "reasons": reasons,
                "notes": notes,
            }
        )
        if wants_cmmd:
            sides[0].append(xhat)
            sides[1].append(x)
    found = {metric.name: _statistic(rows, metric) for metric in metrics}
    if wants_cmmd:
        found |= Cmmd().statistics(*sides)
        if (reason := found[CMMD].reason) is not None:
            listener.warn(f"cmmd is left out: {reason}")
    about = [metric.told for metric in metrics]
    if wants_cmmd:
        about.append(told())
    for each in about:
        if request.border:
            each["cropped"] = f"{request.border} pixels on every side"
    return Evaluation(pairs=rows, metrics=found, about=about, missing=missing, failed=failed)


def _stem(path: Path) -> str:
    stem = path.stem
    for part in MADE:
        stem = stem.removesuffix(part)
    return stem


def _pairs(restored: Path, reference: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Return the pairs and what has no partner.

    Raises:
        DataError: A place does not exist, or nothing fits.
        UsageError: One is a file and the other a folder.
    """
    for path in (restored, reference):
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder.", "Check the path.")
    if restored.is_file() and reference.is_file():
        return [(restored, reference)], []
    if restored.is_file() or reference.is_file():
        raise UsageError("one is a file and the other a folder.", "Give two files, or two folders.")
    left, right = _by_stem(restored), _by_stem(reference)
    missing = [f"{left[s].name} has no reference in {reference}" for s in left if s not in right]
    missing += [f"{right[s].name} was not restored" for s in right if s not in left]
    pairs = [(left[stem], right[stem]) for stem in left if stem in right]
    if not pairs:
        raise DataError(
            f"no picture in {restored} has the name of one in {reference}.",
            "Pairs are found by name without suffix, and without .restored.",
        )
    return pairs, missing


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by stem.

    Raises:
        UsageError: Two have the same.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.stem.endswith(".compare"):
            continue
        stem = _stem(path)
        if stem in found:
            raise UsageError(
                f"{found[stem].name} and {path.name} in {folder} have one stem.",
                "Move one of them away.",
            )
        found[stem] = path
    return found


def _aligned(
    restored: Path, reference: Path, resize: bool, border: int
) -> tuple[Image, Image, list[str]]:
    """Return both pictures at one size, in colour, over black where transparent.

    Raises:
        DataError: They cannot be read, or have different sizes.
    """
    notes: list[str] = []
    a, b = (load_picture(path, str(path)) for path in (restored, reference))
    xhat, x = _flat(a, notes, restored.name), _flat(b, notes, reference.name)
    if a.size != b.size:
        if not resize:
            raise DataError(
                f"{restored} is {a.size[0]}x{a.size[1]} but {reference} is "
                f"{b.size[0]}x{b.size[1]}.",
                "Scale the restored picture:  --resize",
            )
        xhat = interpolate(
            xhat, tuple(x.shape[-2:]), mode="bicubic", antialias=True, align_corners=False
        ).clamp(-1, 1)
        notes.append(f"{restored.name} was scaled to {b.size[0]}x{b.size[1]}, bicubically")
    if border:
        if min(x.shape[-2:]) <= 2 * border:
            raise DataError(f"{reference} has nothing within the border.", "Lower --border.")
        xhat, x = (p[..., border:-border, border:-border] for p in (xhat, x))
    return xhat, x, notes


def _flat(picture: Picture, notes: list[str], name: str) -> Image:
    pixels = picture.pixels.expand(-1, 3, -1, -1)
    if picture.alpha is None:
        return pixels
    notes.append(f"{name} is transparent; laid over black")
    return picture.alpha * (pixels + 1) - 1


def _statistic(rows: Sequence[dict[str, Any]], metric: ImageMetric) -> Statistic:
    values = [v for row in rows if (v := row["metrics"][metric.name]) is not None]
    reasons = sorted({row["reasons"].get(metric.name, "") for row in rows} - {""})
    return statistic_of(values, metric.reason or "; ".join(reasons) or "no pair has it")
