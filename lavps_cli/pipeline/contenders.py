"""Who is compared: methods, each with the weights it samples with."""

from dataclasses import dataclass, replace
from typing import Any

from lavps_cli import catalog
from lavps_cli.bench.runner import Cell
from lavps_cli.errors import UsageError
from lavps_cli.pipeline.measuring import Bench
from lavps_cli.pipeline.model import Weights, open_weights
from lavps_cli.pipeline.own_code import is_own
from lavps_cli.pipeline.priors import FolderPrior
from lavps_cli.pipeline.requests import Compute
from lavps_cli.training.families import Family, covers
from lavps_cli.weights.checkpoint import read_config
from lavps_cli.weights.index import beside_of, resolve

ALL = "all"


@dataclass(frozen=True, eq=False)
class Contender:
    """A method with weights; `name` is what the user called it."""

    name: str
    method: str
    weights: Weights

    def cell(self, bench: Bench, options: Any, family: Family) -> Cell:
        """Return a configuration of it and what measures it."""
        cell = replace(bench, weights=self.weights).cell(self.method, options, family)
        return replace(cell, name=self.name)

    def seen(self, family: Family) -> bool | None:
        """Return whether its networks were trained on such operators, None if nothing says so."""
        trained = catalog.sampler(self.method).trained is not None
        config = self.weights.config if trained else self.weights.inference_config
        operators = config.get("operators")
        if not isinstance(operators, list):
            return None
        return any(covers(str(trained), family.name) for trained in operators)


def check_methods(text: str) -> None:
    """Check that `METHOD[=MODEL],...` names methods.

    Raises:
        UsageError: It names something else, or one twice.
    """
    if text == ALL:
        return
    names = [name for name, _, _ in _parts(text)]
    for name, method, _ in _parts(text):
        catalog.sampler(method)
        if names.count(name) > 1:
            raise UsageError(f"--methods {text}: {name} is there twice.", "Leave one out.")


def methods_of(weights: Weights) -> list[str]:
    """Return the methods that sample with a prior alone, or with what lies beside it."""
    prior = weights.prior
    folder = prior.folder if isinstance(prior, FolderPrior) else None
    found = []
    for name, entry in catalog.SAMPLERS.items():
        needed = entry.trained or (entry.inference if entry.inference == "latino" else None)
        there = needed is None or (folder is not None and beside_of(folder, needed) is not None)
        if name == "lavps":
            there = weights.inference_folder is not None
        if there:
            found.append(name)
    return found


def open_contenders(text: str, compute: Compute, weights: Weights) -> list[Contender]:
    """Return what `METHOD[=MODEL],...` compares; without a model a method has the common `weights`.

    `all` are those that these weights, or what lies beside them, have networks for.

    Raises:
        WeightsError: There are no such weights.
    """
    return [
        Contender(
            name,
            method,
            weights
            if model is None and _shares(method)
            else open_weights(_asked(compute, method, model), method),
        )
        for name, method, model in _parts(",".join(methods_of(weights)) if text == ALL else text)
    ]


def _shares(method: str) -> bool:
    """Return whether a method samples with a prior and, at most, an inference model."""
    entry = catalog.sampler(method)
    return entry.trained is None and entry.inference in (None, "inference")


def _asked(compute: Compute, method: str, model: str | None) -> Compute:
    """Return what is opened for a method: a prior, or what was trained for the common one."""
    if model is None:
        return replace(compute, inference=None)
    if not is_own(model):
        kind = read_config(resolve(model, offline=compute.offline)).get("kind")
        if kind == catalog.sampler(method).inference:
            return replace(compute, inference=model)
    return replace(compute, model=model, inference=None, label=None)


def _parts(text: str) -> list[tuple[str, str, str | None]]:
    """Return name, method and model; the method alone is the name where it is there once."""
    entries = [entry.strip().partition("=") for entry in text.split(",")]
    methods = [method for method, _, _ in entries]
    return [
        (method if methods.count(method) == 1 else method + equals + model, method, model or None)
        for method, equals, model in entries
    ]
