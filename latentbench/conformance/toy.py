"""The toy zoo: tiny seeded pipelines on disk, an exact denoiser, a data set with planted labels.

Nothing here is trained. The U-Nets show that the code computes what it says; the exact denoiser
shows effects that need a model which is right.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet2DModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.data.dataset import Dataset
from latentbench.errors import unknown
from latentbench.model import Condition, Evaluations
from latentbench.models.causal_diffusion import CausalEncoder
from latentbench.models.classifier import Classifier
from latentbench.models.denoiser import Denoiser
from latentbench.models.diffusion_autoencoder import CodePrior, SemanticEncoder
from latentbench.models.gan import MappingNetwork, StyleEncoder, StyleSynthesis
from latentbench.models.info_diffusion import GaussianEncoder
from latentbench.models.scorer import Scorer
from latentbench.models.soda import SegmentedEncoder, modulations, own_segment
from latentbench.models.vae import VectorAutoencoder
from latentbench.parameterization import Grid, variance_preserving_grid
from latentbench.sampling.loop import Recorder
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Latent, Samples, Space

FACTORS = ("glasses", "hat", "smile")
WORDS = ("a", "face", "with", *FACTORS)
SIZE = 16  # pixels
TOKENS = 12  # length of a prompt's embedding


# ---------------------------------------------------------------- pipelines on disk


def save_pixel(folder: Path, kind: str = "epsilon", attention: bool = True) -> str:
    """Write a 16 px pixel model in the layout of DDPMPipeline and return its folder."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=SIZE,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D" if attention else "DownBlock2D"),
        up_block_types=("AttnUpBlock2D" if attention else "UpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        add_attention=attention,
    )
    # a mild schedule: an untrained eps-network would else blow x_T up by 1 / alpha_T = 157
    schedule = DDIMScheduler(beta_end=0.004, clip_sample=False, prediction_type=kind)
    return _save(folder, unet=unet, scheduler=schedule)


def save_latent(folder: Path, kind: str = "epsilon") -> str:
    """Write a text-conditional latent model in the layout of StableDiffusionPipeline."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(folder)
    end = tokenizer.eos_token_id
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    for name, weight in unet.named_parameters():
        if "attn2" in name:  # an untrained network hardly listens to its prompt
            weight.data.mul_(3)
    schedule = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=kind,
    )
    parts = {"vae": vae, "text_encoder": text, "tokenizer": tokenizer}
    return _save(folder, unet=unet, scheduler=schedule, **parts)


def save_vae(folder: Path) -> str:
    """Write a VAE with 16 numbers per 16 px image."""
    torch.manual_seed(0)
    return _save(folder, vae=VectorAutoencoder(image_size=SIZE, channels=(8, 16), code=16))


def save_gan(folder: Path) -> str:
    """Write a style-based generator of 16 px images with its encoder."""
    torch.manual_seed(0)
    return _save(
        folder,
        mapping=MappingNetwork(code=16, width=16, depth=2),
        synthesis=StyleSynthesis(channels=(16, 8, 8), code=16),
        encoder=StyleEncoder(image_size=SIZE, channels=(8, 16), code=16),
    )


def _told_unet(**settings: Any) -> dict[str, Any]:
    unet = UNet2DModel(
        sample_size=SIZE,
        out_channels=3,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        **settings,
    )
    schedule = DDIMScheduler(beta_end=0.004, clip_sample=False, prediction_type="v_prediction")
    return {"unet": unet, "scheduler": schedule}


def save_diffae(folder: Path) -> str:
    """Write a diffusion autoencoder with 16 numbers per 16 px image."""
    torch.manual_seed(0)
    semantic = _open_path(SemanticEncoder(image_size=SIZE, channels=(8, 16), code=16, embedding=64))
    parts = _told_unet(in_channels=3, class_embed_type="identity")
    prior = CodePrior(code=16, width=32, depth=2)
    return _save(folder, semantic_encoder=semantic, code_prior=prior, **parts)


def _open_path(semantic: Any) -> Any:
    """Fill what starts at zero: an untrained path gives none."""
    for weight in semantic.projection.parameters():
        torch.nn.init.normal_(weight)
    return semantic


def save_infodiffusion(folder: Path) -> str:
    """Write a diffusion autoencoder without a code prior, 16 numbers per 16 px image."""
    torch.manual_seed(0)
    semantic = _open_path(GaussianEncoder(SIZE, (8, 16), code=16, embedding=64))
    return _save(
        folder,
        semantic_encoder=semantic,
        **_told_unet(in_channels=3, class_embed_type="identity"),
    )


def save_causal(folder: Path) -> str:
    """Write a causal diffusion autoencoder with a chain of three factors, four numbers each."""
    torch.manual_seed(0)
    edges = (("glasses", "hat"), ("hat", "smile"))
    semantic = _open_path(CausalEncoder(SIZE, (8, 16), FACTORS, edges, block=4, embedding=64))
    for equation in semantic.equations.values():
        torch.nn.init.normal_(equation[-1].weight)
    return _save(
        folder,
        semantic_encoder=semantic,
        **_told_unet(in_channels=3, class_embed_type="identity"),
    )


def save_soda(folder: Path) -> str:
    """Write a diffusion autoencoder whose layers read segments of two numbers, 16 in all."""
    torch.manual_seed(0)
    semantic = SegmentedEncoder(SIZE, (8, 16), layers=8, segment=2, time=64, embedding=96)
    parts = _told_unet(in_channels=3, class_embed_type="identity", time_embedding_dim=96)
    for number, (_, layer) in enumerate(modulations(parts["unet"])):
        layer.weight.data.mul_(own_segment(layer, number, semantic.time, semantic.segment))
    return _save(folder, semantic_encoder=semantic, **parts)


def save_diffusevae(folder: Path) -> str:
    """Write a denoiser that is shown a VAE's decoding of 16 px images."""
    torch.manual_seed(0)
    return _save(folder, **_told_unet(in_channels=6))


