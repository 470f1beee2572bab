import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lavps_cli.core.likelihood import observe
from lavps_cli.core.noise import Noise
from lavps_cli.errors import DeviceError, UsageError, WeightsError
from lavps_cli.operators.denoising import Denoising
from lavps_cli.pipeline import model, priors
from lavps_cli.pipeline.model import (
    Tiling,
    devices,
    open_weights,
    pick_device,
    pick_dtype,
)
from lavps_cli.pipeline.requests import Compute
from lavps_cli.pipeline.sampling import draw, sampler_options
from lavps_cli.weights.index import beside_of, bundled

CPU = torch.device("cpu")


def weights(folder: Path, inference: str | None = None, method: str = "lavps") -> model.Weights:
    compute = Compute(model=str(folder), inference=inference, device="cpu", dtype="fp32")
    return open_weights(compute, method)


def test_the_inference_model_lies_beside_the_prior(model_folder: Path) -> None:
    found = weights(model_folder)
    assert found.inference_folder == model_folder.with_name("tiny-inference")
    assert found.switch_ratio == 0.6
    ready = found.model(Tiling(16, 4))
    assert ready.inference is not None
    assert ready.switch_ratio == 0.6
    assert weights(model_folder, "none").model(Tiling(0, 0)).inference is None
    assert weights(model_folder, None, "mgdm").switch_ratio is None


def test_an_inference_model_without_effect_is_refused(model_folder: Path) -> None:
    with pytest.raises(UsageError, match="no effect"):
        weights(model_folder, "tiny", "mgdm")


def test_an_inference_model_of_another_schedule_is_refused(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lavps_cli.core.schedule import Flow

    real = priors.load_denoiser

    def flowing(*args: object, **kwargs: object) -> object:
        return replace(real(*args, **kwargs), schedule=Flow())  # type: ignore[arg-type]

    monkeypatch.setattr(priors, "load_denoiser", flowing)
    with pytest.raises(WeightsError, match="another noise schedule"):
        weights(model_folder).model(Tiling(0, 0))


def test_whole_pictures_where_the_network_is_local(model_folder: Path) -> None:
    found = weights(model_folder)
    assert found.tiling(700, 700, None, None) == Tiling(0, 0)
    assert found.tiling(2000, 3000, None, None) == Tiling(512, 64)
    assert found.tiling(50, 60, 32, None) == Tiling(32, 8)
    assert found.tiling(50, 60, 32, 3) == Tiling(32, 3)


def test_windows_of_the_trained_size_where_it_is_not(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = weights(model_folder)
    monkeypatch.setitem(found.config, "local", False)
    assert found.tiling(50, 60, None, None) == Tiling(16, 4)


@pytest.mark.parametrize("size", [(9, 13), (16, 16), (50, 31)])
@pytest.mark.parametrize("tile", [0, 16])
def test_any_size(model_folder: Path, size: tuple[int, int], tile: int) -> None:
    ready = weights(model_folder).model(Tiling(tile, tile // 4))
    xt = torch.randn(2, 3, *size)
    assert ready.denoiser(xt, torch.tensor(0.5, dtype=torch.float64)).shape == xt.shape


def test_devices() -> None:
    assert devices()[-1] == "cpu"
    assert pick_device("auto") == torch.device(devices()[0])
    assert pick_device("cpu") == CPU
    with pytest.raises(UsageError, match="no such kind"):
        pick_device("gpu")


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu", "cuda:3"])
def test_absent_devices(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "devices", lambda: ["cpu"])
    with pytest.raises(DeviceError) as caught:
        pick_device(kind)
    assert kind in caught.value.message
    assert "--device cpu" in caught.value.hint


def test_a_missing_one_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "devices", lambda: ["cuda:0", "cuda:1", "cpu"])
    assert pick_device("cuda") == torch.device("cuda")
    assert pick_device("auto") == torch.device("cuda:0")
    with pytest.raises(DeviceError, match="only cuda:0, cuda:1, cpu"):
        pick_device("cuda:2")


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_dtype("fp32", CPU) is None
    assert pick_dtype("fp16", CPU) == torch.float16
    for has in ("avx512_bf16", "amx_tile"):
        for name in ("avx512_bf16", "amx_tile"):
            monkeypatch.setattr(
                torch.cpu, f"_is_{name}_supported", lambda there=name == has: there, raising=False
            )
        assert pick_dtype("auto", CPU) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, f"_is_{has}_supported", lambda: False)
    assert pick_dtype("auto", CPU) is None
    for supported, chosen in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda supported=supported, **_: supported
        )
        assert pick_dtype("auto", torch.device("cuda")) == chosen


def test_missing_weights() -> None:
    with pytest.raises(WeightsError, match="no weights 'nowhere'"):
        open_weights(Compute(model="nowhere", device="cpu"))


OWN = """
from dataclasses import dataclass
from lavps_cli.core.schedule import Flow

@dataclass
class Grey:
    schedule = Flow()
    image_size = 16
    def __call__(self, xt, t):
        return 0 * xt

def grey(device):
    return Grey()

def number(device):
    return 3

def failing(device):
    raise KeyError("weights.bin")
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def test_a_prior_of_ones_own_is_a_prior_like_any_other(own: Path) -> None:
    found = open_weights(Compute(model=f"{own}:grey", device="cpu"))
    assert (found.name, found.inference_folder) == ("grey", None)
    assert found.tiling(40, 40, None, None) == Tiling(16, 4)
    xt = torch.ones(1, 3, 40, 40)
    assert found.model(Tiling(16, 4)).denoiser(xt, torch.tensor(0.5)).abs().max() == 0
    before = found.digest
    own.write_text(OWN + "\n# Changed.\n")
    assert open_weights(Compute(model=f"{own}:grey", device="cpu")).digest != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gray", "no such function"),
        ("number", "returns a int, not a denoiser"),
        ("failing", "raises KeyError"),
    ],
)
def test_what_is_no_prior_is_said_to_be_none(own: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        open_weights(Compute(model=f"{own}:{name}", device="cpu")).model(Tiling(0, 0))
    assert error.value.hint


def test_a_label_is_for_priors_that_know_classes(own: Path, model_folder: Path) -> None:
    with pytest.raises(UsageError, match="own"):
        open_weights(Compute(model=f"{own}:grey", label=3, device="cpu"))
    with pytest.raises(UsageError, match="without labels"):
        open_weights(Compute(model=str(model_folder), label=3, device="cpu")).model(Tiling(0, 0))


@pytest.mark.weights
@pytest.mark.parametrize("method", ["aps", "conditional"])
def test_a_method_that_lacks_a_network_names_a_model_that_has_one(method: str) -> None:
    ready = weights(bundled()["natural-64"], "none").model(Tiling(0, 0))
    picture, noise = torch.zeros(1, 3, 64, 64), Noise([0], CPU)
    likelihood = observe(Denoising(), picture, 0.1, noise)
    options = sampler_options(method, "fast", (), None)
    with pytest.raises(UsageError) as refused:
        draw(ready, likelihood, options, method=method, shape=(3, 64, 64), seeds=[0])
    named = re.search(r"--model (\S+)", refused.value.hint)
    assert named is not None
    assert beside_of(bundled()[named[1]], method) is not None
