"""What diffusion transformers share: their blocks' image tokens are seen as maps."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from latentbench.models.autoencoder import AutoencodedDiffusion
from latentbench.models.feature_points import Change, FeaturePoint, first_tokens


class TransformerDiffusion(AutoencodedDiffusion):
    """A latent diffusion model whose network is a stack of transformer blocks.

    A block's image tokens are laid out as a map ``[r, width, h, w]``, so that what was written for
    a U-Net works here as well; h_t is the output of block n // 2 of n. Feature layers of block i:
    ``transformer_blocks.i`` (its output), ``:input``, and the residual branches ``:attention`` and
    ``:feedforward``, before their gates.
    """

    block_output: Callable[[Any, Change], Any] = staticmethod(first_tokens)
    attention_name = "attn1"

    def middle_layer(self) -> str | None:
        """Return the block in the middle of the stack."""
        return f"transformer_blocks.{len(self.network.transformer_blocks) // 2}"

    def feature_points(self) -> Mapping[str, FeaturePoint]:
        """Return the places of every block, in the order in which they run."""
        count = len(self.network.transformer_blocks)
        return dict(p for k in range(count) for p in self.block_points(f"transformer_blocks.{k}"))

    def block_points(self, block: str) -> Iterator[tuple[str, FeaturePoint]]:
        """Yield the places of one block by name."""
        yield f"{block}:input", FeaturePoint(block, first_tokens, before=True)
        yield f"{block}:attention", FeaturePoint(f"{block}.{self.attention_name}", first_tokens)
        yield f"{block}:feedforward", FeaturePoint(f"{block}.ff", first_tokens)
        yield block, FeaturePoint(block, self.block_output)
