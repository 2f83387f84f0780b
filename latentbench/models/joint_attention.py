"""Taps on joint attention: image and text tokens in one layer, each with its own projections."""

from typing import Any

import torch
from torch import Tensor

from latentbench.errors import Incompatible
from latentbench.model import AttentionCall
from latentbench.models.checkpoint import Attend


class TappedJointAttention:
    """An attention processor that hands queries, keys and values to `attend`.

    Does what diffusers' JointAttnProcessor2_0 does around it. Image tokens come before text
    tokens; a layer without text tokens (the second attention of Stable Diffusion 3.5) has image
    tokens alone.
    """

    def __init__(self, layer: str, attend: Attend, calls: list[str]) -> None:
        self.layer, self.attend, self.calls = layer, attend, calls

    def __call__(
        self,
        attn: Any,  # diffusers' Attention
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the layer's image tokens, and its text tokens where there are any."""
        self.begin(attention_mask)
        self.image = hidden_states.shape[1]
        context = hidden_states
        if encoder_hidden_states is not None:
            context = torch.cat([hidden_states, encoder_hidden_states], 1)
        out = self.attended(attn, context, self.image)
        first = attn.to_out[1](attn.to_out[0](out[:, : self.image]))
        if encoder_hidden_states is None:
            return first
        text = out[:, self.image :]
        return first, (text if attn.context_pre_only else attn.to_add_out(text))

    def begin(self, attention_mask: Tensor | None) -> None:
        """Note that the layer was called; refuse a mask."""
        if attention_mask is not None:
            raise Incompatible(f"attention layer {self.layer} got a mask; taps take none")
        self.calls.append(self.layer)

    def place(self, rows: Tensor) -> Tensor:
        """Return queries or keys ``[r, h, n, d]`` that know their places; here they do already."""
        return rows

    def attended(self, attn: Any, context: Tensor, own: int | None) -> Tensor:
        """Return what `attend` makes of the layer's tokens, heads side by side ``[r, n, d]``.

        Args:
            attn: the layer.
            context: its tokens.
            own: how many of them, the first, have the layer's own projections; the rest have those
                added for text. None: all have the layer's own.
        """
        return self.attend(self._call(attn, context, own)).transpose(1, 2).flatten(2)

    def _call(self, attn: Any, context: Tensor, own: int | None) -> AttentionCall:
        def normed(norm: str, rows: Tensor) -> Tensor:
            layer = getattr(attn, norm, None)
            heads = rows.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            return heads if layer is None else layer(heads)

        def part(rows: Tensor, name: str) -> Tensor:
            first = normed(f"norm_{name}", getattr(attn, f"to_{name}")(rows[:, :own]))
            if own is None or rows.shape[1] == own:
                return first
            text = getattr(attn, f"add_{name}_proj")(rows[:, own:])
            return torch.cat([first, normed(f"norm_added_{name}", text)], 2)

        def project(rows: Tensor) -> tuple[Tensor, Tensor]:
            return self.place(part(rows, "k")), part(rows, "v")

        query, (key, value) = self.place(part(context, "q")), project(context)
        scale = query.shape[-1] ** -0.5
        text = context.shape[1] - self.image
        return AttentionCall(self.layer, False, query, key, value, scale, project, context, text)


class TappedFluxAttention(TappedJointAttention):
    """The same for FLUX, whose FluxAttnProcessor turns image tokens by their places.

    All text tokens have position zero, which turns nothing. In the single-stream blocks the
    network has text tokens before image tokens; to `attend`, image tokens come first there too.

    Args:
        image: number of image tokens.
        layer: the layer's name.
        attend: what replaces attention.
        calls: names of the layers that were called, added to.
    """

    def __init__(self, image: int, layer: str, attend: Attend, calls: list[str]) -> None:
        super().__init__(layer, attend, calls)
        self.image = image

    def __call__(
        self,
        attn: Any,  # diffusers' FluxAttention
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return image tokens and text tokens; of a single stream, all in one."""
        assert image_rotary_emb is not None  # the network always makes it
        cosine, sine = image_rotary_emb
        self.rotation: Any = cosine[-self.image :], sine[-self.image :]
        if encoder_hidden_states is not None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        self.begin(attention_mask)
        out = self.attended(attn, hidden_states.roll(self.image, 1), None)
        return out.roll(-self.image, 1)

    def place(self, rows: Tensor) -> Tensor:
        """Return queries or keys ``[r, h, n, d]``, the image tokens turned by their places."""
        from diffusers.models.embeddings import apply_rotary_emb  # late: slow to import

        turned: Any = apply_rotary_emb(rows[:, :, : self.image], self.rotation)
        return torch.cat([turned, rows[:, :, self.image :]], 2)
