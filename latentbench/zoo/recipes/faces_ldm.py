"""``faces_ldm``: a text-conditional latent diffusion model on 64-pixel faces.

StableDiffusionPipeline's layout, trained in stages: the autoencoder; the text tower, regressing the
true factors from the caption; the U-Net with the text tower, on cached latents; the decoder again,
on the latents as they are. Both last stages then go on from their averaged weights, longer.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from latentbench import store
from latentbench.data import faces
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import caption_accuracy, reconstruction_figures, set_distance

NAME = "faces_ldm"
VERSION = 2
SIZE = 64
VAE_PLAN = training.Plan(
    name="faces_ldm_vae", steps=2300, batch=8, lr=2e-3, flat=0.0, decay="cosine", seed=21,
    ema=0.998, weight_decay=0.0, fresh=1_000_000,
)  # fmt: skip
DECODER_PLAN = training.Plan(
    name="faces_ldm_decoder", steps=1500, batch=8, lr=1.5e-3, flat=0.1, decay="cosine", seed=24,
    ema=0.998, weight_decay=0.0, fresh=1_500_000,
)  # fmt: skip
DECODER_LONG_PLAN = training.Plan(
    name="faces_ldm_decoder_long", steps=6000, batch=8, lr=1.5e-3, flat=0.1, decay="cosine",
    seed=25, ema=0.998, weight_decay=0.0, fresh=1_600_000,
)  # fmt: skip
TEXT_PLAN = training.Plan(
    name="faces_ldm_text", steps=700, batch=64, lr=3e-3, flat=0.3, decay="cosine", seed=22,
    ema=0.99, fresh=3_000_000,
)  # fmt: skip
PLAN = training.Plan(
    name=NAME, steps=2000, batch=32, lr=1e-3, flat=0.55, seed=23, ema=0.998, fresh=2_000_000
)
LONG_PLAN = training.Plan(
    name="faces_ldm_long", steps=3000, batch=32, lr=8e-4, flat=0.4, seed=26, fresh=2_000_000
)
LATENTS = 16_384
EMPTY_SHARE = 0.1
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
TOKENS = 32
WIDTH = 64
DETAILS = ("eyes", "brows", "nose", "mouth", "glasses")


# ---------------------------------------------------------------- autoencoder


def autoencoder(channels: Sequence[int] = (32, 32, 64), latent_channels: int = 4) -> AutoencoderKL:
    """Each block but the last halves the resolution; no attention in the middle."""
    return AutoencoderKL(
        block_out_channels=tuple(channels),
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        latent_channels=latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def detail_weight(factors: Float[Tensor, "b f"]) -> Float[Tensor, "b 1 h w"]:
    """4 where eyes, brows, nose, mouth or glasses are, 1 elsewhere."""
    masks = faces.part_masks(factors, SIZE)
    details = torch.stack([masks[name] for name in DETAILS]).any(0)
    return 1 + 3 * details.float()[:, None]


def _vae_loss(vae: AutoencoderKL, plan: training.Plan, device: torch.device) -> training.Loss:
    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        factors = training.batch_factors(plan, "generator", step, device)
        images, weight = faces.render(factors, SIZE), detail_weight(factors)
        with training.autocast(device):
            posterior = vae.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        error = decoded.float() - images
        kl = posterior.mean.float().square() + posterior.var.float() - posterior.logvar.float() - 1
        return (weight * (error.abs() + 2 * error.square())).mean() + 5e-5 * kl.mean()

    return loss


def _decoder_loss(vae: AutoencoderKL, plan: training.Plan, device: torch.device) -> training.Loss:
    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        factors = training.batch_factors(plan, "generator", step, device)
        images, weight = faces.render(factors, SIZE), detail_weight(factors)
        with training.autocast(device):
            with torch.no_grad():
                posterior = vae.encode(images).latent_dist
                noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
                latents = posterior.mean + posterior.std * noise
            error = vae.decode(latents).sample.float() - images
        return (weight * (error.abs() + 2 * error.square())).mean()

    return loss


def refine_decoder(
    vae: AutoencoderKL, plan: training.Plan, device: torch.device, root: Path
) -> float:
    """Train the decoder on, where it is, with the latents as they are; gives the seconds."""
    decoder = nn.ModuleList([vae.post_quant_conv, vae.decoder])
    return training.train(decoder, _decoder_loss(vae, plan, device), plan, root=root)


def train_autoencoder(
    vae: AutoencoderKL, plan: training.Plan, device: torch.device, root: Path
) -> float:
    """Train the autoencoder where it is, or go on training; gives the seconds."""
    seconds = training.train(vae, _vae_loss(vae, plan, device), plan, root=root)
    vae.eval()
    return seconds


# ---------------------------------------------------------------- text


def _merged(word: str, merges: Sequence[tuple[str, str]]) -> list[str]:
    """Pieces of a word under byte-pair merges, in the order of their rank."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        pairs = list(itertools.pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        at = pairs.index(best)
        pieces[at : at + 2] = ["".join(best)]
    return pieces


