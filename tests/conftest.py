import os

# Before anything imports huggingface_hub, which reads these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import pytest
import torch
import typer

torch.set_num_threads(1)


def pytest_report_header() -> str:
    return f"torch {torch.__version__}, typer {typer.__version__}, one thread"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep every test away from the caches of whoever runs it."""
    home = tmp_path_factory.mktemp("home")
    os.environ["HF_HOME"] = str(home / "huggingface")
    os.environ["XDG_CACHE_HOME"] = str(home / "cache")
