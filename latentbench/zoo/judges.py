"""Judge networks: what reads faces for the metrics. No method ever sees its judge.

``zoo1`` is a supervised convolutional network; ``zoo2`` is of another family (depthwise
convolutions and layer norm), has another seed and other faces, and its Frechet and perceptual
features come from a trunk trained without labels.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latentbench import weights
from latentbench.data.faces import FACTOR_NAMES, FACTORS
from latentbench.errors import BadInput, unknown

INPUT_SIZE = 64
FEATURES = 128
EMBEDDING = 96
Maps = list[Float[Tensor, "b _ _ _"]]


def to_input_size(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 64 64"]:
    """Resize square RGB images to 64 px, bilinearly; other shapes are refused."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise BadInput(
            f"a judge takes square RGB images of shape (batch, 3, size, size) in [-1, 1], "
            f"got {tuple(images.shape)}"
        )
    if images.shape[-1] == INPUT_SIZE:
        return images.float()
    return F.interpolate(
        images.float(), size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True
    )


class Judge(nn.Module):
    """Reads square RGB images in [-1, 1]; sizes other than 64 are bilinearly resized to 64.

    Attributes:
        name: Identifier that metric columns carry (``fd_zoo1``).
        layer_weights: Non-negative weight of each pyramid level in ``distance``.
    """

    layer_weights: Tensor

    def __init__(self, name: str, levels: int) -> None:
        super().__init__()
        self.name = name
        self.register_buffer("layer_weights", torch.full((levels,), 1 / levels))

    def read(self, images: Float[Tensor, "b 3 64 64"]) -> tuple[Tensor, Tensor]:
        """Factors and unnormalised identity embedding, before clamping: what training sees."""
        raise NotImplementedError

    def trunk(self, images: Float[Tensor, "b 3 64 64"]) -> tuple[Maps, Float[Tensor, "b d"]]:
        """Feature maps, and features of the whole image."""
        raise NotImplementedError

    def features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """128 features, for Frechet and kernel distances."""
        return self.trunk(to_input_size(images))[1]

    def factors(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Estimated factors in their own units, clamped to [0, 1], in the order of ``FACTORS``."""
        return self.read(to_input_size(images))[0].clamp(0, 1)

    def identity(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Identity embedding of unit length: same person, other attributes, high cosine."""
        return F.normalize(self.read(to_input_size(images))[1], dim=1)

    def pyramid(self, images: Float[Tensor, "b 3 h w"]) -> Maps:
        """Feature maps from fine to coarse."""
        return self.trunk(to_input_size(images))[0]

    def level_distances(
        self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b l"]:
        """Mean squared difference of unit-normalised features, per pyramid level."""
        pairs = zip(self.pyramid(a), self.pyramid(b), strict=True)
        return torch.stack(
            [(_unit(x) - _unit(y)).square().sum(1).mean((1, 2)) for x, y in pairs], 1
        )

    def distance(
        self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Learned perceptual distance of image pairs: 0 for equal images, larger is further."""
        return self.level_distances(a, b) @ self.layer_weights


def _unit(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return maps / (maps.square().sum(1, keepdim=True) + 1e-6).sqrt()


# ---------------------------------------------------------------- zoo1


class _Residual(nn.Module):
    """Halves the resolution, then one residual convolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(before, after, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.same = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.same_norm = nn.BatchNorm2d(after)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        x = F.relu(self.norm(self.down(x)))
        return F.relu(x + self.same_norm(self.same(x)))


class ConvolutionalJudge(Judge):
    """``zoo1``: one supervised residual trunk for everything."""

    def __init__(self, name: str = "zoo1", channels: Sequence[int] = (32, 64, 96, 128)) -> None:
        super().__init__(name, len(channels))
        self.blocks = nn.ModuleList(
            _Residual(before, after)
            for before, after in zip((3, *channels), channels, strict=False)
        )
        flat = channels[-1] * 16
        self.penultimate = nn.Linear(flat, FEATURES)
        self.factor_head = nn.Linear(FEATURES, len(FACTORS))
        self.identity_head = nn.Linear(flat, EMBEDDING)

    def _maps(self, images: Float[Tensor, "b 3 64 64"]) -> Maps:
        maps, x = [], images
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def trunk(self, images: Float[Tensor, "b 3 64 64"]) -> tuple[Maps, Float[Tensor, "b d"]]:
        """Maps of each block, and the penultimate layer."""
        maps = self._maps(images)
        return maps, self.penultimate(maps[-1].flatten(1))

    def read(self, images: Float[Tensor, "b 3 64 64"]) -> tuple[Tensor, Tensor]:
        """Factors and identity from the last block."""
        flat = self._maps(images)[-1].flatten(1)
        return self.factor_head(F.relu(self.penultimate(flat))), self.identity_head(flat)


# ---------------------------------------------------------------- zoo2


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over channels of a [b, c, h, w] map."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Mixer(nn.Module):
    """ConvNeXt block: depthwise 5x5, layer norm, two pointwise layers, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.wide = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.narrow(F.gelu(self.wide(y))).permute(0, 3, 1, 2)


class MixerTrunk(nn.Module):
    """Patches of 4x4 pixels, then stages that halve the resolution."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        first = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.GELU(), nn.Conv2d(32, channels[0], 3, 2, 1)
        )
        downs = [nn.Conv2d(before, after, 2, 2) for before, after in itertools.pairwise(channels)]
        self.stages = nn.ModuleList(
            nn.Sequential(down, _ChannelNorm(width), _Mixer(width), _Mixer(width))
            for down, width in zip([first, *downs], channels, strict=True)
        )

    def forward(self, x: Float[Tensor, "b 3 64 64"]) -> Maps:
        """Return the output of every stage."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class MixerJudge(Judge):
    """``zoo2``: a supervised trunk for factors and identity, a label-free one for features.

    ``penultimate`` is what the label-free loss sees; ``features`` reads the earlier stages.
    """

    feature_mean: Tensor
    feature_spread: Tensor

    def __init__(
        self,
        name: str = "zoo2",
        channels: Sequence[int] = (48, 96, 128),
        free_channels: Sequence[int] = (48, 80, 128),
    ) -> None:
        super().__init__(name, len(free_channels))
        self.supervised = MixerTrunk(channels)
        flat = channels[-1] * 16
        self.factor_head = nn.Sequential(
            nn.Linear(flat, 128), nn.GELU(), nn.Linear(128, len(FACTORS))
        )
        self.identity_head = nn.Linear(flat, EMBEDDING)
        self.free = MixerTrunk(free_channels)
        self.penultimate = nn.Linear(free_channels[-1] * 16, FEATURES)
        self.register_buffer("feature_mean", torch.zeros(sum(free_channels[:2])))
        self.register_buffer("feature_spread", torch.ones(sum(free_channels[:2])))

    @staticmethod
    def pooled(maps: Maps) -> Float[Tensor, "b d"]:
        """Spatial means of the first two stages: they feel blur and noise, the last hardly does."""
        return torch.cat([stage.mean((2, 3)) for stage in maps[:2]], 1)

    def trunk(self, images: Float[Tensor, "b 3 64 64"]) -> tuple[Maps, Float[Tensor, "b d"]]:
        """Maps of the label-free trunk, and their standardised means."""
        maps = self.free(images)
        return maps, (self.pooled(maps) - self.feature_mean) / self.feature_spread

    def read(self, images: Float[Tensor, "b 3 64 64"]) -> tuple[Tensor, Tensor]:
        """Factors and identity from the supervised trunk."""
        flat = self.supervised(images)[-1].flatten(1)
        return self.factor_head(flat), self.identity_head(flat)


# ---------------------------------------------------------------- loading

ARCHITECTURES: dict[str, Callable[..., Judge]] = {
    "ConvolutionalJudge": ConvolutionalJudge,
    "MixerJudge": MixerJudge,
}
JudgeName = Literal["zoo1", "zoo2"]
JUDGES: tuple[str, ...] = get_args(JudgeName)


def load_judge(name: str, device: str | torch.device = "cpu") -> Judge:
    """Load a judge after checking its hash.

    Args:
        name: ``"zoo1"`` or ``"zoo2"``.
        device: Where to put it.

    Returns:
        The judge in evaluation mode, float32, without gradients on its weights.

    Raises:
        BadInput: Unknown name.
        MissingWeights: A file is absent or differs from its card.

    Example:
        >>> load_judge("zoo1").factors(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 20])
    """
    if name not in JUDGES:
        raise unknown("judge", name, JUDGES)
    weights.verify(name)
    folder = weights.folder(name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    judge = ARCHITECTURES[config.pop("architecture")](**config)
    state = safetensors.torch.load_file(folder / "model.safetensors")
    judge.load_state_dict(state)
    return judge.float().eval().requires_grad_(False).to(device)


def reliability(name: str) -> Float[Tensor, " f"]:
    """Share of each factor's variance that a judge explains on rendered faces it never saw.

    R2 at 64 px, from the judge's card, in [0, 1]. It is low for factors that are hard to see (brow,
    nose): a mean over factors weighted by it gives less room to what the judge cannot read.

    Args:
        name: One of ``JUDGES``.

    Returns:
        One value per factor, in the order of ``FACTORS``.

    Raises:
        BadInput: Unknown name.

    Example:
        >>> reliability("zoo1")[FACTOR_NAMES.index("glasses")] > 0.9
        tensor(True)
    """
    if name not in JUDGES:
        raise unknown("judge", name, JUDGES)
    explained = weights.card(name)["measured"]["r2_64px"]
    return torch.tensor([explained[factor] for factor in FACTOR_NAMES]).clamp(0, 1)
