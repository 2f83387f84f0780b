"""The Smooth-LoRA: its penalty against explicit Jacobians, what is trained, and going on."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import get_peft_model_state_dict
from torch.autograd.functional import jacobian

from latentbench.data import faces
from latentbench.zoo import training
from latentbench.zoo.recipes import faces_lcm, faces_smooth
from latentbench.zoo.recipes.face_latents import FaceLatents

SHAPE = (3, 2, 4, 4)


def of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def denoiser() -> torch.nn.Module:
    """Gives each image an x0 of its own, not linear in the noise."""
    torch.manual_seed(0)
    first, last = torch.nn.Conv2d(2, 5, 3, padding=1), torch.nn.Conv2d(5, 2, 3, padding=1)
    return torch.nn.Sequential(first, torch.nn.Tanh(), last).double()


# ---------------------------------------------------------------- the penalty


@torch.enable_grad()
def test_variations_are_those_of_explicit_jacobians():
    net, eps, u = denoiser(), of(*SHAPE).requires_grad_(), of(*SHAPE, seed=1)
    sigma = torch.tensor([0.1, 0.5, 0.9]).double().reshape(3, 1, 1, 1)
    found = faces_smooth.variations(net(eps), eps, u, sigma)
    for k in range(3):
        j = jacobian(lambda e: net(e[None])[0].flatten(), eps[k].detach()).flatten(1)
        wanted = sigma[k].flatten() * (j.T @ u[k].flatten()).norm()
        torch.testing.assert_close(found[k], wanted[0], rtol=1e-12, atol=1e-14)


@torch.enable_grad()
def test_the_penalty_has_the_gradient_of_finite_differences():
    net, eps, u = denoiser(), of(*SHAPE), of(*SHAPE, seed=1)
    sigma, mean = torch.full((3, 1, 1, 1), 0.7).double(), torch.tensor(0.2).double()

    def value() -> torch.Tensor:
        leaf = eps.clone().requires_grad_()
        v = faces_smooth.variations(net(leaf), leaf, u, sigma)
        return faces_smooth.penalty(v, mean, 0.3)[0]

    weight = next(net.parameters())
    (gradient,) = torch.autograd.grad(value(), weight)
    ends = []
    for move in (1e-6, -1e-6):
        with torch.no_grad():
            weight.data[0, 0, 1, 1] += move
        ends.append(float(value().detach()))
        weight.data[0, 0, 1, 1] -= move
    assert float(gradient[0, 0, 1, 1]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


@torch.enable_grad()
def test_the_mean_moves_by_its_share_and_passes_a_gradient():
    v = torch.tensor([1.0, 3.0, 8.0]).requires_grad_()
    value, mean = faces_smooth.penalty(v, torch.tensor(2.0), 0.25)
    assert float(mean) == 2.5 and not mean.requires_grad
    assert float(value.detach()) == pytest.approx((1.5**2 + 0.5**2 + 5.5**2) / 3)
    (gradient,) = torch.autograd.grad(value, v)
    own, by_mean = 2 * (v.detach() - 2.5) / 3, -0.25 / 3 * 2 * float((v - 2.5).mean())
    torch.testing.assert_close(gradient, own + by_mean)


def test_variations_that_are_all_their_mean_cost_nothing():
    value, mean = faces_smooth.penalty(torch.full((4,), 0.3), torch.tensor(0.3), 0.01)
    assert float(value) < 1e-12 and float(mean) == pytest.approx(0.3)


def test_directions_have_an_expected_squared_length_of_one():
    u = faces_smooth.direction((2000, 4, 4, 4), torch.Generator().manual_seed(0))
    squared = u.square().flatten(1).sum(1)
    assert float(squared.mean()) == pytest.approx(1, abs=0.02)
    assert float(squared.std()) > 0.1  # Gaussian, as published, not of unit length


# ---------------------------------------------------------------- training


@pytest.fixture
def small(monkeypatch):
    """A small U-Net in place of the one of faces_ldm, and few faces."""

    def unet() -> UNet2DConditionModel:
        torch.manual_seed(0)
        blocks = ("CrossAttn{}Block2D",)
        net = UNet2DConditionModel(
            sample_size=16, in_channels=4, out_channels=4, layers_per_block=1,
            block_out_channels=(8,), cross_attention_dim=64, attention_head_dim=2,
            norm_num_groups=4, down_block_types=tuple(b.format("Down") for b in blocks),
            up_block_types=tuple(b.format("Up") for b in blocks),
        )  # fmt: skip
        return training.plain_attention(net).requires_grad_(False)

    monkeypatch.setattr(faces_lcm, "unet", unet)
    latents = of(6, 4, 16, 16).float()
    return FaceLatents(
        latents, torch.ones(6, 1, 16, 16), faces.sample_factors("generator", torch.arange(6))
    )


def trained(data, root, stop_after=None):
    plan = training.Plan(name="s", steps=4, batch=2, lr=1e-2, flat=1.0, ema=0.5, save_every=1)
    torch.manual_seed(1)
    module = faces_smooth.network()
    start = {k: v.clone() for k, v in module.state_dict().items()}
    loss = faces_smooth._loss(module, plan, data)
    training.train(module, loss, plan, root=root, stop_after=stop_after, report=lambda _: None)
    return start, module.state_dict()


def test_only_the_adapter_is_trained_and_the_mean_is_kept(small, tmp_path):
    start, end = trained(small, tmp_path)
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    lora = {name for name in start if ".lora_" in name}
    assert lora and changed == lora | {"mean"}
    assert float(end["mean"]) > 0
    attention = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in lora}
    assert attention == {"to_q", "to_k", "to_v", "0"}


def test_a_killed_training_ends_the_same(small, tmp_path):
    """Also its running mean, which the checkpoint holds."""
    _, straight = trained(small, tmp_path / "a")
    trained(small, tmp_path / "b", stop_after=2)
    _, resumed = trained(small, tmp_path / "b")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_the_file_is_the_adapter_alone(small, tmp_path):
    module = faces_smooth.network()
    faces_smooth.save(tmp_path, module)
    (file,) = tmp_path.iterdir()
    assert file.name == "pytorch_lora_weights.safetensors"
    count = sum(v.numel() for v in get_peft_model_state_dict(module.unet).values())
    assert file.stat().st_size < 2 * count + 20_000  # in half precision
