"""Causal diffusion autoencoders: codes that a known graph of factors ties together."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.errors import BadInput, unknown
from latentbench.models.convolutions import ImageEncoder
from latentbench.models.info_diffusion import LEAST, MOST
from latentbench.models.semantic import EncodedDiffusion, code_projection

Blocks = Mapping[str, Float[Tensor, "b k"]]  # of a code, by factor


def causal_order(factors: Sequence[str], edges: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the factors, each after all that act on it.

    Raises:
        BadInput: an edge between unknown factors, or a circle of edges.

    Example:
        >>> causal_order(("hat", "age", "hair"), [("hair", "hat"), ("age", "hair")])
        ('age', 'hair', 'hat')
    """
    graph: dict[str, list[str]] = {name: [] for name in factors}
    for cause, effect in edges:
        for name in (cause, effect):
            if name not in graph:
                raise unknown("factor of an edge", name, factors)
        graph[effect].append(cause)
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise BadInput(
            f"a causal graph has no circles, got {circle}; leave out one of its edges"
        ) from error


class CausalEncoder(ModelMixin, ConfigMixin):
    """Image -> q(u | x); u -> z by a structural equation per factor; z -> the U-Net's embedding.

    z_i = f_i(z of what acts on i) + u_i, in the graph's order; f_i is a perceptron, and a factor on
    which nothing acts has z_i = u_i. The equations can be solved for u: z is as good a code as u.

    Args:
        image_size: pixels per side.
        channels: width of each block of the encoder, fine to coarse.
        factors: names of the factors, in the order of their blocks in a code.
        edges: pairs (cause, effect) of factors.
        block: numbers that a factor has in a code.
        hidden: width of each f_i.
        embedding: length of the U-Net's time embedding.

    Raises:
        BadInput: see `causal_order`.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 32,
        channels: Sequence[int] = (24, 48, 72),
        factors: Sequence[str] = ("a", "b"),
        edges: Sequence[Sequence[str]] = (("a", "b"),),
        block: int = 1,
        hidden: int = 32,
        embedding: int = 96,
    ) -> None:
        super().__init__()
        self.factors, self.block, self.code = tuple(factors), block, len(factors) * block
        self.order = causal_order(factors, edges)
        self.causes = {
            name: tuple(cause for cause, effect in edges if effect == name) for name in factors
        }
        self.encoder = ImageEncoder(image_size, channels, 2 * self.code)
        self.equations = nn.ModuleDict(
            {
                name: _equation(len(causes) * block, hidden, block)
                for name, causes in self.causes.items()
                if causes
            }
        )
        self.projection = code_projection(self.code, embedding)
        self.register_buffer("u_mean", torch.zeros(self.code))
        self.register_buffer("u_spread", torch.ones(self.code))
        self.register_buffer("low", torch.zeros(len(factors), block))  # z where a factor is 0
        self.register_buffer("high", torch.ones(len(factors), block))  # z where it is 1

    def posterior(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Return mean and log variance of q(u | x)."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        return mean, log_variance.clamp(LEAST, MOST)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return z of the mean of q(u | x)."""
        return self.predict(self.posterior(images)[0])

    def embed(self, code: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """Return what is added to the time embedding; 0 for a code of zeros (no code given)."""
        return self.projection(code)

    def predict(self, u: Float[Tensor, "b d"], held: Blocks | None = None) -> Float[Tensor, "b d"]:
        """Return z of u: every equation in the graph's order, but for the blocks that are held.

        Args:
            u: exogenous code.
            held: z of the factors that an intervention sets; what acts on them acts no more.
        """
        own, z = self.blocks(u), dict(held or {})
        for name in self.order:
            if name not in z:
                z[name] = own[name] + self._caused(name, z)
        return torch.cat([z[name] for name in self.factors], 1)

    def abduct(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return u of z: what the equations leave unexplained."""
        blocks = self.blocks(z)
        return torch.cat([blocks[name] - self._caused(name, blocks) for name in self.factors], 1)

    def blocks(self, code: Float[Tensor, "b d"]) -> dict[str, Float[Tensor, "b k"]]:
        """Return the parts of a code by factor."""
        return dict(zip(self.factors, code.split(self.block, 1), strict=True))

    def level(self, factor: str, value: float) -> Float[Tensor, " k"]:
        """Return the z that stands for a value of a factor, 0 to 1."""
        row = self.factors.index(factor)
        return self.low[row] + value * (self.high[row] - self.low[row])

    def _caused(self, name: str, z: Blocks) -> Float[Tensor, "b k"] | float:
        if not self.causes[name]:
            return 0.0
        return self.equations[name](torch.cat([z[cause] for cause in self.causes[name]], 1))


def _equation(reads: int, hidden: int, gives: int) -> nn.Sequential:
    """Return a perceptron that gives 0 as it starts."""
    last = nn.Linear(hidden, gives)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(reads, hidden), nn.LeakyReLU(), last)


class CausalDiffusion(EncodedDiffusion):
    """A diffusion autoencoder whose code has a block per factor, tied by a causal graph.

    Source: "Causal Diffusion Autoencoders: Toward Counterfactual Generation via Diffusion
    Probabilistic Models". The graph is known and stored with the encoder. z_sem is z; the prior
    draws u as it is spread over the data.

    Deviations: the equations read z of the causes and are solved in the graph's order; the
    published code adds the causes' u, so that nothing travels along a chain. Causes are read side
    by side and not summed: a sum does not tell a cause that raises from one that lowers. A
    factor without causes has no equation, which there adds a constant to it.

    Args:
        path: name of an embedded model, a local folder, or a hub id, with the folders unet,
            scheduler and semantic_encoder.
        steps: default number of sampling steps.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the networks run.
    """

    encoder_class = CausalEncoder

    @property
    def factors(self) -> tuple[str, ...]:
        """The factors that have a block of the code."""
        return self.semantic_encoder.factors

    def draw_semantic(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return z of exogenous codes, spread as they are over the data."""
        encoder = self.semantic_encoder
        u = encoder.u_mean + encoder.u_spread * noise.to(self.device, self.dtype)
        return encoder.predict(u).float()

    def intervene(
        self,
        code: Float[Tensor, "b d"],
        factor: str,
        value: float,
        share: Float[Tensor, " b"],
        propagate: bool = True,
    ) -> Float[Tensor, "b d"]:
        """Return z after do(factor): abduct u, set the factor's block, predict all that follows.

        Args:
            code: z.
            factor: the one that is set.
            value: what it is set to, 0 to 1.
            share: how much of the way there each row goes.
            propagate: follow the factor's effects; else they stay as they were.

        Raises:
            BadInput: a factor without a block.
        """
        if factor not in self.factors:
            raise unknown("factor of this model", factor, self.factors)
        encoder, z = self.semantic_encoder, code.to(self.device, self.dtype)
        before = encoder.blocks(z)
        way = encoder.level(factor, value) - before[factor]
        # action: z'_k = z_k + s (z(v) - z_k); what is held has no equation any more
        held = {factor: before[factor] + share.to(z)[:, None] * way}
        if not propagate:
            held = before | held
        # abduction u_i = z_i - f_i(causes), then prediction z'_i = f_i(causes') + u_i
        return encoder.predict(encoder.abduct(z), held).float()
