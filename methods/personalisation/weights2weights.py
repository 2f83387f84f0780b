"""weights2weights: a linear space of adapters, in which a point is a model of one person."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentbench.bounds import Count, Guidance, Positive, SetSize, Share, Steps, below, between
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput, unknown
from latentbench.model import Condition, DiffusionModel, LowRank
from latentbench.parameterization import prediction_error
from latentbench.sampling.loop import (
    captioned,
    denoise,
    generate,
    guided,
    invert,
    noise_to_level,
    plain,
)
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.adapters import Adapted, first_down, layers_of
from methods.directions.fit_images import refuse_one_sided, refuse_too_few
from methods.directions.step_window import refuse_empty
from methods.personalisation.learned_subject import captions_of, without_subject

LAYERS = (".to_q", ".to_v")
FLAT = 1e-6  # of its size, the deviation of a weight that is the same in all adapters
LEAST = 1e-8  # standard deviation that a weight is divided by


class Weights2Weights(Editor[DiffusionModel]):
    """Edits and learns people as coefficients of principal components of fine-tuned weights.

    Source: "Interpreting the Weight Space of Customized Diffusion Models", sections 3 and 4. N
    people have one low-rank adapter each, all from the same start; theta_i, its weights in a row,
    are standardised and have components V, so that theta(beta) = mean + std (V beta). An attribute
    has the direction n = pinv(P) y, with P the people's coefficients and y their centred labels; a
    strength of 1 is the largest projection of a person on n. An image's beta is the one whose
    model denoises it best, without weights being trained.

    An edit inverts the image into x_T under its own model theta(beta), and samples under
    theta(beta + strength n). `personalise` finds one beta of all references, and draws prompts
    without the subject's word, for which the weights stand.

    Deviations: a person is one image, so that pose and light are part of the code; the prompt is
    empty and has no identifier, so that there are no class images to keep; people are trained side
    by side in one network call, on the same levels and noises; levels are of the sampler's grid;
    beta is learned in units of each coefficient's spread; no mask, no crops, one attribute is not
    taken out of another.

    Args:
        people: N, images of the generators' split; the cell's seed chooses them.
        batch: people of one network call.
        rank: of each adapter.
        scale: factor on each adapter's product.
        iterations: optimiser steps of the adapters.
        learning_rate: of Adam, for the adapters.
        components: m, below N.
        named: components that directions of attributes are made of.
        code_iterations: optimiser steps of a beta.
        code_rate: of Adam, for a beta.
        start: share of the steps after which an edit acts.
        guidance: of `personalise`; default: the model's.
        steps: sampling steps; default: the model's.
        max_strength: largest strength of a benchmark's curve.

    Raises:
        BadInput: no fewer components than people, or more named ones than components.

    Example:
        >>> editor = Weights2Weights(people=100)  # editor.fit(data, edits); editor.edit(...)
    """

    paper = "Interpreting the Weight Space of Customized Diffusion Models, sections 3 and 4"
    version = 2
    scope = "global"
    small: ClassVar[Mapping[str, Any]] = {
        "people": 6, "batch": 6, "iterations": 4, "learning_rate": 0.05, "components": 4,
        "named": 3, "code_iterations": 8, "code_rate": 1.0,
    }  # fmt: skip
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE, Space.WEIGHTS}),
        "edit": frozenset({Space.NOISE, Space.WEIGHTS}),
        "personalise": frozenset({Space.NOISE, Space.WEIGHTS, Space.TEXT}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.LABELS}),
        "personalise": frozenset({Capability.REFERENCES, Capability.PROMPTS}),
    }

    def __init__(
        self,
        *,
        people: SetSize = 48,
        batch: Count = 48,
        rank: Annotated[int, between(1, 1024)] = 1,
        scale: Positive = 8.0,
        iterations: Count = 100,
        learning_rate: Positive = 0.001,
        components: Count = 32,
        named: Count = 16,
        code_iterations: Count = 60,
        code_rate: Positive = 0.1,
        start: Annotated[Share, below(1)] = 0.0,
        guidance: Guidance | None = None,
        steps: Steps | None = None,
        max_strength: Positive = 1.0,
    ) -> None:
        if components >= people:
            raise BadInput(f"components {components} must be below people {people}")
        if named > components:
            raise BadInput(f"named {named} is more than there are components: {components}")
        self.people, self.batch, self.rank, self.scale = people, batch, rank, scale
        self.iterations, self.learning_rate = iterations, learning_rate
        self.components, self.named = components, named
        self.code_iterations, self.code_rate = code_iterations, code_rate
        self.start, self.guidance, self.steps = start, guidance, steps
        self.max_strength = max_strength
        self.space_: dict[str, Tensor] = {}
        self.directions_: dict[str, Tensor] = {}

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more people than there are images, and a start after the last step."""
        refuse_too_few(self.people, data, "people")
        refuse_empty(self.start, 1.0, steps)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Train all adapters, and find the components and the attributes' directions.

        Raises:
            BadInput: an edit without an attribute, or one that all or no people have.
        """
        chosen = self.streams.choice("fit/images", data.size("generator"), self.people)
        labels = {edit.name: self._labels(data, chosen, edit) for edit in edits}
        thetas = self._trained(data, chosen)
        X, mean, std = standardised(thetas)
        _, _, V = torch.linalg.svd(X, full_matrices=False)
        V = V[: self.components]
        P = X @ V.T
        self.directions_ = {}
        self.space_ = {"mean": mean, "std": std, "V": V, "spread": P.std(0)}
        for name, y in labels.items():
            n = torch.linalg.pinv(P[:, : self.named]) @ y.to(P)
            n = n / n.norm()
            largest = (P[:, : self.named] @ n).abs().max()
            direction = torch.nn.functional.pad(largest * n, (0, self.components - self.named))
            self.directions_[name] = direction

    def state(self) -> dict[str, Tensor]:
        """Return the space and the directions of attributes."""
        return self.space_ | {f"direction/{k}": v for k, v in self.directions_.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take them back."""
        own = {name: value.to(self.model.device) for name, value in state.items()}
        self.directions_ = {k.removeprefix("direction/"): own.pop(k) for k in state if "/" in k}
        self.space_ = own

    def invert(self, batch: Batch) -> Latent:
        """Return each image's beta, and its x_T under the model of that beta."""
        key = content_hash(self._known(), batch.ids, batch.images, self.steps)
        made = self.remembered(key, batch.ids, lambda: self._inverted(batch))
        found = {k: v.to(self.model.device) for k, v in made.items()}
        return Latent({Space.NOISE: found["noise"], Space.WEIGHTS: found["beta"]})

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of each x_T under the model of its beta."""
        return self._sampled(latent, latent.parts[Space.WEIGHTS])

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images under moved models."""
        if edit.name not in self.directions_:
            raise unknown("edit", edit.name, self.directions_)
        s = len(strengths)
        latent = self.invert(batch)
        parts = {k: v.repeat_interleave(s, 0) for k, v in latent.parts.items()}
        a = strengths.to(parts[Space.WEIGHTS]).repeat(len(batch))[:, None]
        moved = parts[Space.WEIGHTS] + a * self.directions_[edit.name]
        return self._sampled(Latent(parts), moved).unflatten(0, (len(batch), s))

    def personalise(
        self, references: Batch, ids: Sequence[str], prompts: Sequence[str]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id of the person whom the references show."""
        model, captions = self.model, captions_of(references)
        told = captioned(model, [without_subject(c) for c in captions])
        key = content_hash(self._known(), references.ids, references.images, told.tensors)
        one = torch.zeros(len(references), dtype=torch.long, device=model.device)

        def learn() -> dict[str, Tensor]:
            return {"beta": self.coded(references, told, one)}

        beta = self.remembered(key, references.ids, learn)["beta"].to(model.device)
        condition = captioned(model, [without_subject(p) for p in prompts])
        guidance = model.guidance if self.guidance is None else self.guidance
        terms = guided(condition, model.unconditional(len(prompts)), guidance)
        x = model.prior(self.streams, ids).parts[Space.NOISE]
        change = Adapted(self.adapters(beta))
        grid = model.grid(self.steps)
        return model.decode(generate(model, x, terms, grid=grid, interventions=[change]))

    def coded(
        self, batch: Batch, condition: Condition, owner: Int[Tensor, " b"]
    ) -> Float[Tensor, "p m"]:
        """Return the beta whose model denoises the images of each owner best.

        Args:
            batch: images.
            condition: what the network receives, one row per image.
            owner: number of the person whom each image shows, 0 and up.
        """
        self._refuse_unfitted()
        model = self.model
        z0, spread = model.encode(batch.images), self.space_["spread"]
        people = int(owner.max()) + 1
        with torch.enable_grad():
            u = torch.zeros(people, len(spread), device=z0.device, requires_grad=True)
            adam = torch.optim.Adam([u], self.code_rate)
            for step in range(self.code_iterations):
                change = self.adapters((spread * u)[owner])
                adam.zero_grad()
                draw = f"weights2weights/code/{step}"
                self.losses(z0, batch.ids, change, condition, draw).sum().backward()
                adam.step()
        return spread * u.detach()

    def losses(
        self,
        z0: Float[Tensor, "b ..."],
        ids: Sequence[str],
        change: Mapping[str, LowRank],
        condition: Condition,
        draw: str,
    ) -> Float[Tensor, " b"]:
        """Return each row's mean squared error at one level, under weights of its own.

        That of what the network predicts.
        """
        model, grid = self.model, self.model.grid(self.steps)
        level = int(torch.randint(grid.n, (), generator=self.streams.generator(draw, "level")))
        eps = self.streams.normal(f"{draw}/noise", ids, z0.shape[1:], z0.device)
        x = noise_to_level(grid, z0, eps, level)
        at = {"grid": grid, "level": level, "interventions": [Adapted(change)]}
        found, levels = denoise(model, x, plain(condition), **at), grid.levels(level, z0)
        error = prediction_error(model.prediction_type, found, (z0, eps), *levels)
        return error.square().flatten(1).mean(1)

    def adapters(self, beta: Float[Tensor, "b m"]) -> dict[str, LowRank]:
        """Return the model of each beta, as changes of the plain one."""
        theta = self.space_["mean"] + self.space_["std"] * (beta @ self.space_["V"])
        return self._unpacked(theta)

    def _unpacked(self, theta: Float[Tensor, "b d"]) -> dict[str, LowRank]:
        """Return adapters from rows of weights: layers by name, down before up."""
        found, place, r = {}, 0, self.rank
        for name, (width, out) in sorted(layers_of(self.model, LAYERS).items()):
            down = theta[:, place : place + r * width].unflatten(1, (r, width))
            place += r * width
            up = theta[:, place : place + out * r].unflatten(1, (out, r))
            place += out * r
            found[name] = LowRank(down, self.scale / r * up)
        return found

    def _trained(self, data: Dataset, chosen: Sequence[int]) -> Float[Tensor, "n d"]:
        """Return the weights of one adapter per person, a row each."""
        model, count = self.model, len(chosen)
        parts = [chosen[k : k + self.batch] for k in range(0, count, self.batch)]
        with torch.no_grad():
            encoded = [model.encode(data.batch("generator", part).images) for part in parts]
        theta = self._first().expand(count, -1).clone().to(model.device).requires_grad_()
        adam = torch.optim.Adam([theta], self.learning_rate)
        for step in self.fitting.steps("weights2weights", self.iterations, {"theta": theta}, adam):
            adam.zero_grad()
            for k, z0 in enumerate(encoded):
                own = theta[k * self.batch : k * self.batch + len(z0)]
                alike = ("all",) * len(z0)  # who has a row decides nothing but the image
                told = model.unconditional(len(z0))
                draw = f"weights2weights/{step}"
                self.losses(z0, alike, self._unpacked(own), told, draw).sum().backward()
            adam.step()
        return theta.detach()

    def _first(self) -> Float[Tensor, " d"]:
        """Return the weights that every adapter starts from; they change nothing."""
        layers = dict(sorted(layers_of(self.model, LAYERS).items()))
        down = first_down(layers, 1, self.rank, self.streams, "weights2weights/down")
        pairs = [
            (down[n].flatten(), torch.zeros(out * self.rank)) for n, (_, out) in layers.items()
        ]
        return torch.cat([part for pair in pairs for part in pair])

    def _labels(self, data: Dataset, chosen: Sequence[int], edit: Edit) -> Float[Tensor, " n"]:
        """Return centred labels of an edit's attribute, with the edit's sign."""
        known = data.describe("generator", chosen).factors
        if edit.attribute is None or known is None:
            raise BadInput(
                f"edit {edit.name!r} names no attribute whose labels weights2weights could learn "
                f"from; take benchmark=attribute_editing"
            )
        shown = known[:, data.factor_names.index(edit.attribute)] > 0.5
        refuse_one_sided(edit.attribute, shown, "people")
        return edit.sign * (shown.float() - shown.float().mean())

    def _inverted(self, batch: Batch) -> dict[str, Tensor]:
        model, b = self.model, len(batch)
        condition = model.unconditional(b)
        beta = self.coded(batch, condition, torch.arange(b, device=model.device))
        change = Adapted(self.adapters(beta))
        x = invert(
            model, model.encode(batch.images), plain(condition), grid=model.grid(self.steps),
            interventions=[change],
        )  # fmt: skip
        return {"noise": x, "beta": beta}

    def _sampled(self, latent: Latent, moved: Float[Tensor, "b m"]) -> Float[Tensor, "b 3 h w"]:
        """Return images under models that are moved once the edit acts."""
        early = Adapted(self.adapters(latent.parts[Space.WEIGHTS]), (0.0, self.start))
        late = Adapted(self.adapters(moved), (self.start, 1.0))
        noise = Latent({Space.NOISE: latent.parts[Space.NOISE]})
        return self.model.sample(noise, guidance=1.0, steps=self.steps, interventions=[early, late])

    def _known(self) -> str:
        """Return what decides a beta, besides images."""
        self._refuse_unfitted()
        settings = (self.code_iterations, self.code_rate, self.steps, self.streams.seed)
        known = (type(self).__name__, self.version, self.model.fingerprint())
        return content_hash(*known, self.space_, self.scale, *settings)

    def _refuse_unfitted(self) -> None:
        if not self.space_:
            raise BadInput("weights2weights has learned nothing yet; call fit, or load_state")


def standardised(
    thetas: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return weights in standard deviations from their mean, the mean and the deviations.

    A weight that is the same in all rows stays at 0: what the mean's rounding leaves of it is no
    difference between people.

    Example:
        >>> standardised(torch.tensor([[0.1, 1.0], [0.1, 3.0], [0.1, 2.0]]))[0].tolist()
        [[0.0, -1.0], [0.0, 1.0], [0.0, 0.0]]
    """
    mean, std = thetas.mean(0), thetas.std(0)
    flat = std <= FLAT * mean.abs()
    std = std.clamp(min=LEAST)
    return ((thetas - mean) / std).masked_fill(flat, 0.0), mean, std
