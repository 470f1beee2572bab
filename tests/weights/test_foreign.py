"""Weights of other projects: their layouts, written by hand, and everything that can be wrong."""

import contextlib
import hashlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavps_cli.errors import LavpsError, OutputError, UsageError, WeightsError
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.pipeline.importing import import_model
from lavps_cli.weights.checkpoint import load_denoiser, write_folder
from lavps_cli.weights.convert import convert
from lavps_cli.weights.foreign import k_diffusion
from lavps_cli.weights.foreign.parts import joined, pieces_of
from lavps_cli.weights.hdit import hdit_network
from lavps_cli.weights.index import imported, resolve
from lavps_cli.weights.tensors import Contents

CPU = torch.device("cpu")
WIDTHS, DEPTHS = (16, 32), (3, 1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(kind: str = "shifted_window", classes: int = 0) -> HDiT:
    """A network whose every weight plays a part."""
    kinds = (kind, "global")
    config = HDiTConfig(
        levels=tuple(
            LevelConfig(depth=d, width=w, d_ff=3 * w, d_head=8, attention=k, window=4)  # type: ignore[arg-type]
            for d, w, k in zip(DEPTHS, WIDTHS, kinds, strict=True)
        ),
        patch_size=4,
        mapping_width=24,
        mapping_d_ff=72,
        num_classes=classes,
    )
    made = HDiT(config).requires_grad_(False)
    for i, w in enumerate(made.parameters()):
        w.add_(0.1 * random(*w.shape, seed=i))
    return made


def k_config(attention: dict[str, Any], classes: int = 0, **changes: Any) -> dict[str, Any]:
    model = {
        "type": "image_transformer_v2", "input_channels": 3, "input_size": [16, 16],
        "patch_size": [4, 4], "depths": list(DEPTHS), "widths": list(WIDTHS),
        "self_attns": [{"d_head": 8} | attention, {"type": "global", "d_head": 8}],
        "mapping_width": 24, "mapping_depth": 2, "sigma_data": 0.7, "loss_config": "karras",
    }  # fmt: skip
    return {
        "model": model | changes,
        "dataset": {"type": "huggingface", "location": "some/pictures", "num_classes": classes},
    }


ATTENTIONS = {
    "shifted_window": {"type": "shifted-window", "window_size": 4},
    "neighbourhood": {"type": "neighborhood", "kernel_size": 4},
    "global": {"type": "global"},
}


def saved(path: Path, config: dict[str, Any], state: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path, {"config": json.dumps(config)})
    else:
        torch.save({"config": config, "model": {}, "model_ema": state, "step": 7, "x": None}, path)
    return path


def test_labels(tmp_path: Path) -> None:
    made = network(classes=4)
    for name, dropped in (("a", 0.1), ("b", 0.0)):
        config = k_config(ATTENTIONS["shifted_window"], 3)
        config["dataset"]["cond_dropout_rate"] = dropped
        saved(tmp_path / f"{name}.pth", config, made.state_dict())
    folder = resolve(str(tmp_path / "a.pth"))
    none, first = (load_denoiser(folder, device=CPU, label=label) for label in (None, 0))
    x, t = random(1, 3, 16, 16), torch.tensor(0.4, dtype=torch.float64)
    assert (none(x, t) - first(x, t)).abs().max() > 1e-3
    with pytest.raises(UsageError, match="3 labels"):
        load_denoiser(folder, device=CPU, label=3)
    with pytest.raises(UsageError, match="labels only"):
        load_denoiser(resolve(str(tmp_path / "b.pth")), device=CPU)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "image_v1"}, "image_v1"),
        ({"input_channels": 1}, "RGB"),
        ({"input_size": [16, 32]}, "square"),
        ({"mapping_cond_dim": 9}, "further condition"),
        ({"widths": [16]}, "differ in length"),
        ({"widths": "wide"}, "cannot be read"),
        ({"self_attns": [{"type": "linear"}, {"type": "global"}]}, "linear"),
        ({"widths": [1 << 40, 32]}, "does not describe"),
        ({"depths": [1 << 15, 1]}, "layers"),
        ({"sigma_data": float("nan")}, "sigma_data"),
    ],
)
def test_what_k_diffusion_holds_and_cannot_be_used(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    config = k_config(ATTENTIONS["global"], **changes)
    path = saved(tmp_path / "a.pth", config, network("global").state_dict())
    with pytest.raises(WeightsError, match=words):
        load_denoiser(resolve(str(path)), device=CPU)


def authors_file(path: Path, made: HDiT) -> Path:
    """The layout that is described for hdit-*.pt: Precond's names, blocks wrapped as `attn`."""
    state: dict[str, Tensor] = {
        "logvar_fourier.freqs": random(8),
        "logvar_linear.weight": random(1, 8),
    }
    for name, w in made.state_dict().items():
        parts = name.split(".")
        if parts[0] in ("down_levels", "up_levels"):
            parts.insert(3, "attn")
        elif parts[0] == "mid_level":
            parts.insert(2, "attn")
        state["unet." + ".".join(parts)] = w
    torch.save({"ema": state, "cur_nimg": 3}, path)
    return path


def test_a_conditional_model_is_no_prior(tmp_path: Path) -> None:
    state = {"unet.patch_in.proj.weight": random(16, 48)}
    state["unet.mid_level.0.feature_degradation.deg_linear.weight"] = random(2, 3)
    torch.save({"ema": state}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="conditional"):
        resolve(str(tmp_path / "a.pt"))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(Path("pwned").absolute()), "w"))


