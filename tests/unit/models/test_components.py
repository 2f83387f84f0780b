"""What a checkpoint's files may not hold or lack, on tiny components that are damaged here."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import real_configs as real
import torch
import transformers_toy as small
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from latentbench.conformance import toy, toy_models
from latentbench.errors import MissingWeights
from latentbench.models.components import load_component, load_network
from latentbench.models.dit import DiT
from latentbench.models.edm import EDMStableDiffusionXL
from latentbench.models.flux import Flux
from latentbench.models.gan import MappingNetwork
from latentbench.models.latent_consistency import LatentConsistency
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.models.stable_diffusion_xl import StableDiffusionXL
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.models.unconditional_latent import UnconditionalLatentDiffusion

Tensors = dict[str, Tensor]
RANK = 2  # of a LoRA; alpha is the same, so that its scale is 1
TEXT: dict[str, Any] = {
    "vocab_size": 9,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
}
TEXT |= {"num_attention_heads": 2, "max_position_embeddings": 5, "eos_token_id": 8}


class Kind(NamedTuple):
    """A component: the class it is loaded as, and one to save."""

    cls: Any
    make: Callable[[], Any]


def autoencoder() -> Any:
    cls: Any = AutoencoderKL
    return cls(
        block_out_channels=(4, 4), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=2, layers_per_block=1,
    )  # fmt: skip


def clip() -> Any:
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "patch_size": 4}
    vision |= {"num_attention_heads": 2, "image_size": 8}
    return CLIPModel(CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=4))


KINDS = {
    "autoencoder": Kind("diffusers.AutoencoderKL", autoencoder),
    "mapping": Kind(MappingNetwork, lambda: MappingNetwork(code=4, width=4, depth=2)),
    "text": Kind("transformers.CLIPTextModel", lambda: CLIPTextModel(CLIPTextConfig(**TEXT))),
    "t5": Kind("transformers.T5EncoderModel", small.t5_tower),
    "clip": Kind("transformers.AutoModel", clip),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("components")
    for name, kind in KINDS.items():
        torch.manual_seed(0)
        kind.make().save_pretrained(folder / name)
    return folder


@pytest.fixture(params=KINDS)
def component(request, saved, tmp_path):
    """A fresh copy of a component: (its class, its folder, its file)."""
    name, place = request.param, tmp_path / request.param
    place.mkdir()
    for file in (saved / name).iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    return KINDS[name].cls, place, weights_of(place)


def weights_of(place: Path) -> Path:
    return next(iter(sorted(place.glob("*.safetensors"))))


def load(cls: Any, place: Path, dtype: torch.dtype = torch.float32) -> Any:
    return load_network(cls, str(place.parent), place.name, dtype)


def refusal(cls: Any, place: Path) -> str:
    with pytest.raises(MissingWeights) as caught:
        load(cls, place)
    return str(caught.value)


def change(file: Path, damage: Callable[[Tensors, str], Any]) -> str:
    """Damage the file, and return the name of the tensor that was hit: one with two axes."""
    tensors = load_file(file)
    name = sorted(n for n, v in tensors.items() if v.ndim >= 2)[-1]
    damage(tensors, name)
    save_file(tensors, file, {"format": "pt"})
    return name


def infect(tensors: Tensors, name: str) -> None:
    tensors[name].view(-1)[3] = torch.nan


# damage to one tensor of a file, and the words that a message must have about it
DAMAGES: dict[str, tuple[Callable[[Tensors, str], Any], str]] = {
    "missing": (lambda t, n: t.pop(n), "it lacks"),
    "renamed": (lambda t, n: t.update({f"{n}_old": t.pop(n)}), "it lacks"),
    "extra": (lambda t, n: t.update({"ghost.weight": torch.ones(2)}), "does not know its"),
    "transposed": (lambda t, n: t.update({n: torch.ones(3, *t[n].shape)}), "shape|asks for"),
    "integers": (lambda t, n: t.update({n: t[n].int()}), r"integers .* \(I32\)"),
    "booleans": (lambda t, n: t.update({n: t[n] > 0}), r"integers .* \(BOOL\)"),
    "NaN": (infect, "NaN or infinity in"),
    "infinity": (lambda t, n: t.update({n: t[n] / 0}), "NaN or infinity in"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_by_file_and_tensor(component, damage):
    cls, place, file = component
    hurt, words = DAMAGES[damage]
    name = change(file, hurt)
    said = refusal(cls, place)
    assert re.search(words, said), said
    assert str(file) in said or str(place) in said
    assert ("ghost.weight" if damage == "extra" else name) in said


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_whole_component_is_loaded_as_it_was_saved(component, dtype):
    cls, place, file = component
    tensors = {n: v.to(dtype) for n, v in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    found = load(cls, place, dtype).state_dict()
    assert len(found) >= len(tensors)  # tied ones are stored once
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def in_parts(kind: Kind, place: Path) -> Path:
    """Save a component in several files, and return their index."""
    torch.manual_seed(0)
    kind.make().save_pretrained(place, max_shard_size="2KB")
    return next(place.glob("*.index.json"))


@pytest.mark.parametrize("name", ["autoencoder", "text"])
def test_several_files_are_read_as_one(name, saved, tmp_path):
    kind, index = KINDS[name], in_parts(KINDS[name], tmp_path / name)
    assert len(list(index.parent.glob("*.safetensors"))) > 1
    parts, one = load(kind.cls, index.parent), load(kind.cls, saved / name)
    assert all(torch.equal(v, parts.state_dict()[n]) for n, v in one.state_dict().items())


@pytest.mark.parametrize("damage", [*DAMAGES, "a file is gone", "the index is cut"])
@pytest.mark.parametrize("name", ["autoencoder", "text"])
def test_damage_to_one_of_several_files_is_refused(name, damage, tmp_path):
    kind, index = KINDS[name], in_parts(KINDS[name], tmp_path / name)
    file = weights_of(index.parent)
    if damage == "a file is gone":
        file.unlink()
        assert file.name in refusal(kind.cls, index.parent)
    elif damage == "the index is cut":
        index.write_bytes(index.read_bytes()[:40])
        assert str(index) in refusal(kind.cls, index.parent)
    else:
        hurt = change(file, DAMAGES[damage][0])
        said = refusal(kind.cls, index.parent)
        assert ("ghost.weight" if damage == "extra" else hurt) in said
        assert str(index.parent) in said


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda raw: raw[:-5],
    "cut in the header": lambda raw: raw[:50],
    "longer": lambda raw: raw + b"\0",
    "empty": lambda raw: b"",
    "other bytes": lambda raw: b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("damage", BYTES)
@pytest.mark.parametrize("name", ["mapping", "text"])
def test_a_file_that_is_not_whole_is_named(name, damage, saved, tmp_path):
    place = shutil.copytree(saved / name, tmp_path / name)
    file = weights_of(place)
    file.write_bytes(BYTES[damage](file.read_bytes()))
    assert str(file) in refusal(KINDS[name].cls, place)


@pytest.mark.parametrize("text", ["", "null", "[]", '{"hidden_size": "a", "depth": "a"}', "\xff"])
@pytest.mark.parametrize("name", ["mapping", "text"])
def test_a_config_that_is_not_one_is_named(name, text, saved, tmp_path):
    place = shutil.copytree(saved / name, tmp_path / name)
    (place / "config.json").write_text(text, encoding="latin-1")
    said = refusal(KINDS[name].cls, place)
    assert str(place.parent) in said and place.name in said


def test_positions_that_old_text_encoders_store_are_no_stranger(saved, tmp_path):
    """Stable Diffusion 1.5 stores them; the class makes them itself."""
    place = shutil.copytree(saved / "text", tmp_path / "text")
    tensors = load_file(weights_of(place))
    old = {f"text_model.{name}": value for name, value in tensors.items()}
    old["text_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(old, weights_of(place), {"format": "pt"})
    found = load("transformers.CLIPTextModel", place).state_dict()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_tied_weights_may_be_stored_once_or_twice(saved, tmp_path):
    place = shutil.copytree(saved / "t5", tmp_path / "t5")
    tensors = load_file(weights_of(place))
    assert "encoder.embed_tokens.weight" not in tensors
    once = load("transformers.T5EncoderModel", place).state_dict()
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
    save_file(tensors, weights_of(place), {"format": "pt"})
    twice = load("transformers.T5EncoderModel", place).state_dict()
    assert all(torch.equal(twice[name], value) for name, value in once.items())
    assert torch.equal(once["encoder.embed_tokens.weight"], tensors["shared.weight"])


def test_a_scheduler_without_a_schedule_is_refused(tmp_path):
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    file = tmp_path / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    for value, words in ((float("nan"), "betas are not finite"), ("a", "cannot be used as it is")):
        file.write_text(json.dumps(config | {"beta_end": value}))
        with pytest.raises(MissingWeights, match=words) as caught:
            load_component("diffusers.DDIMScheduler", str(tmp_path), "scheduler")
        assert str(tmp_path) in str(caught.value)


# ---------------------------------------------------------------- adapters


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return toy.save_latent(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def lora(teacher, tmp_path):
    """The file of a random LoRA on the teacher's attention."""
    torch.manual_seed(0)
    network = LatentDiffusion(path=teacher).network
    network.add_adapter(
        LoraConfig(r=RANK, init_lora_weights=False, target_modules=["to_q", "to_k"])
    )
    layers: Any = get_peft_model_state_dict(network, adapter_name="default")
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    return weights_of(tmp_path)


