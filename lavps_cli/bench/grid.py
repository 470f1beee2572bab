"""Which configurations a calibration sweeps."""

import json
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from lavps_cli.errors import UsageError

Settings: TypeAlias = dict[str, Any]

PAPER = {
    "grad_steps_start": (1, 3),
    "grad_steps_end": (0, 1, 3, 10),
    "lr": (0.1, 0.3),
    "num_denoise": (1, 5),
    "switch_ratio": (0.7, 0.8, 0.9),
}
"""Appendix B: 96 configurations of K = 100 steps. The paper's rates, 0.01 and 0.03, are those of
raw coordinates; these are of the whitened ones, in deviations of the bridge."""

QUICK: dict[str, list[Settings]] = {
    "mgdm": [
        {"num_steps": k, "grad_steps_start": g, "grad_steps_end": g}
        for k, g in product((10, 20, 40, 80), (1, 2))
    ],
    "lavps": [
        {
            "num_steps": k,
            "grad_steps_start": g,
            "grad_steps_end": 0,
            "switch_ratio": 0.0,
            "switch_back": back,
        }
        for k, (g, back) in product((10, 20, 40, 80), ((0, 1.0), (1, 0.8), (2, 0.7), (2, 0.5)))
    ],
}


def grid(name: str) -> dict[str, list[Settings]]:
    """Return the settings of each method: of `paper`, `quick`, or a file.

    A file holds a JSON list of settings for both methods, or an object {"mgdm": [...], "lavps":
    [...]}.

    Raises:
        UsageError: The file is not that.
    """
    if name == "quick":
        return QUICK
    if name == "paper":
        rows = [dict(zip(PAPER, values, strict=True)) for values in product(*PAPER.values())]
        settings = [{"num_steps": 100} | row for row in rows]
        return {"mgdm": settings, "lavps": settings}
    try:
        found = json.loads(Path(name).read_text(encoding="utf-8"))
        both = found if isinstance(found, dict) else {"mgdm": found, "lavps": found}
        lists = {method: both[method] for method in ("mgdm", "lavps")}
        if not all(isinstance(each, dict) for rows in lists.values() for each in rows):
            raise ValueError("settings are objects")
        if not all(lists.values()):
            raise ValueError("a list is empty")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--grid {name}: it is neither paper, quick, nor a file of settings ({error}).",
            'A file holds, for example:  [{"num_steps": 50, "grad_steps_end": 1}]',
        ) from error
    return lists
