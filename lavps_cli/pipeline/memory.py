"""How much memory a restoration takes, told before it begins."""

from dataclasses import dataclass
from typing import Any

from lavps_cli import catalog
from lavps_cli.errors import DeviceError, WeightsError
from lavps_cli.models.hdit import HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.neighbourhood import TILE
from lavps_cli.models.tiled import pixels_in_calls
from lavps_cli.operators.blur import CHANNELS_TOGETHER
from lavps_cli.pipeline.available import resident
from lavps_cli.pipeline.model import Tiling, Weights
from lavps_cli.pipeline.priors import FolderPrior
from lavps_cli.pipeline.problem import Observation
from lavps_cli.pipeline.sampling import expected_evaluations
from lavps_cli.weights.hdit import network_config

_TRANSFORMS = 8.5
"""Pictures that a blur holds beside what it is given, in the iterations of `Blur.ridge`."""
_CLIPPED = 4
"""Pictures that clipping and compression hold for a gradient."""
_PHOTONS = 8
"""Pictures that the likelihood of shot noise holds for a gradient."""
_MIXED = 4
"""More of each where images of a batch keep different starts."""
_FRAGMENTS = 1.3
"""What the allocator keeps for each byte of the small tensors inside a network; measured."""
_PICTURES_OF_CALL = 48
"""Bytes of a window's pixel in float32, in and out, beside the activations."""
_UNKNOWN = (210, 1300)
"""Numbers a pixel, without and with gradient, of networks that are not described: the bundled
prior's."""


@dataclass(frozen=True)
class Need:
    """The most memory that a restoration holds, in bytes."""

    bytes: int
    certain: bool
    """Whether the network is known, and the device one that the formula was checked on."""


def needed(
    seen: Observation,
    weights: Weights,
    tiling: Tiling,
    method: str,
    options: Any,
    *,
    batch: int,
    samples: int,
) -> Need:
    """Return what sampling one picture's posterior takes, of the process and on its device.

    Pictures that a step holds (`catalog.Sampler.pictures`, counted by a test), those of the result,
    and what the network holds of the windows in a call. Against measured peaks on a CPU:
    `benchmarks/RESULTS.md`.

    Args:
        seen: The problem.
        weights: Networks and their device; they are not opened.
        tiling: How the networks see the picture.
        method: A name in the catalogue.
        options: The method's own.
        batch: Samples drawn together.
        samples: All of them.
    """
    height, width = seen.shape
    picture, warm = 3 * 4 * height * width, weights.inference_folder is not None
    held = float(catalog.sampler(method).pictures)
    if warm and getattr(options, "grad_steps_end", 0) > 0:
        held += 2  # The predicted start, which the gradient steps begin at.
    if warm and batch > 1:
        held += _MIXED
    held += _of_operator(seen)
    results = samples * (2 if samples > 1 else 1)
    inside, certain = _of_network(seen, weights, tiling, method, options, batch)
    total = held * batch * picture + results * picture + inside + 2 * _stored(weights)
    known = certain and weights.device.type == "cpu"
    return Need(round(total) + resident(weights.device), known)


def _of_operator(seen: Observation) -> float:
    """Return the pictures that applying and inverting the operator holds."""
    (height, width), task, more = seen.shape, seen.degradation.task, 0.0
    if seen.degradation.base == "deblur":
        by_channel = task == "deblur" and 3 * height * width > CHANNELS_TOGETHER
        more = _TRANSFORMS / (3 if by_channel else 1)
    if seen.peak is not None:
        more += _PHOTONS
    return more + (_CLIPPED if task in ("declip", "jpeg") else 0)