def byte_pairs(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A CLIP vocabulary and merges under which each word is one token.

    A word that the merges so far leave in pieces gets the missing merges at the lowest rank, which
    cannot disturb the words before it.
    """
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        while len(pieces := _merged(word, merges)) > 1:
            merges.append((pieces[0], pieces[1]))
            vocabulary.append(pieces[0] + pieces[1])
    tokens = [*dict.fromkeys(vocabulary), BEGIN, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Write vocab.json and merges.txt, and load the tokenizer from them."""
    vocabulary, merges = byte_pairs(faces.vocabulary())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, indent=0), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), unk_token=END,
        bos_token=BEGIN, eos_token=END, pad_token=END, model_max_length=TOKENS,
    )  # fmt: skip


def token_ids(tokens: CLIPTokenizer, captions: Sequence[str]) -> Int[Tensor, "b t"]:
    """Captions as padded ids of the full length."""
    return tokens(
        list(captions), padding="max_length", max_length=TOKENS, truncation=True,
        return_tensors="pt",
    ).input_ids  # fmt: skip


def text_tower() -> CLIPTextModel:
    """A two-layer CLIP text model."""
    vocabulary, _ = byte_pairs(faces.vocabulary())
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary), hidden_size=WIDTH, intermediate_size=4 * WIDTH,
            projection_dim=WIDTH, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=TOKENS, hidden_act="quick_gelu",
            bos_token_id=vocabulary[BEGIN], eos_token_id=vocabulary[END],
            pad_token_id=vocabulary[END],
        )
    )  # fmt: skip


class _Reader(nn.Module):
    """Text tower with a linear reading of the factors, used only while it is pretrained."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = text_tower()
        self.reading = nn.Linear(WIDTH, len(faces.FACTORS))

    def forward(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t f"]:
        return self.reading(self.tower(ids).last_hidden_state)


def _text_loss(
    reader: _Reader, plan: training.Plan, tokens: CLIPTokenizer, device: torch.device
) -> training.Loss:
    """Each word's state gives its factor; the states after the last word give all of them."""
    count = len(faces.FACTORS)

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        factors = training.batch_factors(plan, "generator", step, device)
        ids = token_ids(tokens, faces.caption(factors)).to(device)
        read, target = reader(ids), 2 * factors - 1
        words = read[:, 1 : count + 1].diagonal(dim1=1, dim2=2)
        summary = read[:, count + 1 :] - target[:, None]
        return (words - target).square().mean() + summary.square().mean()

    return loss


def train_text(
    plan: training.Plan, device: torch.device, root: Path, tokens: CLIPTokenizer
) -> tuple[CLIPTextModel, float]:
    """Pretrain the text tower on the true factors; gives it and the seconds spent."""
    torch.manual_seed(plan.seed)
    reader = _Reader().to(device)
    seconds = training.train(reader, _text_loss(reader, plan, tokens, device), plan, root=root)
    return reader.tower.eval(), seconds


# ---------------------------------------------------------------- latent diffusion


