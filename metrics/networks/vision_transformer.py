"""The vision transformer of DINO and DINOv2, with the parameter names of their published files."""

from collections import OrderedDict
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

OFFSET = 0.1  # added to a new grid's side by the authors' code, which sets the scale


class VisionTransformer(nn.Module):
    """Pre-norm transformer over patches and a class token.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", section 3.1; code of DINO and
    DINOv2, whose way to interpolate position embeddings is kept: bicubic, by a scale of
    (new side + 0.1) / old side.

    Args:
        patch: side of a patch in pixels.
        width: channels.
        depth: blocks.
        heads: attention heads.
        grid: patches per side that position embeddings were trained for.
        layer_scale: whether branches are scaled by channel, as in DINOv2.
    """

    def __init__(
        self, patch: int, width: int, depth: int, heads: int, grid: int, layer_scale: bool = False
    ) -> None:
        super().__init__()
        self.grid = grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, width, patch, patch)))
        self.blocks = nn.ModuleList(_Block(width, heads, layer_scale) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c"]:
        """Return the class token's features."""
        x = self._embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]

    def keys(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Return the keys of the last block, heads side by side; the class token is first."""
        x = self._embed(images)
        for block in self.blocks[:-1]:
            x = block(x)
        return cast(_Block, self.blocks[-1]).keys(x)

    def _embed(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        x = self.patch_embed(images)
        positions = self._positions(x.shape[-2], x.shape[-1])
        first = self.cls_token.expand(len(x), -1, -1)
        return torch.cat([first, x.flatten(2).transpose(1, 2)], 1) + positions

    def _positions(self, high: int, wide: int) -> Float[Tensor, "1 n c"]:
        if high == wide == self.grid:
            return self.pos_embed
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        planes = rest.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        scale = tuple((side + OFFSET) / self.grid for side in (high, wide))
        found = interpolate(planes, scale_factor=scale, mode="bicubic")
        return torch.cat([first, found.flatten(2).transpose(1, 2)], 1)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, layer_scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        wide, narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(fc1=wide, gelu=nn.GELU(), fc2=narrow))
        self.ls1 = _LayerScale(width) if layer_scale else nn.Identity()
        self.ls2 = _LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))

    def keys(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return self.attn.qkv(self.norm1(x)).chunk(3, 2)[1]


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        split = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = scaled_dot_product_attention(*split)
        return self.proj(found.transpose(1, 2).flatten(2))


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return x * self.gamma
