"""Judge networks: what reads faces for the metrics. No method ever sees its judge.

Three families, each with its own seed and its own faces. ``zoo1`` is a supervised convolutional
network. ``zoo2`` has depthwise convolutions and layer norm, and its Frechet and perceptual features
come from a trunk trained without labels. ``zoo3`` is patches that attend to each other, and its
features are fixed wavelets. What reads factors and identity was trained on degraded images too, no
feature was. How far their errors are the same is measured, and on their cards: they were trained on
one kind of picture, so they are not independent.
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
WAVELET_FEATURES = 3 * 9 * 16 + 3 * 64  # of zoo3
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

    def style(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Mean and spread over the image of each unit-normalised feature, whatever its place."""
        maps = [_unit(level).flatten(2) for level in self.pyramid(images)]
        return torch.cat([part for level in maps for part in (level.mean(2), level.std(2))], 1)

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


class _ResidualTrunk(nn.Module):
    """Residual blocks, and the layer of features above them."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _Residual(before, after)
            for before, after in zip((3, *channels), channels, strict=False)
        )
        self.penultimate = nn.Linear(channels[-1] * 16, FEATURES)


def _block_maps(blocks: nn.ModuleList, images: Float[Tensor, "b 3 64 64"]) -> Maps:
    maps, x = [], images
    for block in blocks:
        x = block(x)
        maps.append(x)
    return maps


class ConvolutionalJudge(Judge):
    """``zoo1``: one supervised residual trunk for everything, or one to see and one to read with.

    Args:
        name: Identifier.
        channels: Width of each block.
        own_reader: Factors and identity are read by a second trunk. It can be trained further on
            degraded images, while the features of the first stay what they were.
    """

    def __init__(
        self,
        name: str = "zoo1",
        channels: Sequence[int] = (32, 64, 96, 128),
        own_reader: bool = False,
    ) -> None:
        super().__init__(name, len(channels))
        trunk = _ResidualTrunk(channels)
        self.blocks, self.penultimate = trunk.blocks, trunk.penultimate
        self.factor_head = nn.Linear(FEATURES, len(FACTORS))
        self.identity_head = nn.Linear(channels[-1] * 16, EMBEDDING)
        self.reader = _ResidualTrunk(channels) if own_reader else None

    def trunk(self, images: Float[Tensor, "b 3 64 64"]) -> tuple[Maps, Float[Tensor, "b d"]]:
        """Maps of each block, and the penultimate layer."""
        maps = _block_maps(self.blocks, images)
        return maps, self.penultimate(maps[-1].flatten(1))

    def read(self, images: Float[Tensor, "b 3 64 64"]) -> tuple[Tensor, Tensor]:
        """Factors and identity from the last block."""
        trunk = self if self.reader is None else self.reader
        flat = _block_maps(trunk.blocks, images)[-1].flatten(1)
        return self.factor_head(F.relu(trunk.penultimate(flat))), self.identity_head(flat)


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


# ---------------------------------------------------------------- zoo3


def haar_packets(images: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b p c h2 w2"]:
    """Each patch in all packets of an orthonormal Haar wavelet, the mean first.

    Args:
        images: Height and width are multiples of `size`.
        size: Pixels per side of a patch, a power of 2.
    """
    rows = torch.ones(1, 1, device=images.device)
    while len(rows) < size:
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)]) / 2**0.5
    pixels = F.pixel_unshuffle(images, size).unflatten(1, (images.shape[1], size**2))
    return torch.einsum("bcphw,qp->bqchw", pixels, torch.kron(rows, rows))


class _Attention(nn.Module):
    """Transformer block over the last-but-one axis: attention, then two pointwise layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.joint = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide_norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        joint = self.joint(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.wide(self.wide_norm(x))))


