"""Editors that invert an image under its caption and decode the code under another prompt."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.editor import Editor
from latentbench.model import Condition, DiffusionModel
from latentbench.types import Batch, Capability, Edit, Latent


class PromptSwapEditor(Editor[DiffusionModel], ABC):
    """Decodes a code under prompts between source and target, at one guidance.

    The strength is lambda in c = (1 - lambda) c_source + lambda c_target: 0 is the reconstruction,
    1 the published edit.
    """

    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.PROMPTS, Capability.TARGET_PROMPTS})
    }

    @abstractmethod
    def decode_towards(
        self, latent: Latent, target: Condition, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images of codes under conditions between their own and the target."""

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of codes under the prompts that they were inverted with."""
        return self.decode_towards(latent, self.model.condition_of(latent), torch.zeros(1))[:, 0]

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images under prompts between source and target."""
        target = self.model.condition(edit.target_prompts, len(batch))
        return self.decode_towards(self.invert(batch), target, strengths)
