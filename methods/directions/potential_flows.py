"""Potential flows: paths of a code that follow the gradients of learned wave-like potentials."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from diffusers.models.embeddings import get_timestep_embedding
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from latentbench.bounds import Count, NotNegative, Positive, between
from latentbench.data.dataset import Dataset
from latentbench.models.push_forward import PushForward
from latentbench.types import Edit, Space
from methods.directions.vector_code import VectorCodeEditor

SPREAD = 256  # draws of the prior that tell mean and unit of the code
KERNELS = (16, 32, 64)  # channels of the classifier's convolutions


class PotentialFlows(VectorCodeEditor):
    """K potentials u_k(z, t); an edit flows along z' = z + grad u_k(z, t).

    Source: "Latent Traversals in Generative Models as Potential Flows", sections 3 and 4, for a
    given generator G. A step of the fit draws codes of the prior, one potential and one time. The
    flow runs T/2 steps; its potential shall obey a differential equation, with grad u = 0 at the
    start, and change the image as much as it can; a classifier R reads k off the images of two
    consecutive steps. The loss is w_class CE(R) + w_pde (|grad u(z, 0)|^2 + residual^2
    - |J_G grad u|^2), each a mean over all numbers. u_k is a network of hyperbolic tangents, of the
    code's width.

    - `wave`: u_tt = c_k^2 Laplacian(u), the equation of the paper.
    - `published`: what the published code computes in its place: the row sums of the Hessian, and
      u_tt summed over the batch.
    - `hj`: u_t + |grad u|^2 / 2 = 0, the later work's Hamilton-Jacobi equation.

    A potential is asked for by number. Strength counts steps; what is left of one is a shorter
    step. Negative strengths subtract the gradients from the same start, which is not the flow
    backwards. Deviations: the code is standardised by one number; the Laplacian is estimated by two
    independent random probes, whose residuals are multiplied, so that the square has no bias; R is
    three convolutions; all times but the last are drawn. Training of G along is not implemented.

    Args:
        count: K.
        timesteps: T, of which half is flowed.
        pde: see above.
        mirror: half of the pairs of images are those of the opposite side.
        batch: codes of one step.
        iterations: optimiser steps.
        learning_rate: of Adam.
        w_class: weight of R's loss.
        w_pde: weight of the rest.
        max_strength: largest number of steps of a benchmark's curve.

    Example:
        >>> editor = PotentialFlows(count=8)  # editor.fit(data, []); editor.edit(...)
    """

    paper = "Latent Traversals in Generative Models as Potential Flows, sections 3 and 4"
    numbered = True
    families = (PushForward,)
    measured = ("mean", "unit")
    small: ClassVar[Mapping[str, Any]] = {
        "count": 3, "timesteps": 6, "batch": 4, "iterations": 3, "learning_rate": 0.01,
    }  # fmt: skip

    def __init__(
        self,
        *,
        count: Annotated[int, between(2, 1000)] = 16,
        timesteps: Annotated[int, between(4, 1000)] = 10,
        pde: Literal["wave", "published", "hj"] = "wave",
        mirror: bool = True,
        batch: Count = 32,
        iterations: Annotated[int, between(0, 1_000_000)] = 1000,
        learning_rate: Positive = 0.001,
        w_class: NotNegative = 1.0,
        w_pde: NotNegative = 1.0,
        max_strength: Positive = 5.0,
    ) -> None:
        self.count, self.timesteps, self.mirror = count, timesteps, mirror
        self.pde: Literal["wave", "published", "hj"] = pde
        self.batch, self.iterations, self.learning_rate = batch, iterations, learning_rate
        self.w_class, self.w_pde, self.max_strength = w_class, w_pde, max_strength
        self.learned_ = {}  # the potentials' weights, and mean and unit of the code

    @classmethod
    def directions(cls, config: Mapping[str, Any]) -> int:
        """Return K."""
        return int(config.get("count", 16))

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn all potentials together with the classifier that tells them apart."""
        with torch.no_grad():
            codes = self._prior("spread", SPREAD)
        mean = codes.mean(0)
        unit = (codes - mean).square().mean().sqrt().clamp(min=1e-6)[None]
        u, reader = self._potentials(codes.shape[1]), self._reader()
        tensors = {**u, **{f"reader/{k}": p for k, p in reader.named_parameters()}}
        for tensor in tensors.values():
            tensor.requires_grad_()
        adam = torch.optim.Adam(tensors.values(), self.learning_rate)
        for step in self.fitting.steps("potential_flows", self.iterations, tensors, adam):
            adam.zero_grad()
            self._loss(u, reader, mean, unit, step).backward()
            adam.step()
        self.learned_ = {k: v.detach() for k, v in u.items()} | {"mean": mean, "unit": unit}

    def moved(
        self, code: Float[Tensor, "r d"], edit: Edit, strength: Float[Tensor, " r"]
    ) -> Float[Tensor, "r d"]:
        """Return the codes at the end of each flow."""
        k = self.number(edit, len(self.learned_.get("c", ())))
        mean, unit = self.learned_["mean"], self.learned_["unit"]
        z, sign, left = (code - mean) / unit, strength.sign(), strength.abs()
        for t in range(int(torch.ceil(left.max()))):
            step = (left - t).clamp(0, 1) * sign
            z = z + step[:, None] * _gradient(self.learned_, k, z, float(t)).detach()
        return mean + unit * z

    def _loss(
        self,
        u: dict[str, Tensor],
        reader: nn.Module,
        mean: Float[Tensor, " d"],
        unit: Float[Tensor, " 1"],
        step: int,
    ) -> Float[Tensor, ""]:
        """Return the loss of one potential at one time."""
        draw, half = f"potential_flows/{step}", self.timesteps // 2
        drawn = self.streams.generator(draw)
        k = int(torch.randint(self.count, (), generator=drawn))
        tau = int(torch.randint(half - 1, (), generator=drawn))
        mirrored = self.mirror and bool(torch.rand((), generator=drawn) < 0.5)
        z = start = ((self._prior(draw, self.batch) - mean) / unit).detach()
        loss, first, change = _gradient(u, k, z, 0.0).square().mean(), z, z
        for t in range(half):
            probes = torch.randint(2, (2, *z.shape), generator=drawn).to(z) * 2 - 1
            loss = loss + residual(u, k, z, float(t), self.pde, probes) / half
            if t == tau:
                first = z + _gradient(u, k, z, float(t))
                change = _gradient(u, k, first, t + 1.0)
            z = z + _gradient(u, k, z, float(t))

        def image(at: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 h w"]:
            return self.model.decode(mean + unit * at)

        moves = torch.func.jvp(image, (first,), (change,))[1]
        loss = loss - moves.square().mean()
        ends = (first, first + change)
        if mirrored:
            ends = (2 * start - ends[1], 2 * start - ends[0])
        told = reader(torch.cat([image(end) for end in ends], 1))
        goal = torch.full((len(told),), k, device=told.device)
        return self.w_class * cross_entropy(told, goal) + self.w_pde * loss

    def _prior(self, draw: str, count: int) -> Float[Tensor, "n d"]:
        """Return codes of the model's prior."""
        ids = [f"{draw}/{k}" for k in range(count)]
        return self.model.push(self.model.prior(self.streams, ids).parts[Space.NOISE]).detach()

    def _potentials(self, size: int) -> dict[str, Tensor]:
        """Return all potentials' weights by layer ``[k, ...]``, uniform up to 1 / sqrt(fan-in)."""
        shapes = {"code": (size, size), "time": (size, size), "time2": (size, size),
                  "hidden": (size, size), "out": (1, size)}  # fmt: skip
        found = {"c": torch.ones(self.count, 1)}
        for name, (writes, reads) in shapes.items():
            for key, shape in (("weight", (writes, reads)), ("bias", (writes,))):
                drawn = self.streams.generator(f"potential_flows/{name}/{key}")
                draws = 2 * torch.rand(self.count, *shape, generator=drawn) - 1
                found[f"{name}/{key}"] = reads**-0.5 * draws
        return {name: value.to(self.model.device) for name, value in found.items()}

    def _reader(self) -> nn.Sequential:
        """Return the classifier R of pairs of images, filled from the cell's streams."""
        layers: list[nn.Module] = []
        with torch.device("meta"):
            for reads, writes in zip((6, *KERNELS), KERNELS, strict=False):
                layers += [nn.Conv2d(reads, writes, 3, 2, 1), nn.ReLU()]
            layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten()]
            layers += [nn.Linear(16 * KERNELS[-1], self.count)]
        reader = nn.Sequential(*layers).to_empty(device=self.model.device)
        for name, p in reader.named_parameters():
            drawn = self.streams.generator(f"potential_flows/reader/{name}")
            reach = 1 if p.dim() == 1 else p[0].numel() ** -0.5
            p.data = (reach * (2 * torch.rand(p.shape, generator=drawn) - 1)).to(p.device)
        return reader


