"""What models without a sampler share: one pass from a vector of noise to an image."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Dtype, Name
from latentbench.content import content_hash
from latentbench.errors import Incompatible
from latentbench.model import Condition, Evaluations, LatentModel
from latentbench.models.components import load_network, resolve
from latentbench.types import Latent, Space


class PushForward(LatentModel):
    """A generator x = G(z) of standard normal vectors z: `push` to the clean code, then `decode`.

    Args:
        path: name of an embedded model, or a local folder.
        dtype: "float32", "float16" or "bfloat16".
        device: where the networks run.

    Class attributes:
        code_space: what `encode` and `push` return and `decode` takes.
    """

    code_space: ClassVar[Space]

    def __init__(self, *, path: Name, dtype: Dtype = "float32", device: str = "cpu") -> None:
        self.path, self.folder = path, resolve(path)
        self.dtype, self.device = getattr(torch, dtype), torch.device(device)
        self.evaluations = Evaluations()

    def component(self, cls: Any, subfolder: str) -> Any:
        """Return one frozen network of the checkpoint, in evaluation mode."""
        part = load_network(cls, self.folder, subfolder, self.dtype)
        return part.to(self.device).eval().requires_grad_(False)

    @abstractmethod
    def networks(self) -> Sequence[nn.Module]:
        """Return all networks of the model."""

    @abstractmethod
    def push(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """Return the clean codes of noise: what `encode` gives of images and `decode` takes."""

    def code_of(self, images: Float[Tensor, "b 3 h w"]) -> Latent:
        """Return the encoder's code of images: all that an image is made of."""
        return Latent({self.code_space: self.encode(images)})

    def sample(
        self,
        latent: Latent,
        *,
        condition: Condition | None = None,
        null: Condition | None = None,
        guidance: float | Float[Tensor, " b"] | None = None,
        steps: int | None = None,
        interventions: Sequence[Any] = (),
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the images of a code, or of noise; see the base class."""
        del condition, null, guidance, steps
        if interventions:
            raise Incompatible(
                f"{type(self).__name__} has no sampling loop to change; choose a denoiser for "
                f"{type(interventions[0]).__name__}"
            )
        code = latent.parts.get(self.code_space)
        return self.decode(self.push(latent.parts[Space.NOISE]) if code is None else code)

    def reconstruction_truth(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return the images: the encoder is what a reconstruction measures."""
        return images

    def fingerprint(self) -> str:
        """Return a hash of all weights and the settings."""
        weights = self._hash_weights() if self._lent else self._weights_hash
        return content_hash(weights, self.version, str(self.dtype))

    @cached_property
    def _weights_hash(self) -> str:
        return self._hash_weights()

    def _hash_weights(self) -> str:
        return content_hash([network.state_dict() for network in self.networks()])
