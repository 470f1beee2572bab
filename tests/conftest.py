import os

# Before anything imports huggingface_hub, which reads these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import typer
from PIL import Image as PillowImage

torch.set_num_threads(1)


def pytest_report_header() -> str:
    return f"torch {torch.__version__}, typer {typer.__version__}, one thread"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep every test away from the caches of whoever runs it."""
    home = tmp_path_factory.mktemp("home")
    os.environ["HF_HOME"] = str(home / "huggingface")
    os.environ["XDG_CACHE_HOME"] = str(home / "cache")
    os.environ["XDG_DATA_HOME"] = str(home / "data")
    os.environ["TORCH_HOME"] = str(home / "torch")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random prior that takes pictures of any size, its inference model beside it."""
    from lavps_cli.models.hdit import HDiT, HDiTConfig
    from lavps_cli.models.hdit_layers import LevelConfig
    from lavps_cli.models.inference import COND_WIDTH, InferenceNetwork
    from lavps_cli.weights.checkpoint import save
    from lavps_cli.weights.hdit import describe

    level = LevelConfig(depth=1, width=16, d_ff=16, d_head=8, window=3)
    config = HDiTConfig(
        levels=(level, level),
        patch_size=2,
        mapping_width=16,
        mapping_d_ff=16,
        mapping_depth=1,
        rope_extent=8,
    )
    about = {"schedule": "vp", "image_size": 16, "local": True, "licence": "CC0-1.0"}
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        prior = HDiT(config)
        torch.nn.init.normal_(prior.patch_out.proj.weight, std=0.03)
        save(folder, prior, about | {"kind": "denoiser", "model": describe(config)})
        config = replace(config, in_channels=9, out_channels=9, mapping_cond_dim=COND_WIDTH)
        inference = InferenceNetwork(config)
        torch.nn.init.normal_(inference.backbone.patch_out.proj.weight, std=0.01)
        beside = folder.with_name("tiny-inference")
        about |= {"kind": "inference", "switch_ratio": 0.6, "model": describe(config)}
        save(beside, inference, about)
    return folder


@pytest.fixture(scope="session")
def conditional_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random conditional denoiser that says it was trained on deblurring."""
    from lavps_cli.models.hdit import HDiT, HDiTConfig
    from lavps_cli.models.hdit_layers import LevelConfig
    from lavps_cli.weights.checkpoint import save
    from lavps_cli.weights.hdit import describe

    config = HDiTConfig(
        levels=(LevelConfig(depth=1, width=16, d_ff=16, d_head=8, window=3),),
        patch_size=2,
        mapping_width=16,
        mapping_d_ff=16,
        mapping_depth=1,
        rope_extent=8,
        in_channels=6,
    )
    about = {"schedule": "flow", "image_size": 16, "local": True, "operators": ["deblur:3-5@0-1"]}
    folder = tmp_path_factory.mktemp("weights") / "paired"
    save(folder, HDiT(config), about | {"kind": "conditional", "model": describe(config)})
    return folder


@pytest.fixture(scope="session")
def flow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained conditional flow."""
    from lavps_cli.models.flow import CHANNELS_IN, CHANNELS_OUT, FlowConfig, FlowNetwork
    from lavps_cli.models.hdit import HDiTConfig
    from lavps_cli.models.hdit_layers import LevelConfig
    from lavps_cli.weights.checkpoint import save

    backbone = HDiTConfig(
        levels=(LevelConfig(depth=1, width=16, d_ff=16, d_head=8, window=3),),
        patch_size=2,
        mapping_width=16,
        mapping_d_ff=16,
        mapping_depth=1,
        rope_extent=8,
        in_channels=CHANNELS_IN,
        out_channels=CHANNELS_OUT,
    )
    config = FlowConfig(backbone=backbone, levels=1, depth=1, width=8)
    about = {"schedule": "flow", "image_size": 16, "local": True, "operators": ["denoise+0.1"]}
    folder = tmp_path_factory.mktemp("weights") / "flow"
    save(folder, FlowNetwork(config), about | {"kind": "aps", "model": asdict(config)})
    return folder


@pytest.fixture(scope="session")
def scene() -> npt.NDArray[np.uint8]:
    """A small scene with smooth parts, edges and texture; 8 bits, (32, 48, 3)."""
    y, x = np.mgrid[0:32, 0:48] / 48.0
    picture = np.stack([200 * x + 20, 160 - 120 * y, 90 + 60 * np.sin(9 * x) * np.cos(7 * y)], 2)
    picture[6:20, 10:22] = (220, 60, 40)
    picture[16:28, 26:40:2] = (30, 40, 200)
    return picture.round().astype(np.uint8)


@pytest.fixture
def photo(tmp_path: Path, scene: npt.NDArray[np.uint8]) -> Path:
    """That scene as a PNG, alone in its folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    PillowImage.fromarray(scene).save(folder / "photo.png")
    return folder / "photo.png"
