"""What networks that aid a method share: counted evaluations and a fingerprint."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.content import content_hash
from latentbench.model import Evaluations


class MeteredNetwork(ABC):
    """A frozen network that a method may ask about images, and take gradients of.

    Attributes:
        version: raised when a fix changes figures; part of every cell's id.
        name: what it was loaded from.
        device: where it runs.
        evaluations: images read so far, forward and backward.
    """

    version: ClassVar[int] = 1

    def __init__(self, name: str, device: str) -> None:
        self.name, self.device = name, torch.device(device)
        self.evaluations = Evaluations()

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of the weights and of every setting that changes an answer."""

    def counted(self, answers: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return the answers for b images as they are; counts them, and their gradients later."""
        self.evaluations.forward += len(answers)
        if answers.requires_grad:
            answers.register_hook(self._count_backward)
        return answers

    def _count_backward(self, gradient: Tensor) -> None:
        self.evaluations.backward += len(gradient)


def weights_hash(network: nn.Module) -> str:
    """Return a hash of a network's weights and their names."""
    return content_hash(network.state_dict())
