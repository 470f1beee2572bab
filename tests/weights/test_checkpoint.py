import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lavps_cli.errors import WeightsError
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.inference import COND_WIDTH, InferenceNetwork
from lavps_cli.weights.amortised import load_flow, load_unfolded
from lavps_cli.weights.checkpoint import (
    digest,
    load_conditional,
    load_denoiser,
    load_inference,
    read_config,
    save,
)
from lavps_cli.weights.hdit import describe
from lavps_cli.weights.index import beside_of, bundled, resolve

CPU = torch.device("cpu")
LEVEL = LevelConfig(depth=1, width=16, d_ff=16, d_head=8, window=3)
CONFIG = HDiTConfig(
    levels=(LEVEL, LEVEL), patch_size=2, mapping_width=16, mapping_d_ff=16, mapping_depth=1
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = HDiT(CONFIG)
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    torch.nn.init.normal_(network.patch_out.proj.weight)
    network.patch_out.proj.weight.data = network.patch_out.proj.weight.data.half().float()
    info = {"kind": "denoiser", "schedule": "vp", "image_size": 16, "model": describe(CONFIG)}
    save(tmp_path / "prior", network, info)
    return tmp_path / "prior"


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_round_trip(folder: Path) -> None:
    denoiser = load_denoiser(folder, device=CPU)
    state = load_file(folder / "model.safetensors")
    for name, value in denoiser.network.state_dict().items():
        torch.testing.assert_close(value, state[name].float(), rtol=0, atol=0)
    again = folder.parent / "again"
    save(again, denoiser.network, read_config(folder))
    assert digest(again) == digest(folder)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor(0.3, dtype=torch.float64)
    assert torch.equal(denoiser(x, t), load_denoiser(again, device=CPU)(x, t))
    assert not list(folder.glob(".*"))


def test_inference_round_trip(tmp_path: Path) -> None:
    config = HDiTConfig(
        **{**vars(CONFIG), "in_channels": 9, "out_channels": 9, "mapping_cond_dim": COND_WIDTH}
    )
    network = InferenceNetwork(config)
    info = {"kind": "inference", "schedule": "vp", "model": describe(config)}
    save(tmp_path, network, info, torch.float32)
    loaded = load_inference(tmp_path, device=CPU).network
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    with pytest.raises(WeightsError, match="'inference', not 'denoiser'"):
        load_denoiser(tmp_path, device=CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"kind": "poem"}, "'poem'"),
        ({"model": {"levels": []}}, "at least one level"),
        ({"model": {"levels": [{"depth": 1}]}}, "does not describe a network"),
        ({"model": describe(CONFIG) | {"colour": 3}}, "colour"),
        ({"model": describe(CONFIG) | {"mapping_width": 10**9}}, "mapping_width"),
        ({"model": describe(CONFIG) | {"mapping_depth": -1}}, "mapping_depth"),
        ({"model": describe(CONFIG) | {"out_channels": 4}}, "patch_out.proj.weight has shape"),
        ({"model": describe(CONFIG) | {"num_classes": 3}}, "lacks class_emb.weight"),
        ({"model": describe(CONFIG) | {"patch_size": "2"}}, "patch_size is '2'"),
        ({"model": describe(CONFIG) | {"patch_size": 2.5}}, "patch_size"),
        ({"model": describe(CONFIG) | {"patch_size": 0}}, "patch_size"),
        ({"model": describe(CONFIG) | {"patch_size": 1 << 15}}, "multiples of 65536"),
        ({"model": describe(CONFIG) | {"mapping_depth": None}}, "mapping_depth"),
        ({"model": describe(CONFIG) | {"mapping_depth": 1 << 16}}, "layers"),
        ({"model": describe(CONFIG) | {"stem": ["patch"]}}, "stem"),
        ({"model": describe(CONFIG) | {"rope_extent": 0}}, "rope_extent"),
        ({"model": describe(CONFIG) | {"levels": [vars(LEVEL)] * 13}}, "13 levels"),
        ({"model": describe(CONFIG) | {"levels": [None]}}, "does not describe"),
        ({"model": describe(CONFIG) | {"levels": [vars(LEVEL) | {"window": 999}]}}, "window"),
        ({"model": describe(CONFIG) | {"levels": [vars(LEVEL) | {"d_head": 0}]}}, "d_head"),
        ({"model": describe(CONFIG) | {"levels": [vars(LEVEL) | {"attention": "all"}]}}, "'all'"),
        ({"model": describe(CONFIG) | {"levels": [vars(LEVEL) | {"joint": 1 << 40}]}}, "joint"),
        ({"image_size": 1 << 40}, "image_size"),
        ({"image_size": "64"}, "image_size"),
        ({"sigma_data": "much"}, "sigma_data"),
        ({"sigma_data": 1e300}, "sigma_data"),
        ({"architecture": ["hdit"]}, "architecture"),
        ({"no_label": -1}, "no label -1"),
        ({"labels": "ten"}, "labels"),
        ({"labels": 4, "no_label": 4}, "no label 4"),
        ({"model": describe(CONFIG) | {"levels": [vars(LEVEL)]}}, "unknown entry|lacks"),
        ({"schedule": "cosine"}, "cosine"),
    ],
)
def test_every_damage_of_the_config_has_its_message(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    edit(folder, **changes)
    with pytest.raises(WeightsError, match=message) as error:
        load_denoiser(folder, device=CPU)
    assert error.value.hint


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "absent", "pickle"])
def test_every_damage_of_the_tensors_has_its_message(folder: Path, damage: str) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "header":
        path.write_bytes(b"\xff" * 8 + data[8:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "pickle":
        torch.save({"a": torch.zeros(1)}, path)
    else:
        path.unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_denoiser(folder, device=CPU)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_config_that_is_not_json_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json"):
        read_config(folder)


def test_missing_extra_and_misshapen_tensors_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    for change, name in (
        ({"out_norm.scale": None}, "out_norm.scale"),
        ({"surprise": torch.zeros(1)}, "surprise"),
        ({"out_norm.scale": torch.zeros(3)}, "out_norm.scale"),
        ({"out_norm.scale": torch.full((16,), float("inf"))}, "out_norm.scale holds"),
        ({"out_norm.scale": torch.ones(16).to(torch.float8_e4m3fn)}, "float8"),
    ):
        changed = {k: v for k, v in (state | change).items() if v is not None}
        save_file(changed, path)
        with pytest.raises(WeightsError, match=name):
            load_denoiser(folder, device=CPU)


def test_resolve_knows_folders_and_says_what_it_does_not_know(folder: Path) -> None:
    assert resolve(str(folder)) == folder
    with pytest.raises(WeightsError, match="nobody/nothing"):
        resolve("nobody/nothing")
    with pytest.raises(WeightsError, match=r"no config\.json"):
        resolve(str(folder.parent))
    assert beside_of(folder) is None


def test_an_inference_model_of_another_version_is_refused(model_folder: Path) -> None:
    folder = model_folder.with_name("tiny-inference")
    text = (folder / "config.json").read_text()
    try:
        raw = json.loads(text)
        raw["model"]["out_channels"] = 6
        (folder / "config.json").write_text(json.dumps(raw))
        with pytest.raises(WeightsError, match="9 channels in and 6 out"):
            load_inference(folder, device=CPU)
    finally:
        (folder / "config.json").write_text(text)


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_model_loads(name: str) -> None:
    folder = bundled()[name]
    config = read_config(folder)
    if config["kind"] == "latino":
        load_unfolded(folder, load_denoiser(bundled()[config["prior"]], device=CPU))
    else:
        load = {
            "denoiser": load_denoiser, "inference": load_inference, "conditional": load_conditional,
            "aps": load_flow,
        }[config["kind"]]  # fmt: skip
        load(folder, device=CPU)
    assert (folder / "README.md").is_file()


def test_bundled_weights_are_small() -> None:
    total = sum((path / "model.safetensors").stat().st_size for path in bundled().values())
    assert total <= 60e6
