"""What diffusion transformers share: h_t is the middle block's image tokens, seen as a map."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from latentbench.models.autoencoder import AutoencodedDiffusion


class TransformerDiffusion(AutoencodedDiffusion):
    """A latent diffusion model whose network is a stack of transformer blocks.

    h_t is the output of block n // 2 of n, the image tokens alone, laid out as a map
    ``[r, width, h, w]``, so that what was written for a U-Net's bottleneck works here as well.
    """

    def middle_block(self) -> nn.Module:
        """Return the block in the middle of the stack."""
        blocks = self.network.transformer_blocks
        return blocks[len(blocks) // 2]

    def change_middle(self, output: Any, change: Callable[[Tensor], Tensor]) -> Any:
        """Return the block's output with its image tokens changed."""
        return change_tokens(output, change)


def change_tokens(tokens: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return tokens ``[r, side * side, width]`` after a change of the map ``[r, width, h, w]``."""
    side = round(tokens.shape[1] ** 0.5)
    maps = tokens.transpose(1, 2).unflatten(2, (side, side))
    return change(maps).flatten(2).transpose(1, 2)