def _of_network(
    seen: Observation, weights: Weights, tiling: Tiling, method: str, options: Any, batch: int
) -> tuple[float, bool]:
    """Return the bytes of activations and windows, and whether the network is known."""
    warm = weights.inference_folder is not None
    _, nbe = expected_evaluations(method, options, warm=warm)
    # Where a predicted start is refused, gradient steps are taken that are not expected.
    steps = (getattr(options, f"grad_steps_{name}", 0) for name in ("start", "end"))
    gradient = nbe > 0 or any(count > 0 for count in steps)
    config = _described(weights)
    forward, backward = _UNKNOWN if config is None else numbers_per_pixel(config)
    size = 4 if weights.autocast is None else 2

    def pixels(count: int) -> tuple[int, int]:
        # Attention goes by tiles of tokens, the last ones filled up.
        unit, kind = 1 if config is None else TILE * config.multiple, weights.device.type
        height, width = (-(-side // unit) * unit for side in seen.shape)
        return pixels_in_calls(height, width, count, tiling.tile, tiling.overlap, kind)

    at_once, _ = pixels((2 if warm else 1) * batch)
    most = at_once * (forward * size + _PICTURES_OF_CALL)
    if gradient:
        at_once, kept = pixels(batch)
        most = max(most, (at_once + kept) * (backward * size + _PICTURES_OF_CALL))
    return _FRAGMENTS * most, config is not None


def _described(weights: Weights) -> HDiTConfig | None:
    """Return the prior's network, None where it is of a kind whose memory is not known."""
    config = weights.config
    if config.get("architecture", "hdit") != "hdit" or config.get("kind") == "aps":
        return None
    try:
        network = network_config(config["model"])
    except (KeyError, WeightsError):
        return None
    return None if any(level.attention == "global" for level in network.levels) else network


def numbers_per_pixel(config: HDiTConfig) -> tuple[float, float]:
    """Return how many numbers an HDiT holds for each pixel: at once, and kept for a gradient.

    Counted in the layers: a block keeps norms, queries, keys and values, the keys and values of
    its tiles' regions, the weights of attention, and four times the hidden features; without a
    gradient only one block's are there at a time.
    """
    forward = backward = 0.0
    last = len(config.levels) - 1
    for i, level in enumerate(config.levels):
        tokens = (config.patch_size * 2**i) ** -2
        region, weights = _attention(level)
        hidden = level.d_ff / level.width
        once = 10 + 3 * region + 2 * weights + max(3 * hidden - 9, 0)
        kept = 6 + 2 * region + weights + 4 * hidden
        forward = max(forward, tokens * level.width * once)
        backward += tokens * level.width * kept * level.depth * (1 if i == last else 2)
    return forward, backward


def _attention(level: LevelConfig) -> tuple[float, float]:
    """Return keys, and weights of attention, that are held for each feature of a token."""
    if level.attention == "none":
        return 0.0, 0.0
    side = TILE + 2 * (level.window // 2)
    return (side / TILE) ** 2, side**2 / level.d_head


def _stored(weights: Weights) -> int:
    """Return the bytes of the files of the networks."""
    prior = weights.prior.folder if isinstance(weights.prior, FolderPrior) else None
    folders = [each for each in (prior, weights.inference_folder) if each is not None]
    files = [file for folder in folders for file in folder.glob("*.safetensors")]
    return sum(file.stat().st_size for file in files)


def gib(count: int) -> str:
    """Return bytes as people read them."""
    return f"{count / 2**30:.1f} GiB"


def told(need: Need, free: int | None) -> str:
    """Return the estimate in words."""
    there = "" if free is None else f", {gib(free)} are available"
    return f"needs about {gib(need.bytes)} of memory{there}"


def too_large(need: Need, free: int, seen: Observation, method: str) -> DeviceError:
    """Return the error of a picture that would not fit, in the smallest windows either."""
    height, width = seen.shape
    ways = ["crop it"]
    if seen.degradation.base == "sr":
        ways.append("a smaller --scale")
    least = min(catalog.SAMPLERS, key=lambda name: catalog.SAMPLERS[name].pictures)
    if catalog.sampler(method).pictures > catalog.sampler(least).pictures:
        ways.append(f"--method {least}, which holds less")
    return DeviceError(
        f"a scene of {width}x{height} {told(need, free)}.", f"Try:  {',  or '.join(ways)}"
    )