class AttentionJudge(Judge):
    """``zoo3``: patches that attend to each other; features are fixed wavelet energies.

    Patches of 4x4 pixels, in the packets of a Haar wavelet, attend along rows, then along
    columns; groups of 2x2 of them attend to all others (axial attention: Ho et al. 2019; patches:
    Dosovitskiy et al. 2021). ``trunk`` has no learned weights: it is the Haar wavelet transform
    (Mallat 1989), and what it sees does not depend on what the heads were trained to overlook.
    """

    feature_mean: Tensor
    feature_basis: Tensor
    patch_spread: Tensor

    def __init__(
        self, name: str = "zoo3", width: int = 48, depth: int = 3, heads: int = 4, reduced: int = 24
    ) -> None:
        super().__init__(name, 3)
        self.register_buffer("patch_spread", torch.ones(3 * 16))
        self.register_buffer("feature_mean", torch.zeros(WAVELET_FEATURES))
        self.register_buffer("feature_basis", torch.zeros(WAVELET_FEATURES, FEATURES))
        self.embed = nn.Linear(3 * 16, width)
        self.place = nn.Parameter(0.02 * torch.randn(16, 16, width))
        self.along_rows = _Attention(width, heads)
        self.along_columns = _Attention(width, heads)
        self.merge = nn.Linear(4 * width, 2 * width)
        self.everywhere = nn.Sequential(*(_Attention(2 * width, heads) for _ in range(depth)))
        self.last_norm = nn.LayerNorm(2 * width)
        self.reduce = nn.Linear(2 * width, reduced)
        self.factor_head = nn.Sequential(
            nn.Linear(64 * reduced, FEATURES), nn.GELU(), nn.Linear(FEATURES, len(FACTORS))
        )
        self.identity_head = nn.Linear(64 * reduced, EMBEDDING)

    def patches(self, images: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b 16 16 48"]:
        """Haar packets of each patch of 4x4 pixels: 16 of each colour."""
        return haar_packets(images, 4).transpose(1, 2).flatten(1, 2).permute(0, 2, 3, 1)

    def read(self, images: Float[Tensor, "b 3 64 64"]) -> tuple[Tensor, Tensor]:
        """Factors and identity from the attending patches."""
        x = self.embed(self.patches(images) / self.patch_spread) + self.place
        batch = len(x)
        x = self.along_rows(x.flatten(0, 1)).unflatten(0, (batch, 16))
        x = self.along_columns(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, 16))
        groups = x.unflatten(2, (8, 2)).unflatten(1, (8, 2)).transpose(2, 3)
        x = self.everywhere(self.merge(groups.flatten(3).flatten(1, 2)))
        flat = F.gelu(self.reduce(self.last_norm(x))).flatten(1)
        return self.factor_head(flat), self.identity_head(flat)

    @staticmethod
    def bands(images: Float[Tensor, "b 3 64 64"]) -> tuple[Maps, Float[Tensor, "b 3 8 8"]]:
        """Three levels of a Haar wavelet transform, 9 channels of detail each; and what is left."""
        details, rest = [], images
        for _ in range(3):
            packets = haar_packets(rest, 2)
            details.append(packets[:, 1:].flatten(1, 2))
            rest = packets[:, 0] / 2
        return details, rest

    def wavelet_features(self, images: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b d"]:
        """Mean size of each band of detail on a grid of 4x4, and the image at 8x8."""
        details, rest = self.bands(images)
        energies = [F.adaptive_avg_pool2d(band.abs(), 4).flatten(1) for band in details]
        return torch.cat([*energies, rest.flatten(1)], 1)

    def trunk(self, images: Float[Tensor, "b 3 64 64"]) -> tuple[Maps, Float[Tensor, "b d"]]:
        """Bands of detail with what is left below them, and principal components of energies."""
        details, rest = self.bands(images)
        maps = []
        for band in details:
            below = F.interpolate(rest, size=band.shape[-1], mode="bilinear")
            steady = torch.full_like(band[:, :1], 0.5)  # without it contrast would be divided out
            maps.append(torch.cat([band, below, steady], 1))
        return maps, (self.wavelet_features(images) - self.feature_mean) @ self.feature_basis


# ---------------------------------------------------------------- loading

ARCHITECTURES: dict[str, Callable[..., Judge]] = {
    "ConvolutionalJudge": ConvolutionalJudge,
    "MixerJudge": MixerJudge,
    "AttentionJudge": AttentionJudge,
}
JudgeName = Literal["zoo1", "zoo2", "zoo3"]
JUDGES: tuple[str, ...] = get_args(JudgeName)


def load_judge(name: str, device: str | torch.device = "cpu") -> Judge:
    """Load a judge after checking its hash.

    Args:
        name: One of ``JUDGES``.
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
    explained = weights.card(name)["measured"][weights.RELIABILITY]
    return torch.tensor([explained[factor] for factor in FACTOR_NAMES]).clamp(0, 1)