def network(
    channels: tuple[int, int] = (64, 128), side: int = 16, latent_channels: int = 4
) -> UNet2DConditionModel:
    """U-Net with cross-attention at the latents' size, at half of it and in the middle."""
    return UNet2DConditionModel(
        sample_size=side, in_channels=latent_channels, out_channels=latent_channels,
        layers_per_block=1, block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=2, norm_num_groups=16,
    )  # fmt: skip


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's betas with v-prediction.

    As there, ``set_alpha_to_one=False`` and ``steps_offset=1``: the last step ends at timestep 0,
    not at the clean image, so that 50 steps are at 981, 961, ..., 1.
    """
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012,
        beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        prediction_type="v_prediction",
    )  # fmt: skip


@torch.no_grad()
def encode_faces(
    vae: AutoencoderKL, factors: Float[Tensor, "n f"], batch: int = 64
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n 1 h w"]]:
    """Unscaled latent means, and the detail weights at their resolution."""
    latents, weights = [], []
    for part in factors.split(batch):
        with training.autocast(part.device):
            mean = vae.encode(faces.render(part, SIZE)).latent_dist.mean
        latents.append(mean.float())
        weights.append(F.avg_pool2d(detail_weight(part), SIZE // mean.shape[-1]))
    return torch.cat(latents), torch.cat(weights)


def cached_latents(
    vae: AutoencoderKL, plan: training.Plan, device: torch.device, root: Path, count: int
) -> dict[str, Tensor]:
    """Latents, detail weights and factors of the training faces; made once, then read."""
    path = root / plan.name / f"latents_{count}.safetensors"
    if not path.is_file():
        indices = torch.arange(plan.fresh, plan.fresh + count, device=device)
        factors = faces.sample_factors("generator", indices)
        latents, weights = encode_faces(vae, factors)
        made = {"latents": latents, "weights": weights, "factors": factors}
        made = {key: value.cpu().contiguous() for key, value in made.items()}
        store.write(path, safetensors.torch.save(made))
    return {k: v.to(device) for k, v in safetensors.torch.load_file(path).items()}


class TextAndUNet(nn.Module):
    """The two networks that are trained together."""

    def __init__(self, text: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text, self.unet = text, unet

    def forward(
        self, x: Float[Tensor, "b c h w"], t: Int[Tensor, " b"], ids: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b c h w"]:
        """The U-Net's output under embedded captions."""
        return self.unet(x, t, self.text(ids).last_hidden_state).sample


def _ldm_loss(
    both: TextAndUNet,
    plan: training.Plan,
    data: dict[str, Tensor],
    captions: Sequence[str],
    tokens: CLIPTokenizer,
) -> training.Loss:
    noising, device = scheduler(), data["latents"].device
    scaled = data["latents"] / data["latents"].std()
    ids = token_ids(tokens, captions).to(device)
    empty = token_ids(tokens, [""]).to(device)

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        rows = torch.randint(len(scaled), (plan.batch,), generator=generator).to(device)
        t = (training.stratified_uniforms(plan.batch, generator) * 1000).long().to(device)
        noise = torch.randn(scaled[rows].shape, generator=generator).to(device)
        dropped = (torch.rand(plan.batch, 1, generator=generator) < EMPTY_SHARE).to(device)
        noisy = noising.add_noise(scaled[rows], noise, t)
        with training.autocast(device):
            predicted = both(noisy, t, torch.where(dropped, empty, ids[rows]))
        error = predicted.float() - noising.get_velocity(scaled[rows], noise, t)
        return (data["weights"][rows] * error.square()).mean()

    return loss


def train_diffusion(
    plan: training.Plan,
    both: TextAndUNet,
    data: dict[str, Tensor],
    captions: Sequence[str],
    tokens: CLIPTokenizer,
    root: Path,
) -> tuple[TextAndUNet, float]:
    """Train the U-Net with the text tower on cached latents, or go on training.

    Args:
        plan: How.
        both: The networks.
        data: ``latents``, and the ``weights`` of their places in the loss.
        captions: One of each row.
        tokens: The tokenizer.
        root: Folder of the checkpoints.
    """
    both = both.to(data["latents"].device)
    loss = _ldm_loss(both, plan, data, captions, tokens)
    seconds = training.train(both, loss, plan, root=root)
    return both.eval(), seconds


def save(
    folder: Path,
    vae: AutoencoderKL,
    both: TextAndUNet,
    tokens: CLIPTokenizer,
    scaling_factor: float,
) -> None:
    """Write the pipeline's folder: float16 on disk, float32 once loaded."""
    vae.register_to_config(scaling_factor=scaling_factor)
    StableDiffusionPipeline(
        vae=vae.half(), text_encoder=both.text.half(), tokenizer=tokens, unet=both.unet.half(),
        scheduler=scheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)  # fmt: skip
    load_as_float32(folder / "text_encoder" / "config.json")
    for part in ("unet", "vae"):
        _forget_origin(folder / part / "config.json")


