"""What samplers of a changed prior share: other noise or codes, the model's own images of them."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentbench.content import content_hash
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import LatentModel
from latentbench.models.push_forward import PushForward
from latentbench.streams import Streams
from latentbench.types import Latent, Space

Where = Literal["code", "noise"]

ROWS = 64  # candidates that are looked at together, always as many: no row sees another's batch
TRIES = 200 * ROWS  # candidates of one image
POOLED = 500  # latents of a pool that are drawn and compared at once


class ChangedPrior(Editor[Any]):
    """Changes what a sample starts from, each image's by itself, and leaves the model alone."""

    scope = "model"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"generate": frozenset({Space.NOISE})}
    families = (LatentModel,)

    def __init__(self) -> None:
        self.learned_: dict[str, Tensor] = {}

    def state(self) -> dict[str, Tensor]:
        """Return what was learned of the prior."""
        return self.learned_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        self.learned_ = {name: v.to(self.model.device) for name, v in state.items()}

    def generate(
        self, ids: Sequence[str], prompts: Sequence[str] | None, noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, from the changed noise of that id, or from a given one's.

        Raises:
            BadInput: nothing is fitted, or no candidate of an image fits.
        """
        parts = dict(self.model.prior(self.streams, ids).parts)
        own = parts.pop(Space.NOISE)
        parts |= self.changed(own if noise is None else noise.to(own), ids)
        told = None if prompts is None else tuple(prompts)
        return self.model.sample(Latent(parts, prompts=told))

    @abstractmethod
    def changed(self, noise: Float[Tensor, "b ..."], ids: Sequence[str]) -> Mapping[Space, Tensor]:
        """Return what the images are made of in the place of their noise: noise, or codes."""

    def first_fitting(
        self,
        noise: Float[Tensor, "b ..."],
        ids: Sequence[str],
        fits: Callable[[Float[Tensor, "r ..."]], Bool[Tensor, " r"]],
    ) -> Float[Tensor, "b ..."]:
        """Return each image's own noise where it fits, else the first draw of its stream that does.

        The stream goes by the image and its noise, so that another noise is replaced by another.

        Raises:
            BadInput: none of `TRIES` fits.
        """
        found = []
        for own, name in zip(noise, ids, strict=True):
            draw = self.streams.generator(type(self).__name__, f"{name}/{content_hash(own)}")
            first = next(_candidates(own, draw, fits), None)
            if first is None:
                raise BadInput(
                    f"none of {TRIES:,} candidates for image {name!r} fits; ask "
                    f"{type(self).__name__} for a larger share of the prior"
                )
            found.append(first)
        return torch.stack(found)


def _candidates(
    noise: Float[Tensor, "..."],
    draw: torch.Generator,
    fits: Callable[[Float[Tensor, "r ..."]], Bool[Tensor, " r"]],
) -> Iterator[Float[Tensor, "..."]]:
    """Yield the candidates that fit, the noise first."""
    for start in range(0, TRIES, ROWS):
        drawn = torch.randn(ROWS, *noise.shape, generator=draw).to(noise)
        if start == 0:
            drawn[0] = noise
        yield from drawn[fits(drawn)]


def pooled_noise(
    streams: Streams, model: LatentModel, count: int
) -> Iterator[Float[Tensor, "r ..."]]:
    """Yield the noise of a seed's pool of latents, some at a time."""
    names = [f"{k}" for k in range(count)]
    for start in range(0, count, POOLED):
        some = names[start : start + POOLED]
        yield streams.normal("prior/pool", some, model.latent_shape, model.device)


def coded(model: LatentModel, noise: Float[Tensor, "b ..."], space: Where) -> Float[Tensor, "b d"]:
    """Return what a space holds of noise, as vectors.

    Args:
        model: any.
        noise: of its prior.
        space: "noise" itself, or the "code" that a generator without a sampler makes of it (w of a
            GAN); of a denoiser, that is the noise.
    """
    pushing = _pushing(model, space)
    if pushing is None:
        return noise.flatten(1)
    with torch.no_grad():
        return pushing.push(noise)


def placed(
    model: LatentModel, code: Float[Tensor, "b d"], space: Where
) -> Mapping[Space, Float[Tensor, "b ..."]]:
    """Return vectors of a space as the part of a latent that they are."""
    pushing = _pushing(model, space)
    if pushing is None:
        return {Space.NOISE: code.unflatten(1, model.latent_shape)}
    return {pushing.code_space: code}


def centre(
    model: LatentModel, codes: Iterable[Float[Tensor, "n d"]], space: Where
) -> Float[Tensor, " d"]:
    """Return the mean of a space: that of many codes; of noise it is known to be 0.

    Args:
        model: any.
        codes: of a pool, some at a time; not asked for where the space is noise.
        space: see `coded`.
    """
    if _pushing(model, space) is None:
        return torch.zeros(prod(model.latent_shape), device=model.device)
    return torch.cat([*codes]).mean(0)


def _pushing(model: LatentModel, space: Where) -> PushForward | None:
    return model if space == "code" and isinstance(model, PushForward) else None
