"""What text-conditional flow-matching transformers share: velocity, joint attention, prompts."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentbench.bounds import Dtype, Guidance, Name, Steps
from latentbench.errors import BadInput
from latentbench.model import Condition
from latentbench.models.feature_points import second_tokens
from latentbench.models.transformer import TransformerDiffusion
from latentbench.prompt_tokens import token_ids
from latentbench.types import Capability, Space


class JointFlow(TransformerDiffusion):
    """A flow-matching transformer in which image and text tokens share attention layers.

    Source: "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis": x_t =
    (1 - t) x_0 + t eps, and the network gives the velocity eps - x_0. The empty condition is the
    prompt "".
    """

    spaces: ClassVar[frozenset[Space]] = frozenset(
        {
            Space.NOISE,
            Space.NOISE_MAPS,
            Space.BOTTLENECK,
            Space.JOINT_ATTENTION,
            Space.TOKEN_MAPS,
            Space.WEIGHTS,
            Space.VAE,
            Space.TEXT,
        }
    )
    gives: ClassVar[frozenset[Capability]] = frozenset({Capability.PROMPTS})
    prediction_type = "flow"
    schedule = "diffusers.FlowMatchEulerDiscreteScheduler"
    block_output = staticmethod(second_tokens)
    attention_name = "attn"

    def __init__(
        self, *, path: Name, steps: Steps, guidance: Guidance, dtype: Dtype, device: str
    ) -> None:
        super().__init__(path=path, steps=steps, guidance=guidance, dtype=dtype, device=device)
        self._embedded: dict[str, Condition] = {}

    def condition(self, prompts: Sequence[str] | None, rows: int) -> Condition:
        """Return the prompts' tokens and pooled vectors; None means the empty prompt."""
        texts = [""] * rows if prompts is None else list(prompts)
        if len(texts) != rows:
            raise BadInput(f"got {len(texts)} prompts for {rows} images; give one per image")
        for text in set(texts) - self._embedded.keys():
            with torch.no_grad():
                self._embedded[text] = self.embed(text)
        return Condition.concat([self._embedded[text] for text in texts])

    @abstractmethod
    def embed(self, prompt: str) -> Condition:
        """Return one prompt's condition, of one row; prompts that would be cut are refused."""

    def ids(self, tokenizer: Any, prompt: str, limit: int | None = None) -> Tensor:
        """Return a prompt's token ids ``[1, m]``; see `token_ids`."""
        return torch.tensor([token_ids(tokenizer, prompt, limit)], device=self.device)
