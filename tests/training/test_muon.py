import pytest
import torch

from lavps_cli.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_orthogonalised_matrices_keep_their_directions_and_lose_their_sizes(
    shape: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=generator))
    v, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=generator))
    sizes = torch.linspace(0.2, 3, min(shape))
    x = orthogonalised(((u * sizes) @ v.T)[None]).float()[0]
    found = u.T @ x @ v  # Diagonal, if the directions are kept.
    torch.testing.assert_close(found, found.diagonal().diag(), atol=0.03, rtol=0)
    assert found.diagonal().min() > 0.6
    assert found.diagonal().max() < 1.3


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_steps_are_those_of_pytorchs_muon() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(12, 30, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    first = Muon([ours], lr=0.01, weight_decay=0.1)
    second = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        gradient = torch.randn(12, 30, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        first.step()
        second.step()
    # Theirs iterates in bfloat16 everywhere.
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    assert float((ours.detach() - start).abs().max()) > 0.01