def student(teacher: str, lora: Path) -> LatentConsistency:
    return LatentConsistency(path=teacher, adapter=str(lora.parent))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_lora_is_refused_by_file_and_tensor(teacher, lora, damage):
    name = change(lora, DAMAGES[damage][0])
    with pytest.raises(MissingWeights) as caught:
        student(teacher, lora)
    assert str(lora) in str(caught.value)
    layer = "ghost" if damage == "extra" else name.removeprefix("unet.").removesuffix(".weight")
    assert layer in str(caught.value)


def test_a_lora_for_the_text_encoder_as_well_is_refused(teacher, lora):
    tensors = load_file(lora) | {"text_encoder.layers.0.to_q.lora_A.weight": torch.ones(4, 4)}
    save_file(tensors, lora, {"format": "pt"})
    with pytest.raises(MissingWeights, match=r"does not know its text_encoder\.layers\.0\.to_q"):
        student(teacher, lora)


def test_a_lora_in_other_words_is_the_same_and_must_have_every_alpha(teacher, lora):
    """As kohya's trainer writes it, which is how the published LCM-LoRAs are named."""
    same, other = student(teacher, lora).fingerprint(), {}
    for name, value in load_file(lora).items():
        module, _, half = name.removeprefix("unet.").partition(".lora_")
        stem = f"lora_unet_{module.replace('.', '_')}"
        other[f"{stem}.lora_{'down' if half.startswith('A') else 'up'}.weight"] = value
        other[f"{stem}.alpha"] = torch.tensor(float(RANK))
    save_file(other, lora, {"format": "pt"})
    assert student(teacher, lora).fingerprint() == same
    dropped = next(name for name in other if name.endswith(".alpha"))
    save_file({n: v for n, v in other.items() if n != dropped}, lora, {"format": "pt"})
    with pytest.raises(MissingWeights, match="it has alphas of 27 of its 28 layers"):
        student(teacher, lora)


