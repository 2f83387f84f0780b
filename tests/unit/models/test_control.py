"""A ControlNet on a latent diffusion model: what it changes, and what it leaves alone."""

from dataclasses import replace

import pytest
import real_configs as real
import torch
from controlnets import save_controlnet
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

from latentbench.cells.identity import weights_of
from latentbench.errors import BadInput, Incompatible
from latentbench.model import Condition
from latentbench.models.control import ControlledDiffusion, ControlledXL
from latentbench.models.stable_diffusion_xl import StableDiffusionXL
from latentbench.sampling.loop import generate, guided
from latentbench.types import Capability

TIMES = torch.tensor([900, 400, 20])
PROMPTS = ("a face with hat", "smile", "a smile face")


@pytest.fixture(scope="module")
def folder(latent, tmp_path_factory):
    return save_controlnet(tmp_path_factory.mktemp("control"), latent.network, latent.image_size)


@pytest.fixture(scope="module")
def controlled(zoo, folder):
    path = str(zoo / "latent")
    return ControlledDiffusion(path=path, controlnet=folder, steps=5, guidance=3.0)


def noise(model, rows=3):
    return torch.randn(rows, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def drawings(model, rows=3):
    size = (rows, 3, model.image_size, model.image_size)
    return torch.rand(size, generator=torch.Generator().manual_seed(1))


def steered(model, rows=3) -> Condition:
    return model.controlled(model.condition(PROMPTS[:rows], rows), drawings(model, rows))


def test_it_gives_the_images_of_its_pipeline(controlled):
    model = controlled
    pipeline = StableDiffusionControlNetPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.network, model.controlnet,
        model.scheduler, None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        list(PROMPTS), image=drawings(model), num_inference_steps=5, guidance_scale=3.0,
        latents=noise(model), output_type="pt",
    ).images  # fmt: skip
    null = model.controlled(model.condition(None, 3), drawings(model))
    ours = model.decode(generate(model, noise(model), guided(steered(model), null, 3.0)))
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-4)
    free = guided(model.condition(PROMPTS, 3), model.condition(None, 3), 3.0)
    plain = model.decode(generate(model, noise(model), free))
    assert float((plain - ours).abs().mean()) > 0.01


def test_without_images_or_at_scale_0_it_is_the_plain_model(zoo, folder, controlled, latent):
    x, condition = noise(latent), latent.condition(PROMPTS, 3)
    expected = latent.forward(x, TIMES, condition)
    assert torch.equal(controlled.forward(x, TIMES, condition), expected)
    path = str(zoo / "latent")
    off = ControlledDiffusion(path=path, controlnet=folder, control_scale=0.0, steps=5)
    assert torch.equal(off.forward(x, TIMES, steered(off)), expected)
    found = controlled.forward(x, TIMES, steered(controlled))
    assert float((found - expected).abs().mean()) > 0.01
    assert len({m.fingerprint() for m in (latent, controlled, off)}) == 3
    assert (ControlledDiffusion.spaces, ControlledDiffusion.gives) == (
        latent.spaces,
        latent.gives | {Capability.CONTROL},
    )
    assert controlled.feature_layers() == latent.feature_layers()
    assert controlled.attention_layers() == latent.attention_layers()


def test_each_row_reads_its_own_image(controlled):
    x, condition = noise(controlled), steered(controlled)
    together = controlled.forward(x, TIMES, condition)
    for k in range(3):
        one = torch.tensor([k])
        alone = controlled.forward(x[one], TIMES[one], condition.rows(one))
        torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-5)
    twice = condition.repeat(2)
    assert torch.equal(twice.tensors["control"][:2], drawings(controlled)[[0, 0]])


def test_gradients_pass_through_both_networks_and_both_are_counted(controlled):
    condition = controlled.condition(PROMPTS, 3)
    images = drawings(controlled).requires_grad_()
    with torch.enable_grad():
        before = replace(controlled.evaluations)
        x = noise(controlled).requires_grad_()
        out = controlled.forward(x, TIMES, controlled.controlled(condition, images))
        slopes = torch.autograd.grad(out.square().sum(), [x, images])
        assert all(bool(slope.flatten(1).any(1).all()) for slope in slopes)
        assert controlled.evaluations.forward - before.forward == 6
        assert controlled.evaluations.backward - before.backward == 6
        before = replace(controlled.evaluations)
        torch.autograd.grad(controlled.forward(x, TIMES, condition).sum(), x)
        assert controlled.evaluations.forward - before.forward == 3
        assert controlled.evaluations.backward - before.backward == 3


@pytest.mark.slow
def test_xl_passes_pooled_text_and_sizes_to_both_networks(tmp_path):
    path = real.save_sdxl(tmp_path / "sdxl")
    plain = StableDiffusionXL(path=path, steps=2)
    folder = save_controlnet(tmp_path / "control", plain.network, plain.image_size)
    model = ControlledXL(path=path, controlnet=folder, steps=2)
    x, told = noise(plain, 1), plain.condition(PROMPTS[:1], 1)
    expected = plain.forward(x, TIMES[:1], told)
    assert torch.equal(model.forward(x, TIMES[:1], told), expected)
    found = model.forward(x, TIMES[:1], steered(model, 1))
    assert float((found - expected).abs().mean()) > 0.01


def test_what_does_not_fit_is_refused(zoo, latent, controlled, tmp_path):
    condition = controlled.condition(PROMPTS, 3)
    for images, words in (
        (drawings(controlled) * 2 - 1, r"must lie in \[0, 1\]"),
        (drawings(controlled)[..., :8], r"a control image per row.*resize"),
        (drawings(controlled, 1), r"a control image per row"),
    ):
        with pytest.raises(BadInput, match=words):
            controlled.controlled(condition, images)
    with pytest.raises(Incompatible, match=r"takes no control image.*controlnet_sd15"):
        latent.controlled(condition, drawings(controlled))
    for mixed in ([condition, steered(controlled)], [steered(controlled), condition]):
        with pytest.raises(BadInput, match=r"the same tensors.*or none"):
            Condition.concat(mixed)
    path = str(zoo / "latent")
    with pytest.raises(BadInput, match=r"images of 3 channels and 32 pixels.*must read 3 and 16"):
        larger = save_controlnet(tmp_path / "a", latent.network, 2 * latent.image_size)
        ControlledDiffusion(path=path, controlnet=larger)
    other = ControlNetModel.from_config({**controlled.controlnet.config, "cross_attention_dim": 16})
    other.save_pretrained(tmp_path / "b")
    with pytest.raises(BadInput, match=r"has cross_attention_dim 16, the U-Net .* 32"):
        ControlledDiffusion(path=path, controlnet=str(tmp_path / "b"))


def test_the_controlnet_s_weights_are_of_the_cell_s_id(folder):
    settings = {"path": "faces_ldm", "adapter": None, "controlnet": folder}
    assert weights_of({"model": settings}, [settings]) == ["faces_ldm", folder]