def test_pickles_are_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"ema": {"unet.patch_in.proj.weight": Evil()}}, tmp_path / "a.pt")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"config": Evil()}))
    for name in ("a.pt", "b.pth"):
        with pytest.raises(WeightsError, match="holds other things"):
            resolve(str(tmp_path / name))
    assert not (tmp_path / "pwned").exists()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = network("global").state_dict()
    name = "mid_level.0.ff.up_proj.weight"
    wrong: list[tuple[dict[str, Tensor], str]] = [
        ({n: w for n, w in state.items() if n != name}, f"lacks {name}"),
        (state | {"more": random(1)}, "unknown entry more"),
        (state | {name: state[name][:-1]}, f"{name} has shape"),
        (state | {name: state[name] * float("nan")}, f"{name} holds"),
    ]
    for i, (broken, words) in enumerate(wrong):
        path = saved(tmp_path / f"{i}.pth", k_config(ATTENTIONS["global"]), broken)
        with pytest.raises(WeightsError, match=words):
            convert(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_end_in_one_error(tmp_path: Path, suffix: str) -> None:
    """Cut anywhere, and with bits turned anywhere: an error, or the very model, never a crash."""
    whole = saved(
        tmp_path / f"whole{suffix}", k_config(ATTENTIONS["global"]), network("global").state_dict()
    ).read_bytes()
    path = tmp_path / f"a{suffix}"
    draw = torch.Generator().manual_seed(0)
    refused = 0
    for turn in range(60):
        data = bytearray(whole)
        place = int(torch.randint(len(data) if turn % 3 else 4096, (1,), generator=draw))
        if turn % 2:
            data[place] ^= 1 << int(torch.randint(8, (1,), generator=draw))
        else:
            del data[place:]
        path.write_bytes(data)
        with contextlib.suppress(LavpsError):
            convert(path)
            continue
        refused += 1
    assert refused >= 30


JUNK = (
    None, True, -1, 0, 1, 7, 1 << 40, 1e300, float("inf"), float("nan"), "", "x", [], {}, [0],
    ["a", "b"], {"type": "global"}, [[1, 2]] * 2,
)  # fmt: skip


def test_any_configuration_gives_a_network_or_one_error(tmp_path: Path) -> None:
    """Junk in the place of any entry, of entries of entries, and two at a time."""
    state = network("global").state_dict()
    draw = torch.Generator().manual_seed(1)

    def pick(count: int) -> int:
        return int(torch.randint(count, (1,), generator=draw))

    refused = 0
    for turn in range(150):
        config: dict[str, Any] = k_config(ATTENTIONS["global"], 3 * (turn % 2))
        for _ in range(1 + turn % 3 // 2):
            place: Any = config["model"]
            key: Any = sorted(place)[pick(len(place))]
            while isinstance(place[key], list | dict) and place[key] and pick(2):
                place = place[key]
                key = (
                    sorted(place)[pick(len(place))] if isinstance(place, dict) else pick(len(place))
                )
            place[key] = JUNK[pick(len(JUNK))]
        contents = Contents(tmp_path / "a.pth", {"config": config, "model_ema": state})
        with contextlib.suppress(WeightsError):
            foreign = k_diffusion.read(contents)
            with torch.device("meta"):
                assert foreign is None or hdit_network(foreign.config["model"]) is not None
            continue
        refused += 1
    assert 50 <= refused < 150


def test_compressed_files_are_not_unpacked(tmp_path: Path) -> None:
    """PyTorch never compresses; a small file could fill the memory."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as whole,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(WeightsError, match="compressed"):
        resolve(str(tmp_path / "b.pt"))


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    whole = random(4, 6)
    write_folder(tmp_path, {}, {"a": whole, "b": whole, "row": whole[1], "turned": whole.T})
    state = load_file(tmp_path / "model.safetensors")
    for name, w in {"a": whole, "b": whole, "row": whole[1], "turned": whole.T}.items():
        assert torch.equal(state[name], w)


def pieces(folder: Path, count: int = 3) -> tuple[Path, bytes]:
    whole = authors_file(folder / "prior.pt", network("neighbourhood"))
    content = whole.read_bytes()
    whole.unlink()
    size = -(-len(content) // count)
    lines = [f"{hashlib.sha256(content).hexdigest()}  prior.pt"]
    for i in range(count):
        part = content[i * size : (i + 1) * size]
        (folder / f"prior.pt.part-{i:02}").write_bytes(part)
        lines.append(f"{hashlib.sha256(part).hexdigest()} *prior.pt.part-{i:02}")
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    return whole, content


def test_pieces_are_joined_and_checked(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    whole, content = pieces(tmp_path / "in")
    for path in (tmp_path / "in", whole, tmp_path / "in" / "prior.pt.part-01"):
        with joined(pieces_of(path), tmp_path / "room") as found:
            assert found.read_bytes() == content
    assert not list((tmp_path / "room").iterdir())
    last = tmp_path / "in" / "prior.pt.part-02"
    data = last.read_bytes()
    last.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with (
        pytest.raises(WeightsError, match="part-02 is damaged"),
        joined(pieces_of(whole), tmp_path),
    ):
        pass
    last.unlink()
    with (
        pytest.raises(WeightsError, match=r"missing: prior\.pt\.part-02"),
        joined(pieces_of(whole), tmp_path),
    ):
        pass


def test_what_is_imported_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "in").mkdir()
    pieces(tmp_path / "in")
    found = import_model(str(tmp_path / "in"), licence="MIT")
    assert found.name == "prior"
    assert imported()["prior"] == Path(found.path) == resolve("prior")
    config = json.loads((resolve("prior") / "config.json").read_text())
    assert (config["licence"], config["source"]) == ("MIT", "prior.pt")
    with pytest.raises(OutputError, match="there already"):
        import_model(str(tmp_path / "in"))
    before = (resolve("prior") / "model.safetensors").read_bytes()
    other = saved(
        tmp_path / "k.pth", k_config(ATTENTIONS["global"]), network("global").state_dict()
    )
    import_model(str(other), name="prior", force=True)
    assert (resolve("prior") / "model.safetensors").read_bytes() != before
    assert not [each for each in resolve("prior").parent.iterdir() if each.name.startswith(".")]
    import_model(str(other), output=str(tmp_path / "out"))
    assert (tmp_path / "out" / "model.safetensors").exists()
    with pytest.raises(UsageError, match="model folder of lavps already"):
        import_model(str(tmp_path / "out"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "diary.txt").touch()
    (tmp_path / "home" / "config.json").write_text("{}")
    with pytest.raises(OutputError, match="left alone"):
        import_model(str(other), output=str(tmp_path / "home"), force=True)
    assert (tmp_path / "home" / "diary.txt").exists()
    for name in ("natural-64", "../up", "", "a/b", "none", "default"):
        with pytest.raises(UsageError, match="name"):
            import_model(str(other), name=name)
    (tmp_path / "broken.pth").write_bytes(b"x" * 100)
    with pytest.raises(WeightsError):
        import_model(str(tmp_path / "broken.pth"), name="prior", force=True)
    assert resolve("prior").is_dir()  # What was there is kept.
    with pytest.raises(WeightsError, match="no such file"):
        import_model(str(tmp_path / "nowhere.pt"))
