"""BoundaryDiffusion: one step across the boundaries of linear classifiers, at the mixing step."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.svm import SVC
from torch import Tensor

from latentbench.batching import even_batches
from latentbench.bounds import Positive, Share, Steps, above, below, between
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput, unknown
from latentbench.model import Convention, DiffusionModel
from latentbench.sampling.inversion import ddim_trajectory
from latentbench.sampling.loop import Intervention, Recorder, Step, denoise, generate, plain
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.fit_images import refuse_one_sided, refuse_too_few

FIT_BATCH = 32
HELD_OUT = 4  # one image in so many tells how well a boundary separates others
NORMAL, EXTREMES, ACCURACY = "normal", "extremes", "accuracy"


class ReplaceBottleneck(Intervention):
    """Puts h' in the place of h, in the first of the steps that are made.

    Args:
        h: h' of each row.
        first: index of that step.
    """

    def __init__(self, h: Float[Tensor, "b ..."], first: int) -> None:
        self.h, self.first = h, first

    def active(self, step: Step) -> bool:
        """Return whether this is the first step."""
        return step.index == self.first

    def bottleneck(self, step: Step, h: Float[Tensor, "k b ..."]) -> Float[Tensor, "k b ..."]:
        """Return h'."""
        return self.h.to(h).expand_as(h)


