"""Tiny parts that behave, misbehave or take their time, as the test asks."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch

from latentbench.benchmark import Benchmark
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import Incompatible
from latentbench.metric import Figure, SampleMetric
from latentbench.model import Evaluations, LatentModel
from latentbench.types import Batch, Capability, Edit, Latent, Samples, Space

SIZE = 8


class Waves(LatentModel):
    """A linear model: the latent is the image; every use counts as an evaluation."""

    spaces = frozenset({Space.NOISE})

    def __init__(self, *, scale: float = 1.0, device: str = "cpu"):
        self.scale, self.device = scale, torch.device(device)
        self.image_size, self.latent_shape = SIZE, (3, SIZE, SIZE)
        self.evaluations = Evaluations()
        print("loading Waves", flush=True)

    def encode(self, images):
        self.evaluations.forward += len(images)
        return images / self.scale

    def decode(self, latent):
        self.evaluations.forward += len(latent)
        return latent * self.scale

    def sample(self, latent, **options):
        return self.decode(latent.parts[Space.NOISE])

    def fingerprint(self):
        return f"waves-{self.scale}"


class Doubled(Waves):
    """Another class of models, for cells with two."""

    def __init__(self, *, scale: float = 2.0, device: str = "cpu"):
        super().__init__(scale=scale, device=device)


class Stripes(Dataset):
    """Random images, a function of split and index."""

    gives = frozenset({Capability.LABELS})
    factor_names = attributes = ("bright",)

    def __init__(self, *, size: int | None = None):
        self.image_size = size

    def size(self, split):
        return 1000

    def batch(self, split, indices):
        ids = tuple(f"{split}/{k}" for k in indices)
        rows = [torch.Generator().manual_seed(k) for k in indices]
        shape = (3, self.image_size, self.image_size)
        images = torch.stack([torch.rand(shape, generator=g) for g in rows])
        return Batch(ids, images - 0.5, factors=images.mean((1, 2, 3))[:, None])


class Shift(Editor):
    """Adds strength x (a learned shift) to the latent."""

    paper = "none"
    families = (LatentModel,)
    requires: ClassVar = {"edit": frozenset({Space.NOISE}), "invert": frozenset({Space.NOISE})}

    def __init__(self, *, gain: float = 1.0, misbehave: str = "", seconds: float = 0.0):
        self.gain, self.misbehave, self.seconds = gain, misbehave, seconds

    def fit(self, data, edits):
        if self.misbehave == "learn":
            assert torch.is_grad_enabled() and list(self.fitting.steps("x", 2, {})) == [0, 1]
        images = data.batch("generator", range(16)).images
        self.shift_ = self.gain * (1 + self.model.encode(images).mean())

    def state(self):
        return {"shift": self.shift_}

    def load_state(self, state):
        self.shift_ = state["shift"]

    def invert(self, batch):
        return Latent({Space.NOISE: self.model.encode(batch.images)})

    def decode(self, latent):
        return self.model.decode(latent.parts[Space.NOISE])

    def edit(self, batch: Batch, edit: Edit, strengths):
        time.sleep(self.seconds)
        self.disturb(batch)
        x = self.model.encode(batch.images)[:, None]
        x = x + 0.1 * edit.sign * self.shift_ * strengths.reshape(1, -1, 1, 1, 1)
        return self.model.decode(x.flatten(0, 1)).unflatten(0, x.shape[:2]).clamp(-1, 1)

    def disturb(self, batch: Batch):
        if self.misbehave == "raise":
            raise ValueError("this method always breaks")
        if self.misbehave == "incompatible":
            raise Incompatible("this method does not like Tuesdays")
        if self.misbehave == "idle":
            self.shift_ = self.shift_ * 0
        if self.misbehave == "not_finite" and "test/3" in batch.ids:
            batch.images[list(batch.ids).index("test/3")] = torch.nan
        if self.misbehave == "memory" and len(batch) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Attending(Shift):
    """Needs attention, which Waves has not."""

    requires: ClassVar = {"edit": frozenset({Space.ATTENTION})}


class Brighten(Benchmark):
    """Edits up and down at two strengths."""

    question = "Does it get brighter?"
    verbs = frozenset({"edit"})
    needs = frozenset({Capability.LABELS})
    main_score = "acme_mae"

    def __init__(self, *, n: int = 10):
        self.n = n

    def edits(self, dataset):
        return [Edit("bright+", "bright", 1), Edit("bright-", "bright", -1)]

    def groups(self, dataset):
        return ["bright+", "bright-"]

    def setup(self, bench):
        if log := os.environ.get("ACME_LOG"):
            with Path(log).open("a") as file:
                file.write("setup\n")
        return {"strengths": [1.0, 2.0]}

    def run(self, work, bench, setup):
        if log := os.environ.get("ACME_LOG"):
            with Path(log).open("a") as file:
                file.write(f"{work.group} {work.indices} {work.kept}\n")
        batch = bench.dataset.batch("test", work.indices)
        edit = next(e for e in self.edits(bench.dataset) if e.name == work.group)
        strengths = torch.tensor([0.0, *setup["strengths"]])
        images = bench.editor.edit(batch, edit, strengths)
        noise = bench.streams.normal("acme", batch.ids, (1, 1, 1))
        return Samples(
            batch.ids,
            images[:, 1:],
            (work.group,) * len(batch),
            sources=batch.images,
            reconstructions=images[:, 0],
            truths=(batch.images + 0.01 * noise)[:, None].repeat(1, 2, 1, 1, 1),
            strengths=strengths[1:].repeat(len(batch), 1),
            main=1,
        )


class BrightenTwo(Brighten):
    """The same with another model's reconstructions as truths."""

    others: ClassVar = {"other": "model"}

    def __init__(self, *, n: int = 10, other: str | None = None):
        super().__init__(n=n)
        self.other = other

    def run(self, work, bench, setup):
        samples = super().run(work, bench, setup)
        model = bench.parts.get("other")
        if model is None:
            return samples
        truths = model.decode(model.encode(samples.sources))
        return replace(samples, truths=truths[:, None].expand_as(samples.outputs).clamp(-1, 1))


class Mae(SampleMetric):
    """Mean absolute error to the truth."""

    needs = frozenset({"truths"})
    source = "none"

    def __init__(self, *, factor: float = 1.0):
        super().__init__()
        self.factor = factor

    @property
    def figures(self):
        return {"acme_mae": Figure("mean absolute error", low=0.0, higher_is_better=False)}

    def values(self, samples):
        assert samples.truths is not None
        error = (samples.outputs - samples.truths).abs().mean((2, 3, 4))
        return {"acme_mae": self.factor * error}


class Masked(Mae):
    """Needs what Brighten does not give."""

    needs = frozenset({"noise"})

    @property
    def figures(self):
        return {"acme_masked": Figure("mean absolute error", low=0.0, higher_is_better=False)}
