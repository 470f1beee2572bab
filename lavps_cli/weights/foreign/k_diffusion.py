"""HDiT checkpoints of k-diffusion (image_transformer_v2): for training, and for inference.

The network has the attribute names of ours; what is read here is the configuration, with the
defaults that k-diffusion fills in when it loads one.
"""

import json
from collections.abc import Mapping
from typing import Any

from lavps_cli.errors import WeightsError
from lavps_cli.weights.tensors import Contents, Foreign, tensors_of

TYPE = "image_transformer_v2"
_ATTENTION = {
    "global": "global",
    "neighborhood": "neighbourhood",
    "shifted-window": "shifted_window",
    "none": "none",
}


def read(contents: Contents) -> Foreign | None:
    """Return the averaged network of a checkpoint, None where the file is of another project.

    Raises:
        WeightsError: It is of k-diffusion, but no HDiT on square RGB pictures.
    """
    config, tensors = _parts(contents)
    if config is None or not isinstance(config.get("model"), dict):
        return None
    model = config["model"]
    if model.get("type") != TYPE:
        raise WeightsError(
            f"{contents.path} holds a k-diffusion model of type {model.get('type')!r}.",
            f"Models that can be read are of type {TYPE} (HDiT).",
        )
    try:
        return Foreign(_config(config), tensors)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise WeightsError(
            f"{contents.path}: its configuration cannot be read: {type(error).__name__} {error}",
            "Is it a checkpoint of k-diffusion's train.py or convert_for_inference.py?",
        ) from error


def _parts(contents: Contents) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the configuration and the tensors."""
    tree = contents.tree
    if "config" in contents.metadata:
        try:
            config = json.loads(contents.metadata["config"])
        except (ValueError, RecursionError):
            return None, {}
        return (config if isinstance(config, dict) else None), tensors_of(tree)
    if isinstance(tree.get("config"), dict) and isinstance(tree.get("model_ema"), Mapping):
        return tree["config"], tensors_of(tree["model_ema"])
    return None, {}


def _config(config: dict[str, Any]) -> dict[str, Any]:
    model, data = config["model"], config.get("dataset") or {}
    widths, depths = list(model["widths"]), list(model["depths"])
    usual = [{"type": "neighborhood"}] * (len(widths) - 1) + [{"type": "global"}]
    attentions = model.get("self_attns") or usual
    d_ffs = model.get("d_ffs") or [3 * width for width in widths]
    if not len(widths) == len(depths) == len(attentions) == len(d_ffs):
        raise ValueError("depths, widths, d_ffs and self_attns differ in length")
    (height, width), (p, q) = _pair(model["input_size"]), _pair(model["patch_size"])
    if height != width or p != q or model["input_channels"] != 3:
        raise ValueError("only square RGB pictures and patches can be read")
    if model.get("mapping_cond_dim"):
        raise ValueError("it wants a further condition, which nothing here provides")
    classes = int(data.get("num_classes") or 0)
    mapping_width = int(model.get("mapping_width", 256))
    about: dict[str, Any] = {
        "kind": "denoiser",
        "schedule": "flow",
        "image_size": int(height),
        "local": False,
        "licence": "not stated",
        "trained_on": str(data.get("location", "not stated")),
        "sigma_data": float(model.get("sigma_data", 1.0)),
    }
    if classes:
        # The class after the last one stands for the dropped label, if any were dropped.
        dropped = float(data.get("cond_dropout_rate", 0.1)) > 0
        about |= {"labels": classes, "no_label": classes if dropped else None}
    return about | {
        "model": {
            "levels": [
                _level(*each) for each in zip(depths, widths, d_ffs, attentions, strict=True)
            ],
            "patch_size": int(p),
            "stem": "patch",
            "mapping_depth": int(model.get("mapping_depth", 2)),
            "mapping_width": mapping_width,
            "mapping_d_ff": int(model.get("mapping_d_ff") or 3 * mapping_width),
            "num_classes": classes + 1 if classes else 0,
        }
    }


def _level(depth: int, width: int, d_ff: int, attention: dict[str, Any]) -> dict[str, Any]:
    kind = attention["type"]
    level = {
        "depth": int(depth),
        "width": int(width),
        "d_ff": int(d_ff),
        "d_head": int(attention.get("d_head", 64)),
        "attention": _ATTENTION[kind],
    }
    if kind == "neighborhood":
        level["window"] = int(attention.get("kernel_size", 7))
    elif kind == "shifted-window":
        level["window"] = int(attention["window_size"])
    return level


def _pair(value: Any) -> tuple[int, int]:
    """Return two sides, of which one may stand for both."""
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second
