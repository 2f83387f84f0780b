"""Style-based generative adversarial networks: z -> w by a mapping network, w -> image."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Dtype, Name
from latentbench.models.convolutions import ImageEncoder
from latentbench.models.push_forward import PushForward
from latentbench.types import Space


class MappingNetwork(ModelMixin, ConfigMixin):
    """z -> w: z at length sqrt(d), then a perceptron ("A Style-Based Generator", section 2).

    Args:
        code: length of z and of w.
        width: width of the hidden layers.
        depth: number of linear layers.
    """

    @register_to_config
    def __init__(self, code: int = 64, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        widths = [code, *[width] * (depth - 1), code]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        for layer in layers:  # w starts about as wide as z
            nn.init.kaiming_normal_(layer.weight, 0.2)
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return w."""
        x = F.normalize(z, dim=1) * z.shape[1] ** 0.5
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.layers[-1](x)


class _StyledConvolution(nn.Module):
    """Convolution whose weights are modulated by w and demodulated.

    "Analyzing and Improving the Image Quality of StyleGAN", equations 1 and 3. Scaling the maps
    before and after is the same as scaling the weights, and needs no convolution per image.
    """

    def __init__(self, before: int, after: int, code: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 3, 1, 1, bias=False)
        self.style = nn.Linear(code, before)
        self.bias = nn.Parameter(torch.zeros(after))
        nn.init.ones_(self.style.bias)

    def forward(
        self, x: Float[Tensor, "b c h w"], w: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b e h w"]:
        style = self.style(w)
        power = self.convolution.weight.square().sum((2, 3))
        demodulation = (style.square() @ power.T + 1e-8).rsqrt()
        y = self.convolution(x * style[:, :, None, None]) * demodulation[:, :, None, None]
        return F.leaky_relu(y + self.bias[:, None, None], 0.2) * 2**0.5


class _Resolution(nn.Module):
    """Styled convolutions of one resolution and their share of the image."""

    def __init__(self, before: int, after: int, code: int, first: bool) -> None:
        super().__init__()
        self.first = first
        sizes = [(after, after)] if first else [(before, after), (after, after)]
        self.layers = nn.ModuleList(_StyledConvolution(a, b, code) for a, b in sizes)
        self.colours = nn.Conv2d(after, 3, 1)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        image: Float[Tensor, "b 3 h w"],
        w: Float[Tensor, "b d"],
    ) -> tuple[Tensor, Tensor]:
        if not self.first:
            x, image = (F.interpolate(v, scale_factor=2.0, mode="bilinear") for v in (x, image))
        for layer in self.layers:
            x = layer(x, w)
        return x, image + self.colours(x)


class StyleSynthesis(ModelMixin, ConfigMixin):
    """w -> image: a learned 4x4 map, styled convolutions, and an image summed over resolutions.

    Deviation from StyleGAN2: no noise is added between the layers, so that w alone is the code.

    Args:
        channels: width at 4x4, 8x8, ... pixels; the last resolution is the image's.
        code: length of w.
    """

    @register_to_config
    def __init__(self, channels: Sequence[int] = (128, 96, 64, 48), code: int = 64) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        widths = [channels[0], *channels]
        self.resolutions = nn.ModuleList(
            _Resolution(a, b, code, first=k == 0)
            for k, (a, b) in enumerate(itertools.pairwise(widths))
        )

    @property
    def image_size(self) -> int:
        """Pixels per side."""
        return 2 * 2 ** len(self.resolutions)

    def forward(self, w: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 h w"]:
        """Return images, not clamped."""
        x = self.start.expand(len(w), -1, -1, -1)
        image = torch.zeros_like(x[:, :3])
        for resolution in self.resolutions:
            x, image = resolution(x, image, w)
        return image


class StyleEncoder(ModelMixin, ConfigMixin):
    """Image -> w.

    Args:
        image_size: pixels per side.
        channels: width of each block, fine to coarse.
        code: length of w.
    """

    @register_to_config
    def __init__(
        self, image_size: int = 32, channels: Sequence[int] = (32, 64, 96), code: int = 64
    ) -> None:
        super().__init__()
        self.encoder = ImageEncoder(image_size, channels, code)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return w."""
        return self.encoder(images)


class StyleGAN(PushForward):
    """A style-based generator with an encoder into w.

    Sources: "A Style-Based Generator Architecture for Generative Adversarial Networks" and
    "Analyzing and Improving the Image Quality of StyleGAN". `encode` is one pass of a trained
    encoder, not an optimisation per image: it loses what w cannot hold, and what it did not learn.

    Example:
        >>> StyleGAN(path="faces_gan").latent_shape
        (64,)
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({Space.NOISE, Space.STYLE})
    code_space = Space.STYLE

    def __init__(self, *, path: Name, dtype: Dtype = "float32", device: str = "cpu") -> None:
        super().__init__(path=path, dtype=dtype, device=device)
        self.mapping: Any = self.component(MappingNetwork, "mapping")
        self.synthesis: Any = self.component(StyleSynthesis, "synthesis")
        self.encoder: Any = self.component(StyleEncoder, "encoder")
        self.image_size = self.synthesis.image_size
        self.latent_shape = (int(self.mapping.config.code),)

    def networks(self) -> Sequence[nn.Module]:
        """Return mapping network, synthesis and encoder."""
        return (self.mapping, self.synthesis, self.encoder)

    def tunable(self) -> Mapping[str, nn.Module]:
        """Return the synthesis, from w to images."""
        return {"decoder": self.synthesis}

    def push(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """Return w of z."""
        return self.mapping(noise.to(self.device, self.dtype)).float()

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Return w of images by the encoder."""
        self.check_images(images)
        return self.encoder(images.to(self.device, self.dtype)).float()

    def decode(self, latent: Float[Tensor, "b e"]) -> Float[Tensor, "b 3 h w"]:
        """Return the images of w, differentiable, not clamped."""
        self.evaluations.forward += len(latent)
        return self.synthesis(latent.to(self.dtype)).float()
