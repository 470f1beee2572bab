"""What a shell completes: names that are here, told without anything heavy to import."""

import ast
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import typer

from lavps_cli import catalog
from lavps_cli.folders import bundled_models, data_folder, models_in

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def models() -> list[str]:
    """Return the names of models: bundled, imported, and of the Hub's cache."""
    return ["default", *models_in(bundled_models()), *models_in(data_folder("models")), *_cached()]


def inference_models() -> list[str]:
    """Return the names of models, and `none`."""
    return [*models(), "none"]


def devices() -> list[str]:
    """Return kinds of devices, here or not: to know takes torch."""
    return list(DEVICES)


def methods() -> list[tuple[str, str]]:
    """Return the samplers, each with what it is."""
    return [(name, sampler.summary) for name, sampler in catalog.SAMPLERS.items()]


def training_data() -> list[str]:
    """Return the data sets that are known by name."""
    from lavps_cli.data.known import KNOWN

    return list(KNOWN)


def benchmark_data() -> list[str]:
    """Return the data sets that are known by name, and the one that comes with lavps."""
    return ["builtin", *training_data()]


def metrics() -> list[str]:
    """Return the metrics."""
    return list(catalog.METRICS)


def settings(context: typer.Context) -> list[tuple[str, str]]:
    """Return `name=` of every option of the sampler that the line chose, each with what it is."""
    sampler = catalog.SAMPLERS.get(context.params.get("method") or "lavps")
    return [] if sampler is None else [(f"{n}=", about) for n, about in _fields(sampler.options)]


def _fields(reference: str) -> Iterator[tuple[str, str]]:
    """Yield fields of a dataclass with their docstrings, by reading: its module imports torch."""
    module, _, name = reference.partition(":")
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.target.id, _text(after)


def _text(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def _cached() -> list[str]:
    """Return the repositories in the Hub's cache that hold a model."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    hub = os.environ.get("HF_HOME") or f"{home}/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or f"{hub}/hub").expanduser()
    folders = {
        path.parents[2].name
        for file in ("config.json", "model_index.json")
        for path in cache.glob(f"models--*--*/snapshots/*/{file}")
    }
    return sorted(name.removeprefix("models--").replace("--", "/", 1) for name in folders)