def _save(folder: Path, **parts: Any) -> str:
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return str(folder)


def word_tokenizer(folder: Path) -> CLIPTokenizer:
    """Return a CLIP tokenizer whose words are one token each."""
    folder.mkdir(parents=True, exist_ok=True)
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            if (pieces[0], pieces[1]) not in merges:
                merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    letters = [c + tail for c in sorted(set("".join(WORDS))) for tail in ("", "</w>")]
    names = [*letters, *("".join(m) for m in merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: k for k, name in enumerate(dict.fromkeys(names))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    rules = "\n".join(" ".join(m) for m in merges)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{rules}")
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    return CLIPTokenizer(*files, model_max_length=TOKENS)


# ---------------------------------------------------------------- an exact denoiser


class GaussianModel(Denoiser):
    """Images x_0 ~ N(mu_c, S) with a smooth covariance S: eps(x_t, t, c) in closed form.

    x_t ~ N(alpha mu, alpha^2 S + sigma^2 I), so E[eps | x_t] = sigma (alpha^2 S + sigma^2)^-1
    (x_t - alpha mu), and the deterministic sampler has the exact solution `transport`.
    A prompt shifts the mean by the patterns of its words.

    Args:
        kind: what `forward` returns.
        steps: default number of sampling steps.
        spread: standard deviation of the data, roughly.
    """

    spaces = frozenset({Space.NOISE, Space.NOISE_MAPS, Space.TEXT})
    gives = frozenset({Capability.PROMPTS})
    image_size = 8
    latent_shape = (3, 8, 8)
    guidance = 1.0
    network = None

    def __init__(self, kind: str = "epsilon", steps: int = 50, spread: float = 0.2) -> None:
        self.prediction_type, self.steps, self.spread = kind, steps, spread
        self.device, self.evaluations = torch.device("cpu"), Evaluations()
        self.schedule = DDIMScheduler(clip_sample=False)
        place = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).double()
        covariance = spread**2 * (-torch.cdist(place, place) / 3).exp()
        self.values, self.basis = torch.linalg.eigh(covariance)

    def grid(self, steps: int | None = None) -> Grid:
        """Return the levels of DDIM on the linear schedule."""
        self.schedule.set_timesteps(steps or self.steps)
        timesteps = self.schedule.timesteps.tolist()
        return variance_preserving_grid(self.schedule.alphas_cumprod, timesteps, 1.0)

    def condition(self, prompts: Sequence[str] | None, rows: int) -> Condition:
        """Return the mean image of each prompt; zero for none."""
        texts = [""] * rows if prompts is None else list(prompts)
        return Condition({"mean": torch.stack([self.mean(text) for text in texts])})

    def mean(self, prompt: str) -> Tensor:
        """Return mu of a prompt: the sum of its factors' patterns."""
        words = [w for w in FACTORS if w in prompt.split()]
        patterns = [pattern(w, self.image_size) for w in words]
        return sum(patterns, torch.zeros(self.latent_shape))

    def forward(self, x, timesteps, condition, taps=None):
        """Return the exact prediction of the chosen kind."""
        self.evaluations.forward += len(x)
        a = self.schedule.alphas_cumprod.double()[timesteps].reshape(-1, 1, 1, 1)
        alpha, sigma = a.sqrt(), (1 - a).sqrt()
        gap = x.double() - alpha * condition.tensors["mean"].double()
        eps = sigma * self._scale(gap, 1 / (a.flatten(1) * self.values + (1 - a.flatten(1))))
        x0 = (x.double() - sigma * eps) / alpha
        out = {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0,
               "flow": eps - x0}  # fmt: skip
        return out[self.prediction_type].to(x.dtype)

    def _scale(self, x: Tensor, factors: Tensor) -> Tensor:
        """Return x with its coordinates in the eigenbasis scaled, ``factors [b, 64]``."""
        coordinates = x.flatten(2) @ self.basis * factors[:, None]
        return (coordinates @ self.basis.T).reshape(x.shape)

    def transport(self, x: Tensor, grid: Grid, prompt: str = "") -> Tensor:
        """Return what infinitely many deterministic steps make of x at the grid's first level."""
        alpha, sigma = grid.alpha[0], grid.sigma[0]
        factors = (self.values / (alpha**2 * self.values + sigma**2)).sqrt()[None]
        mean = self.mean(prompt).double()
        return (mean + self._scale(x.double() - alpha * mean, factors)).to(x.dtype)

    def draw(self, prompts: Sequence[str], seed: int = 0) -> Tensor:
        """Return exact samples, one per prompt."""
        shape = (len(prompts), *self.latent_shape)
        z = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        means = torch.stack([self.mean(p) for p in prompts])
        return means + self._scale(z, self.values.sqrt()[None]).float()

    def encode(self, images: Tensor) -> Tensor:
        """Return the images: pixels are the latent."""
        return images

    def decode(self, latent: Tensor) -> Tensor:
        """Return the latent: pixels are the image."""
        return latent

    def attention_layers(self) -> tuple[str, ...]:
        """Return nothing: there is no network."""
        return ()

    def fingerprint(self) -> str:
        """Return the settings."""
        return f"gaussian-{self.prediction_type}-{self.steps}-{self.spread}"


def pattern(factor: str, size: int) -> Tensor:
    """Return the planted image ``[3, size, size]`` of a factor: stripes, patterns orthogonal."""
    k = FACTORS.index(factor)
    wave = (torch.arange(size) * (k + 1) * torch.pi * 2 / size).sin() * 0.25
    plane = wave[None, :] if k % 2 else wave[:, None]
    return plane.expand(3, size, size).clone()


def sampled(model: Denoiser, batch: Batch, steps: int | None = None) -> Batch:
    """Return samples of the model under the batch's ids and captions, with the sampler's way.

    Args:
        model: a denoiser.
        batch: of which names and captions are taken.
        steps: sampling steps; default: the model's.
    """
    prompts = batch.prompts if Capability.PROMPTS in model.gives else None
    told, recorder = Latent(model.prior(Streams(0), batch.ids).parts, prompts=prompts), Recorder()
    images = model.sample(told, guidance=1.0, steps=steps, interventions=[recorder]).clamp(-1, 1)
    return Batch(batch.ids, images, prompts, trajectory=recorder.trajectory)


# ---------------------------------------------------------------- data with planted labels


class ToyData(Dataset):
    """Images that are their factors: sum of (factor - 1/2) x pattern, and a little noise.

    Args:
        size: pixels.
        noise: standard deviation of what no factor explains.
    """

    gives = frozenset({Capability.LABELS, Capability.PROMPTS, Capability.COUNTERFACTUALS})
    factor_names = FACTORS
    attributes = FACTORS

    def __init__(self, size: int = SIZE, noise: float = 0.02) -> None:
        self.image_size, self.noise = size, noise

    def size(self, split: str) -> int:
        """Return how many images a split holds."""
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        return 256

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return images, captions and factors."""
        self.size(split)
        ids = tuple(f"{split}/{k}" for k in indices)
        streams = Streams(0)
        factors = torch.stack(
            [torch.rand(len(FACTORS), generator=streams.generator("factors", i)) for i in ids]
        )
        return Batch(ids, self.drawn(ids, factors), self.captions(factors), factors)

    def render(self, factors: Tensor) -> Tensor:
        """Return images of factors."""
        return self.drawn(["drawn"] * len(factors), factors)

    def drawn(self, ids: Sequence[str], factors: Tensor) -> Tensor:
        """Return the images of factors; the noise belongs to the id."""
        patterns = torch.stack([pattern(name, self.image_size) for name in FACTORS])
        shape = (3, self.image_size, self.image_size)
        noise = self.noise * Streams(0).normal("pixels", ids, shape)
        return (torch.einsum("bf,fchw->bchw", 2 * factors - 1, patterns) + noise).clamp(-1, 1)

    def captions(self, factors: Tensor) -> tuple[str, ...]:
        """Return the words of all factors above one half."""
        words = [[n for n, v in zip(FACTORS, row, strict=True) if v > 0.5] for row in factors]
        return tuple(" ".join(["a face", *(["with", *w] if w else [])]) for w in words)

    def counterfactual(
        self, split: str, indices: Sequence[int], factor: str, values: Tensor
    ) -> Tensor:
        """Return the images with one factor set."""
        batch = self.batch(split, indices)
        return self.drawn(batch.ids, self._set(batch, factor, values))

    def edited_prompts(
        self, split: str, indices: Sequence[int], factor: str, values: Tensor
    ) -> tuple[str, ...]:
        """Return the captions with one factor set."""
        return self.captions(self._set(self.batch(split, indices), factor, values))

    def _set(self, batch: Batch, factor: str, values: Tensor) -> Tensor:
        assert batch.factors is not None
        factors = batch.factors.clone()
        factors[:, FACTORS.index(factor)] = values
        return factors


class PatternScorer(Scorer):
    """Reads the planted patterns in images, and their words in captions."""

    def __init__(self) -> None:
        super().__init__("patterns", "cpu")

    def fingerprint(self) -> str:
        """Return its name: it has no weights."""
        return "patterns"

    def read_image(self, images: Tensor) -> Tensor:
        """Return how much of each factor's pattern is in each image."""
        planted = torch.stack([pattern(name, images.shape[-1]) for name in FACTORS])
        return (images[:, None] * planted).sum((2, 3, 4))  # row by row

    def read_text(self, captions: Sequence[str]) -> Tensor:
        """Return 1 for each factor that a caption names."""
        return torch.tensor([[float(w in c.split()) for w in FACTORS] for c in captions])


class PatternClassifier(Classifier):
    """Says how much of each planted pattern an image shows."""

    labels = FACTORS

    def __init__(self) -> None:
        super().__init__("patterns", "cpu")

    def fingerprint(self) -> str:
        """Return its name: it has no weights."""
        return "patterns"

    def read(self, images: Tensor) -> Tensor:
        """Return how much of each factor's pattern is in each image."""
        planted = torch.stack([pattern(name, images.shape[-1]) for name in FACTORS])
        return (images[:, None] * planted).sum((2, 3, 4))  # row by row


# ---------------------------------------------------------------- a benchmark that only asks


class Asks(Benchmark):
    """A protocol that calls one verb and is never run: for questions of what goes together."""

    question = "Would it run?"
    main_score = "none"

    def __init__(self, *, verb: str, gives: Iterable[Capability] = tuple(Capability)) -> None:
        named = {Capability.SECOND_MODEL, Capability.SCORER, Capability.CLASSIFIER}
        data = {Capability.LABELS, Capability.PROMPTS, Capability.COUNTERFACTUALS}
        model = {Capability.WORDS, Capability.CLASSES}
        self.verbs, self.gives = frozenset({verb}), frozenset(gives) - named - data - model

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Refuse."""
        raise NotImplementedError("never run")
