"""Metrics by the texts that name them, with the files they need."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lavps_cli import catalog
from lavps_cli.core.types import Image
from lavps_cli.errors import LavpsError, UsageError, WeightsError, suggestion
from lavps_cli.metrics.lpips import TRUNKS, Lpips, Net
from lavps_cli.pipeline.own_code import is_own, own_function
from lavps_cli.weights.tensors import read_contents, tensors_of

_HOST = "https://download.pytorch.org/models/"
OWN = "FILE.py:function"

Score: TypeAlias = Callable[[Image, Image], Tensor]
"""Restored and clean pictures in [-1, 1], (b, c, h, w) -> one value per picture."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageMetric:
    """A metric that scores each picture."""

    name: str
    higher: bool
    """Whether higher is better."""
    about: dict[str, str]
    """Range, border, net and version, as far as it has them."""
    score: Score | None
    """None where it is not to be had."""
    reason: str = ""
    """Why not."""

    def measure(self, xhat: Image, x: Image) -> tuple[float | None, str]:
        """Return the value for one picture, or None and why."""
        if self.score is None:
            return None, self.reason
        try:
            values = torch.as_tensor(self.score(xhat, x)).double().flatten()
            if len(values) != 1:
                return None, f"{self.name} gave {len(values)} values for one picture"
            value = float(values[0])
            finite = value == value and abs(value) != float("inf")
            return (value, "") if finite else (None, f"{self.name} is {value}")
        except LavpsError as error:
            return None, error.message
        except Exception as error:  # A user's own function may raise anything.
            return None, f"{self.name} raised {type(error).__name__}: {error}"

    @property
    def told(self) -> dict[str, Any]:
        head: dict[str, Any] = {"name": self.name, "higher_is_better": self.higher}
        return head | self.about | ({"reason": self.reason} if self.score is None else {})


def open_metrics(texts: Sequence[str], *, offline: bool = False) -> list[ImageMetric]:
    """Return the metrics that texts name; what cannot be had here says why.

    Args:
        texts: `psnr`, `ssim`, `lpips`, `lpips:vgg`, `lpips:alex@TRUNK.pth`, `FILE.py:function`.
        offline: Whether nothing may be fetched.

    Raises:
        UsageError: A text names nothing, or one is given twice.
    """
    metrics = [_open(text.strip(), offline) for text in texts]
    names = [metric.name for metric in metrics]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"the metric {twice} is given twice.", "Give it once.")
    return metrics


def _open(text: str, offline: bool) -> ImageMetric:
    if is_own(text):
        return _own(text)
    name, _, rest = text.partition(":")
    if name not in catalog.METRICS or name == "cmmd":
        known = [known for known in catalog.METRICS if known != "cmmd"]
        raise UsageError(f"there is no metric {text!r}.", suggestion(name, [*known, OWN]))
    entry = catalog.METRICS[name]
    if name == "lpips":
        return _lpips(rest, entry, offline)
    if rest:
        raise UsageError(f"the metric {name} takes no {rest!r}.", f"Write:  {name}")
    score = catalog.resolve(entry.function)
    return ImageMetric(name=name, higher=entry.higher, about=entry.about, score=score)


def _lpips(spec: str, entry: catalog.Metric, offline: bool) -> ImageMetric:
    net, _, file = (spec or "alex").partition("@")
    if net not in TRUNKS:
        raise UsageError(f"LPIPS has no trunk {net!r}.", suggestion(net, list(TRUNKS)))
    name = "lpips" if net == "alex" else f"lpips-{net}"
    about = entry.about | {"net": net}
    try:
        trunk = _trunk(net, Path(file) if file else None, offline)
        score: Score | None = Lpips(net, trunk, _linear(net))
        reason = ""
    except WeightsError as error:
        score, reason = None, f"{error.message} {error.hint}".strip()
    return ImageMetric(name=name, higher=entry.higher, about=about, score=score, reason=reason)


def _linear(net: Net) -> dict[str, Tensor]:
    """Return the linear layers out of the files of the `lpips` package, which is not imported."""
    spec = find_spec("lpips")
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        raise WeightsError(
            "LPIPS needs the linear layers of the package `lpips`, which is not installed.",
            "Its files are enough:  pip install --no-deps lpips",
        )
    path = Path(places[0]) / "weights" / "v0.1" / f"{net}.pth"
    return tensors_of(read_contents(path).tree)


def trunk_place(net: Net = "alex") -> str:
    """Return where the trunk lies in the torch hub cache, or that it is not there."""
    cached = _cached(net)
    return str(cached) if cached.is_file() else f"not in {cached.parent}"


def _cached(net: Net) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / TRUNKS[net].file


def _trunk(net: Net, file: Path | None, offline: bool) -> dict[str, Tensor]:
    """Return the trunk out of a file, the torch hub cache, or a download that is checked."""
    if file is not None:
        return tensors_of(read_contents(file).tree)
    name = TRUNKS[net].file
    cached = _cached(net)
    if not cached.is_file():
        if offline:
            raise WeightsError(
                f"the LPIPS trunk {name} is not in {cached.parent}, and nothing may be fetched.",
                f"Give the file:  lpips:{net}@FILE.pth",
            )
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            digits = name.rpartition("-")[2].removesuffix(".pth")
            torch.hub.download_url_to_file(
                _HOST + name, str(cached), hash_prefix=digits, progress=False
            )
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"the LPIPS trunk {name} cannot be fetched ({error}).",
                f"Put it into {cached.parent}, or give the file:  lpips:{net}@FILE.pth",
            ) from error
    return tensors_of(read_contents(cached).tree)


def _own(text: str) -> ImageMetric:
    """Return a metric of the user's own; `function.higher_is_better = True` says so."""
    function, digest = own_function("--metric", text)
    file, _, name = text.rpartition(":")
    higher = bool(getattr(function, "higher_is_better", False))
    about = {"range": "[-1, 1]", "version": f"{Path(file).name} {digest[:12]}"}
    return ImageMetric(name=name, higher=higher, about=about, score=function)