def _forget_origin(config: Path) -> None:
    """Take out of a config which folder its network was read from before it was trained on."""
    fields = json.loads(config.read_text(encoding="utf-8"))
    fields.pop("_name_or_path", None)
    config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_as_float32(config: Path) -> None:
    """Let a text tower saved in float16 be float32 once loaded, as diffusers' networks are."""
    fields = json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"}
    config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def make(
    folder: Path, device: torch.device, root: Path, share: float = 1.0, *, count: int = LATENTS
) -> dict[str, object]:
    """Train all networks (or go on training) and write the pipeline's folder.

    Args:
        folder: Where the pipeline goes.
        device: Where to train.
        root: Folder of the checkpoints.
        share: Factor on the steps of every plan.
        count: Number of faces whose latents are cached.

    Returns:
        The facts of each training run, for the card.
    """
    stages = (VAE_PLAN, TEXT_PLAN, PLAN, DECODER_PLAN, LONG_PLAN, DECODER_LONG_PLAN)
    plans = [training.shortened(plan, share) for plan in stages]
    tokens = tokenizer(root / NAME / "tokenizer")
    torch.manual_seed(plans[0].seed)
    vae = autoencoder().to(device)
    vae_seconds = train_autoencoder(vae, plans[0], device, root)
    text, text_seconds = train_text(plans[1], device, root, tokens)
    data = cached_latents(vae, plans[2], device, root, count)
    torch.manual_seed(plans[2].seed)
    both = TextAndUNet(text, training.plain_attention(network()))
    captions = faces.caption(data["factors"])
    both, seconds = train_diffusion(plans[2], both, data, captions, tokens, root)
    decoder_seconds = refine_decoder(vae, plans[3], device, root)
    both = both.half().float()
    both, long_seconds = train_diffusion(plans[4], both, data, captions, tokens, root)
    decoder_long_seconds = refine_decoder(vae.half().float(), plans[5], device, root)
    save(folder, vae, both, tokens, 1 / float(data["latents"].std()))
    return {
        "vae": training.facts(plans[0], "generator", vae_seconds),
        "text_pretraining": training.facts(plans[1], "generator", text_seconds),
        "decoder": training.facts(plans[3], "generator", decoder_seconds),
        "unet_and_text": training.facts(plans[2], "generator", seconds, count),
        "unet_and_text_long": training.facts(plans[4], "generator", long_seconds, count),
        "decoder_long": training.facts(plans[5], "generator", decoder_long_seconds),
    }


@torch.no_grad()
def sample(
    folder: Path,
    captions: Sequence[str],
    device: torch.device,
    *,
    guidance: float = 1.0,
    steps: int = 50,
    seed: int = 0,
    batch: int = 32,
) -> Float[Tensor, "n 3 64 64"]:
    """Deterministic DDIM samples of the saved pipeline, in [-1, 1]; guidance 1 is none."""
    pipeline = load(folder).to(device)
    generator = torch.Generator().manual_seed(seed)
    shape = (pipeline.unet.config.in_channels, *[pipeline.unet.config.sample_size] * 2)
    noise = torch.randn(len(captions), *shape, generator=generator).to(device)
    out = []
    for first in range(0, len(captions), batch):
        rows = slice(first, first + batch)
        with training.autocast(device):
            images = pipeline(
                list(captions[rows]), latents=noise[rows], num_inference_steps=steps,
                guidance_scale=guidance, output_type="pt",
            ).images  # fmt: skip
        out.append(images.float() * 2 - 1)
    return torch.cat(out)


def load(folder: Path) -> StableDiffusionPipeline:
    """The saved pipeline, without network access."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, local_files_only=True, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def reconstruct(
    vae: AutoencoderKL, images: Float[Tensor, "n 3 64 64"], batch: int = 32
) -> Float[Tensor, "n 3 64 64"]:
    """Encode to the mean, decode, clamp."""
    parts = [vae.decode(vae.encode(part).latent_dist.mean).sample for part in images.split(batch)]
    return torch.cat(parts).clamp(-1, 1)


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Autoencoder; set distances and obedience to captions at guidance 1 (none), 3 and 5."""
    vae = load(folder).vae.to(device)
    originals = faces.render(faces.sample_factors("test", torch.arange(256)))
    decoded = reconstruct(vae, originals.to(device)).cpu()
    factors = faces.sample_factors("test", torch.arange(200_000, 200_000 + n))
    captions, real = faces.caption(factors), faces.render(factors)
    figures = {
        "autoencoder": reconstruction_figures(originals, decoded, judges) | {"n": 256},
        "sampler": "DDIM, 50 steps, eta 0, bfloat16 autocast",
        "real": {"caption_accuracy": _obedience(judges, real, captions), "n": n},
    }
    for guidance in (1.0, 3.0, 5.0):
        images = sample(folder, captions, device, guidance=guidance).cpu()
        figures[f"guidance_{guidance:g}"] = {
            "sets": [set_distance(judge, images, SIZE) for judge in judges],
            "caption_accuracy": _obedience(judges, images, captions),
        }
    return figures


def _obedience(
    judges: Sequence[Judge], images: Float[Tensor, "n 3 64 64"], captions: Sequence[str]
) -> dict[str, dict[str, float]]:
    return {judge.name: caption_accuracy(judge, images, captions) for judge in judges}