class BoundaryDiffusion(Editor[DiffusionModel]):
    """Moves x and h of one step along the normals of linear classifiers of the attribute.

    Source: "Boundary Guided Learning-Free Semantic Control with Diffusion Models", section 3:
    x' = x + (d - n.x) n and h' = h + (d - n.h) n at the mixing step t_m; n is the unit normal of a
    linear support vector machine (C = 1) on labelled, inverted images. The first step replaces h by
    h', all further ones run on, by default stochastic (eta 1) as published.

    Strength s moves an image's own coordinate n.x the share s of the way to an extreme d that is
    the same for all images: 0 is the reconstruction, 1 the end of the published sweep. For x the
    extreme is `reach` times the root of the dimension (150 of 443 for the source's models), for h
    it is `reach_h` standard deviations from the mean of n.h over the labelled images.
    Deviations: h is read at t_m, where it is put in, and is replaced in one step alone (in the
    published code every further step gets the one before it); the mixing step is a setting, as no
    search for it was published.

    Args:
        images: labelled images of the generators' split; the cell's seed chooses them.
        mixing: t_m as a share of the schedule.
        spaces: "both", "x" or "h".
        eta: of the steps from t_m on.
        reach: extreme of x, in roots of its dimension.
        reach_h: extreme of h, in standard deviations.
        convention: timestep that the network receives while inverting.
        steps: sampling steps of the whole schedule; default: the model's.
        max_strength: largest s of a benchmark's curve.

    Example:
        >>> editor = BoundaryDiffusion(images=64)  # editor.fit(data, edits); editor.edit(...)
    """

    paper = "Boundary Guided Learning-Free Semantic Control with Diffusion Models, section 3"
    scope = "global"
    small: ClassVar[Mapping[str, Any]] = {"images": 16}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {  # what a fit works in
        verb: frozenset({Space.NOISE, Space.NOISE_MAPS, Space.BOTTLENECK})
        for verb in ("invert", "edit")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {"edit": frozenset({Capability.LABELS})}

    def __init__(
        self,
        *,
        images: Annotated[int, between(8, 1_000_000)] = 96,
        mixing: Annotated[Share, above(0), below(1)] = 0.5,
        spaces: Literal["both", "x", "h"] = "both",
        eta: Share = 1.0,
        reach: Positive = 0.34,
        reach_h: Positive = 2.5,
        convention: Convention = "matched",
        steps: Steps | None = None,
        max_strength: Positive = 1.0,
    ) -> None:
        self.images, self.mixing, self.eta = images, mixing, eta
        self.spaces = ("x", "h") if spaces == "both" else (spaces,)
        self.reach, self.reach_h, self.steps = reach, reach_h, steps
        self.convention: Convention = convention
        self.max_strength = max_strength
        self.boundaries_: dict[str, Tensor] = {}

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more images than there are, and a mixing step at either end."""
        refuse_too_few(self.images, data)
        if steps is not None and not 0 < round((1 - self.mixing) * steps) < steps:
            raise BadInput(
                f"method.mixing={self.mixing:g} is an end of the {steps} sampling steps; give a "
                f"share nearer to .5, or more steps"
            )

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Fit a boundary in each space for every attribute that will be asked for.

        Raises:
            BadInput: an unknown attribute, or one that too few or too many of the images show.
        """
        names = sorted({e.attribute for e in edits if e.attribute is not None})
        if not names:
            return
        for name in names:
            if name not in data.factor_names:
                raise unknown("attribute", name, data.factor_names)
        codes, labels = self._codes(data, [data.factor_names.index(name) for name in names])
        self.boundaries_ = {}
        for a, name in enumerate(names):
            shown = labels[:, a] > 0.5
            refuse_one_sided(name, shown)
            for space in self.spaces:
                for key, value in self._boundary(space, codes[space], shown).items():
                    self.boundaries_[f"{name}/{space}/{key}"] = value

    def state(self) -> dict[str, Tensor]:
        """Return normals, extremes and held-out accuracies, "attribute/space/what"."""
        return self.boundaries_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take them back."""
        self.boundaries_ = {name: value.to(self.model.device) for name, value in state.items()}

    def invert(self, batch: Batch) -> Latent:
        """Return x at the mixing step, and the noise of the stochastic steps."""
        m, n = self._level(), self.model.grid(self.steps).n
        x = self._trajectory(batch)[:, m]
        ids = [f"{name}/{i}" for name in batch.ids for i in range(m, n)]
        z = self.streams.normal("boundary_diffusion/eta", ids, x.shape[1:], x.device)
        return Latent({Space.NOISE: x, Space.NOISE_MAPS: z.unflatten(0, (len(x), n - m))}, start=m)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of a code."""
        return self._sample(latent)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images moved the share of each strength towards the attribute's extreme."""
        count, latent = len(strengths), self.invert(batch)
        x, z = (latent.parts[space] for space in (Space.NOISE, Space.NOISE_MAPS))
        share, changes = strengths.to(x).repeat(len(batch)), []
        if "h" in self.spaces:
            h = self._bottleneck(x).repeat_interleave(count, 0)
            moved = self._moved("h", edit, h, share)
            changes.append(ReplaceBottleneck(moved, self._level()))
        x = x.repeat_interleave(count, 0)
        if "x" in self.spaces:
            x = self._moved("x", edit, x, share)
        rows = {Space.NOISE: x, Space.NOISE_MAPS: z.repeat_interleave(count, 0)}
        return self._sample(Latent(rows, start=latent.start), *changes).unflatten(
            0, (len(batch), count)
        )

    def _moved(self, space: str, edit: Edit, code: Tensor, share: Float[Tensor, " b"]) -> Tensor:
        """Return code + s (d - n.code) n."""
        names = sorted({name.partition("/")[0] for name in self.boundaries_})
        if edit.attribute not in names:
            raise unknown("attribute", str(edit.attribute), names)
        n = self.boundaries_[f"{edit.attribute}/{space}/{NORMAL}"].to(code)
        low, high = self.boundaries_[f"{edit.attribute}/{space}/{EXTREMES}"].to(code)
        own = (code.flatten(1) * n).sum(1)  # row by row: bytes do not depend on the neighbours
        shift = share * ((high if edit.sign > 0 else low) - own)
        return code + (shift[:, None] * n).reshape(code.shape)

    def _boundary(
        self, space: str, codes: Float[Tensor, "n ..."], shown: Bool[Tensor, " n"]
    ) -> dict[str, Tensor]:
        """Return the unit normal, both extremes and the accuracy on images left out."""
        rows = codes.flatten(1).double().numpy()
        n, _ = linear_boundary(rows, shown.numpy())
        test = np.arange(len(rows)) % HELD_OUT == 0
        if len(set(shown.numpy()[~test])) == 2:
            normal, offset = linear_boundary(rows[~test], shown.numpy()[~test])
            right = ((rows[test] @ normal + offset > 0) == shown.numpy()[test]).mean()
        else:
            right = float("nan")
        along = rows @ n
        if space == "x":
            extremes = self.reach * rows.shape[1] ** 0.5 * np.array([-1.0, 1.0])
        else:
            extremes = along.mean() + self.reach_h * along.std() * np.array([-1.0, 1.0])
        values = {NORMAL: n, EXTREMES: extremes, ACCURACY: np.array([right])}
        return {k: torch.from_numpy(v).float().to(self.model.device) for k, v in values.items()}

    def _codes(self, data: Dataset, columns: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        """Return x and h at the mixing step ``[images, ...]`` and labels ``[images, names]``."""
        chosen = self.streams.choice("fit/images", data.size("generator"), self.images)
        found: dict[str, list[Tensor]] = {"x": [], "h": []}
        labels = []
        with torch.no_grad():
            for index, kept in even_batches(self.images, FIT_BATCH):
                batch = data.batch("generator", [chosen[k] for k in index])
                assert batch.factors is not None
                x = self._trajectory(batch)[:, self._level()]
                found["x"].append(x[:kept].cpu())
                if "h" in self.spaces:
                    found["h"].append(self._bottleneck(x)[:kept].cpu())
                labels.append(batch.factors[:kept, list(columns)])
        return {k: torch.cat(v) for k, v in found.items() if v}, torch.cat(labels)

    def _bottleneck(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Return h of x at the mixing step."""
        recorder, grid = Recorder(bottleneck=True), self.model.grid(self.steps)
        terms, level = plain(self.model.unconditional(len(x))), self._level()
        denoise(self.model, x, terms, grid=grid, level=level, interventions=[recorder])
        return recorder.h[level]

    def _trajectory(self, batch: Batch) -> Float[Tensor, "b l ..."]:
        settings = {"steps": self.steps, "convention": self.convention}
        return ddim_trajectory(self.model, batch, self.cache, **settings)

    def _sample(self, latent: Latent, *interventions: Intervention) -> Float[Tensor, "b 3 h w"]:
        x, z = latent.parts[Space.NOISE], latent.parts[Space.NOISE_MAPS]
        found = generate(
            self.model,
            x,
            plain(self.model.unconditional(len(x))),
            grid=self.model.grid(self.steps),
            start=latent.start,
            eta=self.eta,
            noise=lambda i: z[:, i - latent.start],
            interventions=interventions,
        )
        return self.model.decode(found)

    def _level(self) -> int:
        return round((1 - self.mixing) * self.model.grid(self.steps).n)


def linear_boundary(rows: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, float]:
    """Return unit normal and offset of a linear support vector machine (C = 1, hinge loss).

    Solved on the inner products of the rows, of which there are fewer than dimensions.

    Example:
        >>> rows, shown = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([False, True])
        >>> linear_boundary(rows, shown)[0].tolist()
        [1.0, 0.0]
    """
    svm = SVC(C=1.0, kernel="precomputed", random_state=0)  # None draws from numpy's generator
    machine = svm.fit(rows @ rows.T, shown)
    weight = machine.dual_coef_[0] @ rows[machine.support_]
    size = np.linalg.norm(weight)
    return weight / size, float(machine.intercept_[0] / size)