def potential(
    u: Mapping[str, Tensor], k: int, z: Float[Tensor, "b d"], t: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Return u_k(z, t).

    Args:
        u: weights by layer, one per potential along the first axis.
        k: number of the potential.
        z: standardised codes.
        t: times, one per code.
    """

    def layer(name: str, x: Tensor) -> Tensor:
        return x @ u[f"{name}/weight"][k].T + u[f"{name}/bias"][k]

    wave = get_timestep_embedding(t, z.shape[1]).to(z)
    inner = layer("code", z).tanh() + layer("time2", gelu(layer("time", wave)))
    return layer("out", layer("hidden", inner).tanh()).tanh()[:, 0]


def residual(
    u: Mapping[str, Tensor],
    k: int,
    z: Float[Tensor, "b d"],
    t: float,
    pde: Literal["wave", "published", "hj"],
    probes: Float[Tensor, "2 b d"],
) -> Float[Tensor, ""]:
    """Return the mean squared residual of the potential's equation, differentiable in its weights.

    Args:
        u: see `potential`.
        k: see `potential`.
        z: see `potential`.
        t: time.
        pde: which equation; see `PotentialFlows`.
        probes: two independent draws of random signs, for the Laplacian.
    """
    if not z.requires_grad:
        z = z.detach().requires_grad_()
    times = z.new_full((len(z),), t).requires_grad_()
    with torch.enable_grad():
        value = potential(u, k, z, times).sum()
        u_t, grad = torch.autograd.grad(value, (times, z), create_graph=True)
        if pde == "hj":
            return (u_t + grad.square().sum(1) / 2).square().mean()
        (u_tt,) = torch.autograd.grad(u_t.sum(), times, create_graph=True)
        c2 = u["c"][k].square()
        if pde == "published":
            (rows,) = torch.autograd.grad(grad.sum(), z, create_graph=True)
            return (u_tt.sum() - c2 * rows).square().mean()
        first, second = (
            u_tt - c2 * (p * torch.autograd.grad((grad * p).sum(), z, create_graph=True)[0]).sum(1)
            for p in probes
        )
        return (first * second).mean()


def _gradient(
    u: Mapping[str, Tensor], k: int, z: Float[Tensor, "b d"], t: float
) -> Float[Tensor, "b d"]:
    """Return grad u_k(z, t), differentiable in the weights and in z."""
    with torch.enable_grad():
        at = z if z.requires_grad else z.detach().requires_grad_()
        value = potential(u, k, at, z.new_full((len(z),), t)).sum()
        return torch.autograd.grad(value, at, create_graph=True)[0]
