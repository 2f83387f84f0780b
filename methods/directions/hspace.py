"""Directions in h-space: class differences, PCA components, and their orthogonalisation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import even_batches
from latentbench.bounds import Count, Name, Positive, Share, Steps, above, at_most
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput, Incompatible, unknown
from latentbench.model import Convention, DiffusionModel
from latentbench.sampling.inversion import ddim_invert
from latentbench.sampling.linear import orthogonalise, pca
from latentbench.sampling.loop import Intervention, Recorder, Step, generate, plain
from latentbench.types import Batch, Capability, Direction, Edit, Latent, Space
from methods.directions.extremes import extreme_rows
from methods.directions.fit_images import refuse_too_few
from methods.directions.matching import match_components
from methods.directions.step_window import refuse_empty

FIT_BATCH = 32
ASYRP = "Diffusion Models already have a Semantic Latent Space, section 3"


class AddToLayer(Intervention):
    """Adds ``strength x v_t`` to a layer's map, in every branch of guidance alike.

    Args:
        layer: feature layer.
        direction: v, one tensor per step.
        strength: one number per row, signed.
        asymmetric: change x0 only, not the direction to x_t.
        window: share of the steps in which it is added.
    """

    def __init__(
        self,
        layer: str,
        direction: Float[Tensor, "n c h w"],
        strength: Float[Tensor, " b"],
        asymmetric: bool = False,
        window: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.layers, self.v, self.strength = (layer,), direction, strength
        self.asymmetric, self.window = asymmetric, window

    def features(self, step: Step, layer: str, h: Float[Tensor, "k b c h w"]) -> Tensor:
        """Return h_t + g v_t."""
        g = self.strength.to(h).reshape(1, -1, 1, 1, 1)
        return h + g * self.v[step.index].to(h)


class HSpaceDirections(Editor[DiffusionModel]):
    """A direction of the bottleneck activations, added at every sampling step.

    Source: "Discovering Interpretable Directions in the Semantic Latent Space of Diffusion
    Models". `supervised` (section on class differences): v = mean h of the n highest scored images
    minus mean h of the n lowest, per step; g = 1 is one class gap. `pca`: per step, the principal
    components of h with signs aligned to the first step; g = 1 is one standard deviation. A
    component is asked for by number, or by the label that it correlates most with. Labelled
    images are inverted by DDIM and h is recorded while they are decoded, under the empty prompt, as
    the source's models have none: a caption holds on to what it says. The change enters both terms
    of the step, as in the source; `asymmetric` is its option.
    Deviations: scores are the data set's labels; PCA is fitted on the same inverted images; eta is
    0.

    Args:
        variant: "supervised" or "pca".
        space: "bottleneck" (h_t), or "noise": the same class difference of x_T.
        steps: sampling steps; default: the model's.
        images: labelled images of the generators' split that are inverted, shared by attributes;
            the cell's seed chooses them.
        extremes: images on either side of a class difference.
        balance: attributes of whose two classes (above 1/2, or not) each side of a class difference
            holds equally many images.
        components: principal components that are kept.
        joint: one PCA of the maps of all steps together, in place of one PCA per step.
        tap: where h_t is read and changed: "after" the middle block, or "before" it.
        start: share of the steps after which the direction is added.
        stop: share of the steps up to which it is added.
        orthogonal: project each direction off those of all other attributes, or of these.
        asymmetric: change x0 only, not the direction to x_t (Asyrp); one more evaluation a step.
        convention: timestep that the network receives while inverting: "matched" as in the source's
            code, or "next" as in diffusers' DDIMInverseScheduler.
        max_strength: largest g of a benchmark's curve.

    Example:
        >>> editor = HSpaceDirections(images=256)  # editor.fit(data, edits); editor.edit(...)
    """

    paper = (
        "Discovering Interpretable Directions in the Semantic Latent Space of Diffusion Models, 4"
    )
    version = 2
    scope = "global"
    small: ClassVar[Mapping[str, Any]] = {"images": 8, "extremes": 3, "components": 3}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {"edit": frozenset({Capability.LABELS})}

    def __init__(
        self,
        *,
        variant: Literal["supervised", "pca"] = "supervised",
        space: Literal["bottleneck", "noise"] = "bottleneck",
        steps: Steps | None = None,
        images: Count = 96,
        extremes: Count = 32,
        balance: Sequence[Name] | None = None,
        components: Count = 16,
        joint: bool = False,
        tap: Literal["after", "before"] = "after",
        start: Share = 0.0,
        stop: Annotated[float, above(0), at_most(1)] = 1.0,
        orthogonal: bool | Sequence[Name] = False,
        asymmetric: bool = False,
        convention: Convention = "matched",
        max_strength: Positive = 6.0,
    ) -> None:
        if 2 * extremes > images:
            raise BadInput(f"{extremes} extremes on either side need {2 * extremes} images")
        if variant == "pca" and space == "noise":
            raise BadInput("variant pca works on space=bottleneck; x_T has no steps to align")
        if variant == "pca" and components > images - 2:
            raise BadInput(f"{components} components need {components + 2} images, got {images}")
        if extremes % 2 ** len(balance or ()):
            raise BadInput(
                f"{extremes} extremes cannot be balanced over {2 ** len(balance or ())} classes; "
                f"give a multiple"
            )
        refuse_empty(start, stop, None)
        self.variant, self.space, self.steps = variant, Space(space), steps
        self.images, self.extremes, self.balance = images, extremes, tuple(balance or ())
        self.components, self.joint, self.tap = components, joint, tap
        self.window, self.orthogonal, self.asymmetric = (start, stop), orthogonal, asymmetric
        self.convention: Convention = convention
        self.max_strength = max_strength
        self.directions_: dict[str, Direction] = {}

    @classmethod
    def paper_of(cls, config: Mapping[str, Any]) -> str:
        """Return the paper with what is taken from it, and Asyrp's for a step that is its."""
        differences = "class differences"
        if config.get("space") == "noise":
            differences = "class differences of x_T"
        part = "principal components" if config.get("variant") == "pca" else differences
        told = f"{super().paper_of(config)}, {part}"
        return f"{told}; step: {ASYRP}" if config.get("asymmetric") else told

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return what the configured space asks of the model; components need no labels."""
        spaces = frozenset({Space.NOISE, Space(config.get("space", "bottleneck"))})
        _, needs = super().required(verbs, config)
        return spaces, frozenset() if config.get("variant") == "pca" else needs

    @classmethod
    def directions(cls, config: Mapping[str, Any]) -> int:
        """Return the number of components; a class difference is no direction found by itself."""
        return int(config.get("components", 16)) if config.get("variant") == "pca" else 0

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a window without a step, more images than there are, and unknown attributes."""
        refuse_empty(*self.window, steps)
        refuse_too_few(self.images, data)
        for name in (*self.balance, *self._off(())):
            if name not in data.factor_names:
                raise unknown("attribute", name, data.factor_names)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn a direction per attribute that will be asked for, and all components."""
        names = sorted({e.attribute for e in edits if e.attribute is not None})
        learn = self._class_differences if self.variant == "supervised" else self._components
        if names or self.variant == "pca":
            self.load_state(learn(data, names))

    def state(self) -> dict[str, Tensor]:
        """Return the directions by name: attributes, and components by number."""
        return {name: direction.shift for name, direction in self.directions_.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take directions back."""
        unit = "class gap" if self.variant == "supervised" else "standard deviation"
        steps = self.model.grid(self.steps).n
        self.directions_ = {
            name: Direction(v.to(self.model.device), self.space, steps, unit)
            for name, v in state.items()
        }

    def invert(self, batch: Batch) -> Latent:
        """Return x_T under the empty prompt."""
        x = ddim_invert(self.model, batch, self.cache, steps=self.steps, convention=self.convention)
        return Latent({Space.NOISE: x})

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of x_T under the empty prompt."""
        return self._sample(latent.parts[Space.NOISE])

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images with the attribute's direction added at each strength."""
        x = self.invert(batch).parts[Space.NOISE].repeat_interleave(len(strengths), 0)
        v = self._direction(edit)
        g = edit.sign * strengths.to(x).repeat(len(batch))
        if self.space is Space.NOISE:
            images = self._sample(x + g.reshape(-1, 1, 1, 1) * v)
        else:
            images = self._sample(x, AddToLayer(self._layer(), v, g, self.asymmetric, self.window))
        return images.unflatten(0, (len(batch), len(strengths)))

    def _direction(self, edit: Edit) -> Tensor:
        name = edit.attribute if edit.component is None else _numbered(edit.component)
        if name not in self.directions_:
            known = ", ".join(self.directions_) or "none"
            raise BadInput(f"no direction for attribute {name!r}; fitted: {known}")
        return self.directions_[name].shift

    def _layer(self) -> str:
        """Return the feature layer that is read and changed."""
        middle = self.model.middle_layer()
        if middle is None:
            raise Incompatible(f"{type(self.model).__name__} has no middle block")
        return middle if self.tap == "after" else f"{middle}:input"

    def _sample(self, x: Tensor, *interventions: Intervention) -> Float[Tensor, "b 3 h w"]:
        """Return the images of x_T under the empty prompt."""
        return self.model.sample(
            Latent({Space.NOISE: x}), guidance=1.0, steps=self.steps, interventions=interventions
        )

    def _codes(self, data: Dataset, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return codes ``[images, n, c, h, w]`` (or x_T) and labels ``[images, names]``."""
        for name in names:
            if name not in data.factor_names:
                raise unknown("attribute", name, data.factor_names)
        columns = [data.factor_names.index(name) for name in names]
        chosen = self.streams.choice("fit/images", data.size("generator"), self.images)
        codes, labels = [], []
        for index, kept in even_batches(self.images, FIT_BATCH):
            batch = data.batch("generator", [chosen[k] for k in index])
            known = torch.zeros(len(batch), 0) if batch.factors is None else batch.factors
            codes.append(self._code(batch)[:kept])
            labels.append(known[:kept, columns])
        return torch.cat(codes), torch.cat(labels)

    def _code(self, batch: Batch) -> Tensor:
        x = self.invert(batch).parts[Space.NOISE]
        if self.space is Space.NOISE:
            return x
        layer, terms = self._layer(), plain(self.model.unconditional(len(x)))
        recorder, grid = Recorder(layers=[layer]), self.model.grid(self.steps)
        generate(self.model, x, terms, grid=grid, interventions=[recorder])
        return torch.stack([recorder.maps[layer][i] for i in range(grid.n)], 1)

    def _class_differences(self, data: Dataset, names: Sequence[str]) -> dict[str, Tensor]:
        """Return mean(q+) - mean(q-) of each attribute, without its part along others."""
        wanted = list(dict.fromkeys([*names, *self._off(names)]))
        every = list(dict.fromkeys([*wanted, *self.balance]))
        codes, labels = self._codes(data, every)
        found = {}
        for name in wanted:
            others = [every.index(other) for other in self.balance if other != name]
            low, high = extreme_rows(labels[:, every.index(name)], labels[:, others], self.extremes)
            found[name] = codes[high].mean(0) - codes[low].mean(0)
        return {name: self._projected(name, found, names) for name in names}

    def _components(self, data: Dataset, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the components by number, and those that go with an attribute by its name too."""
        every = list(dict.fromkeys([*names, *self._off(names)]))
        codes, labels = self._codes(data, every)
        v = self._joint(codes) if self.joint else self._per_step(codes)
        found = {_numbered(k): v[k].unflatten(-1, codes.shape[2:]) for k in range(len(v))}
        if not names:
            return found
        scores = torch.einsum("ntd,ktd->nk", (codes - codes.mean(0)).flatten(2), v)
        best, sign = match_components(scores, labels)
        named = {name: sign[a] * found[_numbered(int(best[a]))] for a, name in enumerate(every)}
        return found | {name: self._projected(name, named, names) for name in names}

    def _per_step(self, codes: Float[Tensor, "n t c h w"]) -> Float[Tensor, "k t d"]:
        """Return components of each step, a standard deviation long, signed as the first step's."""
        per_step = [pca(codes[:, t].flatten(1), self.components) for t in range(codes.shape[1])]
        u = torch.stack([components for components, _ in per_step], 1)
        s = torch.stack([deviations for _, deviations in per_step], 1)
        sign = (u[:, :1] * u).sum(-1).sign()
        return (sign * s)[..., None] * u

    def _joint(self, codes: Float[Tensor, "n t c h w"]) -> Float[Tensor, "k t d"]:
        """Return components of all steps together, a standard deviation long."""
        u, s = pca(codes.flatten(1), self.components)
        return (s[:, None] * u).unflatten(1, (codes.shape[1], -1))

    def _off(self, names: Sequence[str]) -> Sequence[str]:
        """Return the attributes that directions are projected off."""
        if isinstance(self.orthogonal, bool):
            return names if self.orthogonal else ()
        return self.orthogonal

    def _projected(self, name: str, found: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
        others = [found[other] for other in self._off(names) if other != name]
        return orthogonalise(found[name], torch.stack(others)) if others else found[name]


def _numbered(component: int) -> str:
    return f"component {component}"