# ---------------------------------------------------------------- whole families

FAMILIES: dict[str, tuple[Callable[[Path], Any], Callable[..., Any]]] = {
    "ddpm": (real.save_ddpm, PixelDiffusion),
    "ldm": (real.save_ldm, UnconditionalLatentDiffusion),
    "sd15": (lambda folder: real.save_sd(folder, "sd15"), LatentDiffusion),
    "sdxl": (real.save_sdxl, StableDiffusionXL),
    "playground": (real.save_playground, EDMStableDiffusionXL),
    "dit": (
        lambda folder: small.save_dit(folder, small.DIT_XL_256, {0: "tench"}),
        DiT,
    ),
    "sd3": (
        lambda folder: small.save_sd3(folder, small.SD3_MEDIUM, t5=True),
        lambda path: TransformerFlow(path=path, t5=True),
    ),
    "flux": (
        lambda folder: small.save_flux(folder, small.FLUX_DEV, small.DEV_SCHEDULE),
        Flux,
    ),
    "vae": (toy.save_vae, toy_models.CLASSES["vae"]),
    "gan": (toy.save_gan, toy_models.CLASSES["gan"]),
    "diffae": (toy.save_diffae, toy_models.CLASSES["diffae"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_component_of_every_family_is_checked(family, tmp_path):
    save, make = FAMILIES[family]
    path = str(save(tmp_path))
    make(path=path)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert files
    for file in files:
        whole = file.read_bytes()
        for damage in DAMAGES:
            name = change(file, DAMAGES[damage][0])
            with pytest.raises(MissingWeights) as caught:
                make(path=path)
            assert str(file) in str(caught.value) or str(file.parent) in str(caught.value)
            assert ("ghost.weight" if damage == "extra" else name) in str(caught.value)
            file.write_bytes(whole)
