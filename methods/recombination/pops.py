"""pOps: operators on image embeddings, each a diffusion prior that two embeddings condition."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from diffusers import PriorTransformer
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Count, Guidance, Positive, Share, Steps, between
from methods.recombination.embedding_prior import (
    LEVELS,
    noised,
    predicted,
    prior,
    refuse_width,
    sampled,
    seeded,
    trained,
)
from methods.recombination.two_codes import TwoCodes

CLIP = 1.0  # norm of gradients


class Pops(TwoCodes):
    """Denoises the embedding of the answer, given the embeddings of two images in two slots.

    Source: "pOps: Photo-Inspired Diffusion Operators", section 4, and the authors' code. With e
    whitened embeddings, P a transformer over [slot a, slot b, 0, t, e_t, learned query] with a
    causal mask that is read at the query and predicts the clean embedding:

    1. e_t = sqrt(abar_t) e_c + sqrt(1 - abar_t) eps on the cosine schedule; each slot is zeroed,
       which is the mean embedding, with its own chance `drop`.
    2. P learns |P(e_t, t, a, b) - e_c|^2.
    3. To apply it, P(0, 0) + s (P(a, b) - P(0, 0)) is the predicted e_0 of a DDPM step.

    Deviations: the embedding is the model's vector code (z_sem, a VAE's mean, w); the prior starts
    from scratch, there from a trained text prior, and the rate falls to zero; two slots, no unused
    ones; triplets are exact and hold no pair of an image with itself; the decoder starts from the
    first image's x_T. The text operator is a method of its own, `pops_instruct`.

    Args:
        images: of the generators' split that make the triplets.
        iterations: steps of Adam for each operator.
        batch: triplets of each step.
        learning_rate: of Adam at the start.
        drop: chance of each slot to be zeroed in training.
        layers: of the transformer.
        width: of the transformer, a multiple of its 4 heads.
        prior_steps: sampling steps of the prior.
        prior_guidance: s.
        steps: sampling steps of the decoder; default: the model's, where it has any.

    Raises:
        BadInput: a width that the heads do not divide.

    Example:
        >>> method = Pops(prior_guidance=2.0)  # method.fit(data, edits); method.combine(a, b, edit)
    """

    paper = "pOps: Photo-Inspired Diffusion Operators, section 4"
    small: ClassVar[Mapping[str, Any]] = {
        "images": 8, "iterations": 2, "batch": 4, "layers": 1, "width": 16, "prior_steps": 3,
    }  # fmt: skip

    def __init__(
        self,
        *,
        images: Annotated[Count, between(2, 1_000_000)] = 2048,
        iterations: Count = 800,
        batch: Count = 64,
        learning_rate: Positive = 1e-3,
        drop: Share = 0.25,
        layers: Annotated[int, between(1, 100)] = 4,
        width: Annotated[int, between(8, 8192)] = 128,
        prior_steps: Annotated[int, between(2, LEVELS)] = 25,
        prior_guidance: Guidance = 1.0,
        steps: Steps | None = None,
    ) -> None:
        refuse_width(width)
        self.images, self.iterations, self.batch = images, iterations, batch
        self.learning_rate, self.drop, self.layers, self.width = learning_rate, drop, layers, width
        self.prior_steps, self.prior_guidance, self.steps = prior_steps, prior_guidance, steps
        self.learned_ = {}

    def learn(
        self,
        name: str,
        a: Float[Tensor, "n d"],
        b: Float[Tensor, "n d"],
        c: Float[Tensor, "n d"],
    ) -> Mapping[str, Tensor]:
        """Return the weights of one operator's prior."""
        net = self._network(name, c)
        weights = trained(net)
        adam = torch.optim.Adam(weights.values(), self.learning_rate)
        for step in self.fitting.steps(name, self.iterations, weights, adam):
            draw = self.streams.generator(f"pops/{name}/{step}")
            rows = torch.randint(len(c), (self.batch,), generator=draw).to(c.device)
            t = torch.randint(LEVELS, (self.batch,), generator=draw).to(c.device)
            eps = torch.randn(self.batch, c.shape[1], generator=draw).to(c)
            told = (torch.rand(self.batch, 2, 1, generator=draw) >= self.drop).to(c)
            noisy = noised(c[rows], t, eps)  # 1.
            guess = predicted(net, noisy, t, told * torch.stack([a[rows], b[rows]], 1))
            adam.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.iterations)
            adam.zero_grad()
            (guess - c[rows]).square().mean().backward()  # 2.
            torch.nn.utils.clip_grad_norm_(weights.values(), CLIP)
            adam.step()
        return weights

    def operate(
        self, name: str, a: Float[Tensor, "r d"], b: Float[Tensor, "r d"], ids: Sequence[str]
    ) -> Float[Tensor, "r d"]:
        """Return a sample of the operator's prior under both codes, one noise per id.

        In float64: in float32, where a row stands in the batch decides how its last bits round.
        """
        found, slots = self.learned(name), torch.stack([a, b], 1).double()
        net = self._network(name, a).double()
        with torch.no_grad():
            for key, weight in trained(net).items():
                weight.copy_(found[key])
            return self.sample(net, slots, ids).to(a)

    def sample(
        self, net: PriorTransformer, slots: Float[Tensor, "r 2 d"], ids: Sequence[str]
    ) -> Float[Tensor, "r d"]:
        """Return embeddings that a prior draws under what is in the slots."""
        shape, device = slots.shape[2:], slots.device

        def drawn(stream: str) -> Tensor:
            return self.streams.normal(stream, ids, shape, device).to(slots)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            x0 = predicted(net, x, t, slots)
            if self.prior_guidance == 1:
                return x0
            free = predicted(net, x, t, torch.zeros_like(slots))
            return free + self.prior_guidance * (x0 - free)  # 3.

        start, steps = drawn("pops/start"), self.prior_steps
        return sampled(predict, start, lambda i: drawn(f"pops/noise/{i}"), steps)

    def _network(self, name: str, like: Float[Tensor, "n d"]) -> PriorTransformer:
        """Return an operator's prior before it has learned anything."""
        start = self.streams.generator(f"pops/{name}/weights")
        size = like.shape[1]
        net = seeded(start, lambda: prior(self.layers, self.width, size, slots=2))
        nn.Module.to(net, like.device)
        return net
