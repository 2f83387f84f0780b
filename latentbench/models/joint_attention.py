"""Taps on joint attention: image and text tokens in one layer, each with its own projections."""

from typing import Any

import torch
from torch import Tensor

from latentbench.errors import Incompatible
from latentbench.models.base import AttentionCall
from latentbench.models.checkpoint import Attend


class TappedJointAttention:
    """An attention processor that hands queries, keys and values to `attend`.

    Does what diffusers' JointAttnProcessor2_0 does around it. Image tokens stand before text
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
        if attention_mask is not None:
            raise Incompatible(f"attention layer {self.layer} got a mask; taps take none")
        self.calls.append(self.layer)
        image = hidden_states.shape[1]
        context = hidden_states
        if encoder_hidden_states is not None:
            context = torch.cat([hidden_states, encoder_hidden_states], 1)
        out = self.attend(self._call(attn, context, image))
        out = out.transpose(1, 2).flatten(2)
        first = attn.to_out[1](attn.to_out[0](out[:, :image]))
        if encoder_hidden_states is None:
            return first
        text = out[:, image:]
        return first, (text if attn.context_pre_only else attn.to_add_out(text))

    def _call(self, attn: Any, context: Tensor, image: int) -> AttentionCall:
        """Return the call; `image` is the number of image tokens, which stand first."""

        def heads(rows: Tensor) -> Tensor:
            return rows.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        def both(rows: Tensor, own: Any, added: Any, norm: Any, added_norm: Any) -> Tensor:
            first = heads(own(rows[:, :image]))
            first = first if norm is None else norm(first)
            if rows.shape[1] == image:
                return first
            text = heads(added(rows[:, image:]))
            return torch.cat([first, text if added_norm is None else added_norm(text)], 2)

        def project(rows: Tensor) -> tuple[Tensor, Tensor]:
            key = both(rows, attn.to_k, attn.add_k_proj, attn.norm_k, attn.norm_added_k)
            return key, both(rows, attn.to_v, attn.add_v_proj, None, None)

        query = both(context, attn.to_q, attn.add_q_proj, attn.norm_q, attn.norm_added_q)
        key, value = project(context)
        return AttentionCall(self.layer, False, query, key, value, attn.scale, project, context)
