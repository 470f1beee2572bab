"""CMMD, which compares sets of pictures: embedded by CLIP out of the package `transformers`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from lavps_cli import catalog
from lavps_cli.bench.summary import Statistic
from lavps_cli.core.types import Image
from lavps_cli.errors import WeightsError
from lavps_cli.metrics.cmmd import MODEL, SCALE, cmmd

CMMD = "cmmd"


def told() -> dict[str, Any]:
    """Return what the value depends on."""
    head: dict[str, Any] = {"name": CMMD, "higher_is_better": False}
    return head | catalog.METRICS[CMMD].about


@dataclass(eq=False)
class Cmmd:
    """CMMD of sets of pictures, by CLIP out of the package `transformers`."""

    _network: Any = field(default=None, repr=False)

    @torch.no_grad()
    def embed(self, x: Image) -> Tensor:
        """Return embeddings of unit length of pictures in [-1, 1].

        Raises:
            WeightsError: The package or the weights are not here.
        """
        if self._network is None:
            self._network = _clip()
        mean = x.new_tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
        std = x.new_tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
        large = torch.nn.functional.interpolate(
            x.expand(-1, 3, -1, -1).float(), (336, 336), mode="bicubic", antialias=True
        )
        out = self._network(pixel_values=((large.clamp(-1, 1) + 1) / 2 - mean) / std).image_embeds
        return out / out.norm(dim=1, keepdim=True)

    def statistics(self, xhat: Sequence[Image], x: Sequence[Image]) -> dict[str, Statistic]:
        """Return CMMD of restored and clean pictures, as it is and times 1000, or why not."""
        value, reason = None, None if xhat else "there are no pictures"
        try:
            if xhat:
                a, b = (torch.cat([self.embed(picture) for picture in side]) for side in (xhat, x))
                value = cmmd(a, b)
        except WeightsError as error:
            reason = f"{error.message} {error.hint}"
        return {
            name: Statistic(
                mean=None if value is None else value * factor,
                sd=None, low=None, high=None, n=len(xhat), reason=reason,
            )
            for name, factor in ((CMMD, 1.0), (f"{CMMD} x{SCALE:g}", SCALE))
        }  # fmt: skip


def _clip() -> Any:
    if find_spec("transformers") is None:
        raise WeightsError(
            "CMMD needs the package `transformers`, which is not installed.",
            'Install it:  pip install "lavps[cmmd]"',
        )
    from transformers import CLIPVisionModelWithProjection

    try:
        return CLIPVisionModelWithProjection.from_pretrained(MODEL, use_safetensors=True).eval()
    except Exception as error:  # The library raises whatever its own backends raise.
        raise WeightsError(
            f"the weights {MODEL} are not to be had: {str(error).splitlines()[0]}",
            "With a network they are fetched on first use.",
        ) from error
