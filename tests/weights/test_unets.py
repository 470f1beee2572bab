"""UNets of guided-diffusion and of diffusers as priors."""

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lavps_cli.core.schedule import time_at_ratio
from lavps_cli.errors import LavpsError, UsageError, WeightsError
from lavps_cli.models.adm import Adm, AdmConfig
from lavps_cli.models.discrete import DiscreteDenoiser
from lavps_cli.models.score import ScoreDenoiser
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.pipeline.api import load, restore
from lavps_cli.samplers.lavps import LavpsOptions
from lavps_cli.weights.checkpoint import load_denoiser
from lavps_cli.weights.index import resolve

CPU = torch.device("cpu")
OPENAI_64 = AdmConfig(
    model_channels=64, widths=(64, 128, 192, 256), num_res_blocks=1,
    attention=(False, True, True, True), new_order=True, num_classes=4,
)  # fmt: skip
FFHQ_256 = AdmConfig(
    model_channels=32, widths=(32, 32, 64, 64, 128, 128), num_res_blocks=1,
    attention=(False, False, False, False, True, False), num_head_channels=64,
)  # fmt: skip


def adm(config: AdmConfig) -> Adm:
    network = Adm(config).eval().requires_grad_(False)
    for i, w in enumerate(network.parameters()):
        w.add_(0.05 * torch.randn(w.shape, generator=torch.Generator().manual_seed(i)))
    return network


@pytest.mark.parametrize(
    ("config", "side"),
    [
        (OPENAI_64, 64),
        (FFHQ_256, 256),
        (replace(FFHQ_256, scale_shift=False, out_channels=3), 256),
        (
            replace(FFHQ_256, num_res_blocks=2, attention=(False, False, False, True, True, True)),
            256,
        ),
    ],
    ids=["64", "ffhq", "time-added", "256"],
)
def test_the_shape_follows_from_the_tensors(tmp_path: Path, config: AdmConfig, side: int) -> None:
    network = adm(config)
    torch.save(network.state_dict(), tmp_path / "a.pt")
    label = 2 if config.num_classes else None
    prior = load_denoiser(resolve(str(tmp_path / "a.pt")), device=CPU, label=label)
    assert isinstance(prior, DiscreteDenoiser)
    assert prior.network.config == config
    folder = resolve(str(tmp_path / "a.pt"))
    assert json.loads((folder / "config.json").read_text())["image_size"] == side
    x, t = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    assert prior(x, t.double()).shape == x.shape
    if config.num_classes:
        with pytest.raises(UsageError, match="labels only"):
            load_denoiser(folder, device=CPU)


def test_upsamplers_and_other_unets_are_refused(tmp_path: Path) -> None:
    state = adm(FFHQ_256).state_dict()
    broken = [
        (state | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}, "upsampler"),
        ({n: w for n, w in state.items() if not n.startswith("output_blocks.")}, "known UNet"),
        ({n: w for n, w in state.items() if not n.startswith("input_blocks.11")}, "known UNet"),
        (state | {"out.2.weight": torch.zeros(3, 32, 3, 3)}, "out.2.bias"),
        # Published with other heads and other steps, which the tensors do not tell.
        (adm(replace(OPENAI_64, updown=False)).state_dict(), "improved-diffusion"),
    ]
    for i, (changed, words) in enumerate(broken):
        torch.save(changed, tmp_path / f"{i}.pt")
        with pytest.raises(WeightsError, match=words):
            resolve(str(tmp_path / f"{i}.pt"))


def edited(folder: Path, *place: str, **changes: Any) -> None:
    path = folder.joinpath(*place)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"process": None},
        {"process": {"betas": {"count": 1}, "prediction": "epsilon", "clip": None}},
        {"process": {"betas": {}, "prediction": "poem", "clip": None}},
        {"process": {"betas": {}, "prediction": "epsilon", "clip": -1}},
        {"model": {"widths": [32], "attention": [True]}},
        {
            "model": {
                "model_channels": 1 << 40,
                "widths": [32],
                "attention": [0],
                "num_res_blocks": 1,
            }
        },
    ],
)
def test_a_damaged_configuration_is_one_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    torch.save(adm(FFHQ_256).state_dict(), tmp_path / "a.pt")
    folder = resolve(str(tmp_path / "a.pt"))
    before = (folder / "config.json").read_bytes()
    edited(folder, "config.json", **changes)
    try:
        with pytest.raises(WeightsError):
            load_denoiser(folder, device=CPU)
    finally:
        (folder / "config.json").write_bytes(before)


needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed"
)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A tiny pipeline, saved by the library itself."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)  # noqa: TID251 - the library draws its weights globally.
    unet = UNet2DModel(
        sample_size=16, block_out_channels=(32, 32), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = DDPMScheduler(num_train_timesteps=100, beta_end=0.1, clip_sample=False)
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipe", safe_serialization=True)
    return tmp_path / "pipe"


@needs_diffusers
@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_of_diffusers_is_the_same_denoiser_and_is_sampled(pipeline: Path) -> None:
    from diffusers import DDPMPipeline

    theirs = DDPMPipeline.from_pretrained(pipeline, use_safetensors=True)
    ours = load_denoiser(resolve(str(pipeline)), device=CPU)
    assert isinstance(ours, DiscreteDenoiser)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    kept = theirs.scheduler.alphas_cumprod.double()[40]
    with torch.no_grad():
        epsilon = theirs.unet(x, 40).sample
        exact = (x - (1 - kept).sqrt() * epsilon) / kept.sqrt()
        table = ours.log_ratios
        assert torch.allclose(table[40].exp(), ((1 - kept) / kept).sqrt(), rtol=1e-4)
        t = time_at_ratio(ours.schedule, table[40].exp())
        scale = (ours.schedule.alpha(t) ** 2 + ours.schedule.sigma(t) ** 2).sqrt()
        assert torch.allclose(ours((scale * x).float(), t).double(), exact.double(), atol=1e-3)
    A = Inpainting(
        (torch.rand(1, 24, 20, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    )
    y = A(torch.zeros(1, 3, 24, 20))
    model = load(str(pipeline))  # Larger than native: in windows.
    out = restore(y, A, sigma_y=0.1, model=model, options=LavpsOptions(num_steps=4), method="mgdm")
    assert out.shape == (1, 3, 24, 20)


@needs_diffusers
@pytest.mark.filterwarnings("ignore")
def test_what_of_diffusers_is_no_prior(pipeline: Path) -> None:
    def refused(words: str) -> None:
        with pytest.raises(LavpsError, match=words):
            resolve(str(pipeline))

    scheduler = ("scheduler", "scheduler_config.json")
    for changes, words in (
        ({"_class_name": "EulerDiscreteScheduler"}, "discrete times"),
        ({"_class_name": "ScoreSdeVeScheduler"}, "only 'fourier'"),
        ({"beta_schedule": "spline"}, "spline"),
        ({"prediction_type": "poem"}, "poem"),
        ({"rescale_betas_zero_snr": True}, "zero_snr"),
    ):
        before = pipeline.joinpath(*scheduler).read_bytes()
        edited(pipeline, *scheduler, **changes)
        refused(words)
        pipeline.joinpath(*scheduler).write_bytes(before)
    edited(pipeline, "unet", "config.json", in_channels=4)
    refused("RGB")
    edited(pipeline, "unet", "config.json", in_channels=3, _class_name="UNet2DConditionModel")
    refused("conditional")
    edited(pipeline, "unet", "config.json", _class_name="UNet2DModel")
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused("cannot be read")
    weights.unlink()
    refused("lacks")


@needs_diffusers
@pytest.mark.filterwarnings("ignore")
def test_what_of_a_network_does_not_fit_is_named(pipeline: Path) -> None:
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    for change in (
        {"conv_in.weight": None},
        {"surprise": torch.zeros(1)},
        {"conv_in.weight": torch.zeros(16, 3, 3, 3)},
    ):
        kept = {name: w for name, w in (state | change).items() if w is not None}
        save_file(kept, weights, metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=next(iter(change))):
            resolve(str(pipeline))
    save_file(state, weights, metadata={"format": "pt"})
    config = pipeline / "unet" / "config.json"
    before = config.read_bytes()
    for changes, words in (
        ({"layers_per_block": 10**5}, "layers_per_block"),
        ({"block_out_channels": [32, 1 << 20]}, "block_out_channels"),
        ({"block_out_channels": [32, 1 << 15]}, "numbers"),  # 100 GB, were it made.
        ({"time_embedding_type": "learned", "num_train_timesteps": 100}, "learned"),
        ({"time_embedding_type": "fourier"}, "fourier"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"sample_size": "poem"}, "poem"),
    ):
        edited(config, **changes)
        with pytest.raises(WeightsError, match=words):
            resolve(str(pipeline))
        config.write_bytes(before)


@needs_diffusers
@pytest.mark.filterwarnings("ignore")
def test_latents_are_refused_where_their_decoder_was_not_downloaded(pipeline: Path) -> None:
    edited(pipeline, "model_index.json", vqvae=["diffusers", "VQModel"], text_encoder=[None, None])
    with pytest.raises(WeightsError, match="with vqvae"):
        resolve(str(pipeline))


@needs_diffusers
@pytest.mark.filterwarnings("ignore")
def test_older_names_and_folders_without_parts_are_the_same_prior(
    pipeline: Path, tmp_path: Path
) -> None:
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        shutil.copy(pipeline / file, flat)
    state = load_file(pipeline / "unet" / "diffusion_pytorch_model.safetensors")
    renamed = {}
    for name, w in state.items():
        for new, old in older.items():
            name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = w
    assert renamed.keys() != state.keys()
    save_file(renamed, flat / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    x, t = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor(0.4)
    new, old = (load_denoiser(resolve(str(each)), device=CPU) for each in (pipeline, flat))
    assert torch.equal(new(x, t.double()), old(x, t.double()))


@needs_diffusers
@pytest.mark.filterwarnings("ignore")
def test_a_score_of_diffusers_is_its_denoiser_and_is_sampled(tmp_path: Path) -> None:
    from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel

    torch.manual_seed(0)  # noqa: TID251 - the library draws its weights globally.
    theirs = UNet2DModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        time_embedding_type="fourier", center_input_sample=True,
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"),
    ).eval()  # fmt: skip
    scheduler = ScoreSdeVeScheduler(sigma_max=90.0)
    ScoreSdeVePipeline(theirs, scheduler).save_pretrained(tmp_path / "ve")
    ours = load_denoiser(resolve(str(tmp_path / "ve")), device=CPU)
    assert isinstance(ours, ScoreDenoiser)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for sigma in (0.05, 1.0, 20.0):
        t = time_at_ratio(ours.schedule, torch.tensor(2 * sigma).double())
        with torch.no_grad():
            x0 = x + sigma**2 * theirs(x, torch.full((2,), sigma)).sample
            out = ours(ours.schedule.alpha(t).float() * (2 * x - 1), t)
        torch.testing.assert_close(out, 2 * x0 - 1, atol=1e-4, rtol=1e-4)
    A = Inpainting(torch.ones(1, 20, 24).tril())
    model = load(str(tmp_path / "ve"))
    y = A(torch.zeros(1, 3, 20, 24))
    out = restore(y, A, sigma_y=0.1, model=model, options=LavpsOptions(num_steps=3), method="mgdm")
    assert out.shape == (1, 3, 20, 24)
    edited(resolve(str(tmp_path / "ve")), "config.json", process={"sigma_max": -1})
    with pytest.raises(WeightsError, match="process"):
        load_denoiser(resolve(str(tmp_path / "ve")), device=CPU)


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    unet = tmp_path / "unet"
    unet.mkdir()
    (unet / "config.json").write_text(
        json.dumps({"_class_name": "UNet2DModel", "in_channels": 3, "out_channels": 3})
    )
    (unet / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({"_class_name": "DDPMScheduler"})
    )
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(WeightsError, match="not installed") as error:
        resolve(str(tmp_path))
    assert "lavps[diffusers]" in error.value.hint
