"""A latent diffusion model with a LoRA: merged whole, under each name that its file may have."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from latentbench.cells.identity import weights_of
from latentbench.errors import MissingWeights
from latentbench.model import LatentModel
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.lora import LORA_FILE, AdaptedDiffusion


@pytest.fixture(scope="module")
def unmerged(zoo):
    """The model with a random LoRA that is not merged."""
    torch.manual_seed(0)
    model = LatentDiffusion(path=str(zoo / "latent"), steps=5)
    layers = ["to_q", "to_k", "to_v", "to_out.0"]
    model.network.add_adapter(
        LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=layers)
    )
    return model


@pytest.fixture(scope="module")
def folder(unmerged, tmp_path_factory):
    """The LoRA's file, as `save_lora_weights` writes it."""
    made = tmp_path_factory.mktemp("lora")
    layers = get_peft_model_state_dict(unmerged.network)
    StableDiffusionPipeline.save_lora_weights(made, unet_lora_layers=layers)
    return made


@pytest.fixture(scope="module")
def adapted(zoo, folder):
    return AdaptedDiffusion(path=str(zoo / "latent"), adapter=str(folder), steps=5)


def call(model: LatentModel) -> torch.Tensor:
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    return model.forward(x, torch.tensor([900, 20]), model.condition(("hat", "smile"), 2))


def test_it_is_the_model_with_the_lora_and_offers_what_the_model_offers(adapted, unmerged, latent):
    torch.testing.assert_close(call(adapted), call(unmerged), rtol=1e-4, atol=1e-4)
    assert float((call(adapted) - call(latent)).abs().max()) > 0.01
    assert adapted.fingerprint() != latent.fingerprint()
    assert (AdaptedDiffusion.spaces, AdaptedDiffusion.gives) == (latent.spaces, latent.gives)
    assert adapted.linear_layers() == latent.linear_layers()  # nothing of peft is left


@pytest.mark.parametrize("prefix", ["", "unet."])
def test_the_names_of_attention_processors_are_read(zoo, folder, adapted, tmp_path, prefix):
    """As `save_attn_procs` wrote them, which is how the published Smooth-LoRA is named."""
    old = {}
    for name, value in load_file(folder / LORA_FILE).items():
        layer, _, half = name.removeprefix("unet.").partition(".lora_")
        module, _, leaf = layer.removesuffix(".0").rpartition(".")
        words = f"{leaf}_lora.{'down' if half.startswith('A') else 'up'}.weight"
        old[f"{prefix}{module}.processor.{words}"] = value
    save_file(old, tmp_path / "smooth_lora.safetensors")
    read = AdaptedDiffusion(
        path=str(zoo / "latent"), adapter=str(tmp_path), adapter_file="smooth_lora.safetensors",
        steps=5,
    )  # fmt: skip
    assert read.fingerprint() == adapted.fingerprint()


def test_an_absent_file_is_named_in_the_command_that_fetches_it(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    own, file = str(zoo / "latent"), "smooth_lora.safetensors"
    hub = "shi-labs/smooth-diffusion-lora"
    for adapter in (hub, str(tmp_path)):
        with pytest.raises(MissingWeights, match=f"hf download {adapter} {file}"):
            AdaptedDiffusion(path=own, adapter=adapter, adapter_file=file)


def test_the_lora_s_weights_are_of_the_cell_s_id(folder: Path):
    settings = {"path": "faces_ldm", "adapter": str(folder)}
    assert weights_of({"model": settings}, [settings]) == ["faces_ldm", str(folder)]
