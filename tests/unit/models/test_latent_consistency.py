"""Latent consistency models: against LCMScheduler, LoRA files, refusals."""

import json
import shutil

import pytest
import torch
from diffusers import (
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig, get_peft_model_state_dict

from latentbench.cache import Cache
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.errors import MissingWeights
from latentbench.models.latent_consistency import LatentConsistency, guidance_embedding
from latentbench.sampling.consistency import ConsistencyStep
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from methods.editing.sdedit import SDEdit
from methods.generation.consistency import ConsistencySampling
from methods.inversion.ddim_inversion import DDIMInversion

LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.2"]


@pytest.fixture(scope="module")
def adapter(zoo, tmp_path_factory):
    """A LoRA of random weights, and the U-Net with it unmerged."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(zoo / "latent", subfolder="unet")
    unet.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=LAYERS))
    for name, weight in unet.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.2)
    folder = tmp_path_factory.mktemp("lora")
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=get_peft_model_state_dict(unet),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),  # alpha is not the rank
    )
    return str(folder), unet


@pytest.fixture(scope="module")
def student(zoo, adapter):
    return LatentConsistency(path=str(zoo / "latent"), adapter=adapter[0], steps=4)


def noise(model, n):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, n, *model.latent_shape, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_steps_are_lcm_schedulers(student, steps, monkeypatch):
    z, condition = noise(student, steps + 1), student.condition(("hat", "smile"), 2)
    scheduler = LCMScheduler.from_config(student.scheduler.config)
    scheduler.set_timesteps(steps)
    x = z[:, 0]
    for i, t in enumerate(scheduler.timesteps):
        out = student.network(x, t, **condition.tensors).sample
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *a, i=i, **k: z[:, i + 1]
        )
        x = scheduler.step(out, t, x).prev_sample
    step = ConsistencyStep(student, lambda i: z[:, i + 1])
    terms = guided(condition, condition, 1.0)
    ours = generate(student, z[:, 0], terms, grid=student.grid(steps), interventions=[step])
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_lora_is_merged_into_the_weights(student, adapter, latent):
    x, t = noise(student, 1)[:, 0], torch.tensor([999, 19])
    condition = student.condition(("hat", "smile"), 2)
    theirs = adapter[1](x, t, **condition.tensors).sample
    torch.testing.assert_close(student.forward(x, t, condition), theirs, rtol=1e-4, atol=1e-4)
    assert (
        float((student.forward(x, t, condition) - latent.forward(x, t, condition)).abs().max())
        > 0.01
    )
    assert student.fingerprint() != latent.fingerprint()


def test_the_clean_end_is_a_fixed_point(student):
    skip, out = student.boundary(0)
    assert (skip, out) == (1.0, 0.0)
    skip, out = student.boundary(999)
    assert skip < 1e-6 and out > 0.999


@torch.no_grad()
def test_noise_belongs_to_the_image(student):
    method = ConsistencySampling()
    method.attach(student, Streams(0), Cache(None))
    both = method.generate(("a", "b"), ("hat", "smile"))
    swapped = method.generate(("b", "a"), ("smile", "hat"))
    assert torch.equal(both, swapped.flip(0))
    assert torch.equal(both, method.generate(("a", "b"), ("hat", "smile")))


@pytest.mark.parametrize("method", [DDIMInversion, SDEdit])
def test_editors_from_a_noise_are_refused(method):
    parts = Parts(method, {}, LatentConsistency, toy.ToyData(), toy.Asks(verb="edit"))
    reason = parts.misfit() or ""
    assert "requires the space noise" in reason and "LatentConsistency lacks" in reason


@torch.no_grad()
def test_a_student_with_a_guidance_embedding_is_told_its_scale(zoo, tmp_path):
    """As LCM_Dreamshaper: time_cond_proj_dim in the U-Net's config, LCMScheduler in the folder."""
    folder = tmp_path / "dreamshaper"
    shutil.copytree(zoo / "latent", folder)
    torch.manual_seed(0)
    config = json.loads((folder / "unet" / "config.json").read_text())
    unet = UNet2DConditionModel.from_config(config | {"time_cond_proj_dim": 16})
    unet.time_embedding.cond_proj.weight.data.normal_(0, 1)
    unet.save_pretrained(folder / "unet")
    LCMScheduler().save_pretrained(folder / "scheduler")
    weak, strong = (
        LatentConsistency(path=str(folder), embedded_guidance=g, steps=2) for g in (2.0, 9.0)
    )
    x, t = noise(weak, 1)[:, 0], torch.tensor([999, 499])
    a, b = (m.forward(x, t, m.condition(("hat", "smile"), 2)) for m in (weak, strong))
    assert float((a - b).abs().max()) > 1e-4
    theirs = strong.network(
        x, t, strong.condition(("hat", "smile"), 2).tensors["encoder_hidden_states"],
        timestep_cond=guidance_embedding(8.0, 16).expand(2, 16),
    ).sample  # fmt: skip
    torch.testing.assert_close(b, theirs)


def test_the_embedding_is_latent_consistency_pipelines():
    make = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    theirs = make(None, torch.tensor([7.5]), embedding_dim=256)[0]
    torch.testing.assert_close(guidance_embedding(7.5, 256), theirs, rtol=1e-4, atol=1e-4)


def test_an_absent_lora_names_the_command_that_fetches_it(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = "latent-consistency/lcm-lora-sdv1-5"
    with pytest.raises(MissingWeights, match=f"hf download {name}"):
        LatentConsistency(path=str(zoo / "latent"), adapter=name)
    with pytest.raises(MissingWeights, match=r"model\.adapter="):
        LatentConsistency(path=str(zoo / "latent"), adapter=str(tmp_path))
