from dataclasses import is_dataclass
from pathlib import Path
from typing import get_args

import pytest

import lavps_cli
from lavps_cli import catalog
from lavps_cli.errors import UsageError

PACKAGE = Path(lavps_cli.__file__).parent


def files(folder: str) -> set[str]:
    return {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("name", list(catalog.SAMPLERS))
def test_samplers_resolve(name: str) -> None:
    entry = catalog.sampler(name)
    assert callable(catalog.resolve(entry.function))
    options = catalog.resolve(entry.options)
    assert is_dataclass(options)
    assert set(entry.presets) == set(catalog.PRESETS)
    for preset in entry.presets.values():
        options(**preset.warm)
        options(**preset.cold)


@pytest.mark.parametrize("reference", [entry.function for entry in catalog.METRICS.values()])
def test_references_resolve(reference: str) -> None:
    assert callable(catalog.resolve(reference))


def test_every_file_has_a_line() -> None:
    def named(references: list[str]) -> set[str]:
        return {reference.partition(":")[0].rpartition(".")[2] for reference in references}

    assert named([entry.function for entry in catalog.SAMPLERS.values()]) == files("samplers")
    assert named([entry.function for entry in catalog.METRICS.values()]) == files("metrics")


def test_names_and_tables_agree() -> None:
    assert set(get_args(catalog.TaskName)) == set(catalog.TASKS)
    assert set(get_args(catalog.PresetName)) == set(catalog.PRESETS)


def test_unknown_method_suggests() -> None:
    with pytest.raises(UsageError) as caught:
        catalog.sampler("lavp")
    assert caught.value.hint == "Did you mean lavps?"
