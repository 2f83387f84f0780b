"""``zoo1``, ``zoo2`` and ``zoo3``: the judges, trained on faces that no generator saw."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentbench import weights
from latentbench.data import faces
from latentbench.zoo import training
from latentbench.zoo.degradations import degraded
from latentbench.zoo.judges import (
    ARCHITECTURES,
    EMBEDDING,
    FEATURES,
    AttentionJudge,
    ConvolutionalJudge,
    Judge,
    MixerJudge,
    load_judge,
)

VERSION = 1


@dataclass(frozen=True)
class Phase:
    """A plan of training for factors and identity.

    Attributes:
        plan: Steps, rate, seed, faces.
        emphasis: Weight of some factors in the regression (1 for the others).
        degraded: Probability of each of ``DEGRADATIONS``, for each image.
        grain: Probability of noise, for each image.
    """

    plan: training.Plan
    emphasis: Mapping[str, float] = field(default_factory=dict)
    degraded: float = 0.0
    grain: float = 0.0


SMALL = {"brow": 5.0, "nose": 3.0, "hair_length": 2.0, "curls": 2.0, "eye_distance": 2.0}
PHASES = {
    "zoo1": (
        Phase(
            training.Plan(
                name="zoo1", steps=1300, batch=64, lr=3e-3, flat=0.1, decay="cosine", seed=31,
                ema=0.995,
            ),
        ),
        Phase(
            training.Plan(
                name="zoo1_refined", steps=550, batch=64, lr=1e-3, flat=0.1, decay="cosine",
                seed=34, ema=0.99, fresh=200_000,
            ),
            {"brow": 3.0, "nose": 3.0, "hair_length": 1.5, "curls": 1.5},
        ),
    ),
    "zoo2": (
        Phase(
            training.Plan(
                name="zoo2", steps=1100, batch=64, lr=2e-3, flat=0.1, decay="cosine", seed=32,
                ema=0.995, fresh=20_000_000,
            ),
            SMALL,
        ),
        Phase(
            training.Plan(
                name="zoo2_refined", steps=600, batch=64, lr=1.5e-3, flat=0.1, decay="cosine",
                seed=35, ema=0.99, fresh=21_000_000,
            ),
            {"nose": 3.0, "brow": 3.0, "smile": 2.0},
        ),
    ),
    "zoo3": (
        Phase(
            training.Plan(
                name="zoo3", steps=1200, batch=64, lr=1.5e-3, flat=0.1, decay="cosine", seed=36,
                ema=0.995, fresh=90_000_000,
            ),
            SMALL,
            degraded=0.1,
        ),
        Phase(
            training.Plan(
                name="zoo3_refined", steps=800, batch=64, lr=1.2e-3, flat=0.1, decay="cosine",
                seed=39, ema=0.99, fresh=91_000_000,
            ),
            {"brow": 4.0, "nose": 3.0, "smile": 4.0, "hair_colour": 2.0, "age": 2.0,
             "mouth_open": 2.0, "eye_distance": 2.0},
            degraded=0.08,
            grain=0.2,
        ),
    ),
}  # fmt: skip
REFINEMENTS = {  # from the shipped weights
    "zoo1": Phase(
        training.Plan(
            name="zoo1_degraded", steps=400, batch=64, lr=5e-4, flat=0.1, decay="cosine", seed=37,
            ema=0.99, fresh=400_000,
        ),
        {"brow": 3.0, "nose": 3.0, "hair_length": 1.5, "curls": 1.5},
        degraded=0.1,
    ),
    "zoo2": Phase(
        training.Plan(
            name="zoo2_degraded", steps=400, batch=64, lr=5e-4, flat=0.1, decay="cosine", seed=38,
            ema=0.99, fresh=22_000_000,
        ),
        {"nose": 3.0, "brow": 3.0, "smile": 2.0},
        degraded=0.1,
    ),
}  # fmt: skip
FREE_PLAN = training.Plan(
    name="zoo2_free", steps=450, batch=64, lr=1.5e-3, flat=0.1, decay="cosine", seed=33, ema=0.99,
    fresh=40_000_000,
)  # fmt: skip
CONFIGS: dict[str, dict[str, object]] = {
    "zoo1": {"architecture": "ConvolutionalJudge", "name": "zoo1", "channels": [32, 64, 96, 128]},
    "zoo2": {
        "architecture": "MixerJudge", "name": "zoo2", "channels": [48, 96, 128],
        "free_channels": [48, 80, 128],
    },
    "zoo3": {
        "architecture": "AttentionJudge", "name": "zoo3", "width": 48, "depth": 3, "heads": 4,
        "reduced": 24,
    },
}  # fmt: skip
PEOPLE = 1500
FIRST_PERSON = {"zoo1": 10_000_000, "zoo2": 30_000_000, "zoo3": 50_000_000}
MARGIN, SCALE = 0.3, 16.0
LEAST_SPREAD = 0.01  # of a wavelet feature: a band that is nearly always empty stays small


def build(name: str) -> Judge:
    """An untrained judge."""
    return ARCHITECTURES[str(CONFIGS[name]["architecture"])](**_settings(name))


def _settings(name: str) -> dict[str, Any]:
    return {key: value for key, value in CONFIGS[name].items() if key != "architecture"}


def mixed_resolution(
    images: Float[Tensor, "b 3 64 64"], generator: torch.Generator
) -> Float[Tensor, "b 3 64 64"]:
    """A random half of the batch goes down to 32 pixels and back, as judged 32-pixel models do."""
    small = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    return torch.where(small[:, None, None, None], coarse, images)


class _WithCentres(nn.Module):
    """The judge with the class centres of its margin loss."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge
        self.centres = nn.Parameter(torch.randn(PEOPLE, EMBEDDING) / EMBEDDING**0.5)

    @torch.no_grad()
    def find_centres(self, batch: int = 100) -> None:
        """Put each centre where the judge sees one photo of its person."""
        for rows in torch.arange(PEOPLE).split(batch):
            people = FIRST_PERSON[self.judge.name] + rows
            photos = faces.identity_variants("judge", people, 1)[:, 0]
            images = faces.render(photos).to(self.centres.device)
            self.centres[rows] = F.normalize(self.judge.read(images)[1], dim=1)

    def margin_loss(
        self, embeddings: Float[Tensor, "b e"], people: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Additive angular margin softmax (ArcFace: Deng et al. 2019, equation 3)."""
        cosine = F.normalize(embeddings, dim=1) @ F.normalize(self.centres, dim=1).T
        angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
        own = F.one_hot(people, PEOPLE).bool()
        logits = torch.where(own, (angle + MARGIN).clamp_max(torch.pi).cos(), cosine)
        return F.cross_entropy(SCALE * logits, people)


def _supervised_loss(model: _WithCentres, phase: Phase, device: torch.device) -> training.Loss:
    """Half the batch: new faces. The other half: photos of known people, for the margin loss."""
    plan, first = phase.plan, FIRST_PERSON[model.judge.name]
    new = plan.batch // 2
    emphasis = [phase.emphasis.get(name, 1.0) for name in faces.FACTOR_NAMES]
    emphasis = torch.tensor(emphasis, device=device)

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        fresh = training.batch_factors(replace(plan, batch=new), "judge", step, device)
        people = torch.randint(PEOPLE, (plan.batch - new,), generator=generator).to(device)
        photos = faces.identity_variants("judge", first + people, 1, start=step)[:, 0]
        factors = torch.cat([fresh, photos])
        images = mixed_resolution(faces.render(factors), generator)
        if phase.degraded:
            images = degraded(images, phase.degraded, generator, phase.grain)
        with training.autocast(device):
            read, embeddings = model.judge.read(images)
        error = (emphasis * (read.float() - factors).square()).mean()
        return 20 * error + 0.3 * model.margin_loss(embeddings[new:].float(), people)

    return loss


# ---------------------------------------------------------------- features without labels


def augment(
    images: Float[Tensor, "b 3 64 64"], generator: torch.Generator
) -> Float[Tensor, "b 3 64 64"]:
    """Shift and zoom a little, change the gain, blank a square. Never noise: judges must see it."""
    count, device = len(images), images.device
    draws = torch.rand(count, 7, generator=generator).to(device) * 2 - 1
    place = torch.zeros(count, 2, 3, device=device)
    place[:, 0, 0] = place[:, 1, 1] = 1 + 0.1 * draws[:, 0]
    place[:, :, 2] = 0.12 * draws[:, 1:3]
    grid = F.affine_grid(place, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    line = torch.linspace(-1, 1, images.shape[-1], device=device)
    blank = ((line[None, None, :] - draws[:, 3, None, None]).abs() < 0.25) & (
        (line[None, :, None] - draws[:, 4, None, None]).abs() < 0.25
    )
    gain = 1 + 0.15 * draws[:, 5, None, None, None]
    return (moved * gain + 0.1 * draws[:, 6, None, None, None]) * ~blank[:, None]


def vicreg(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Invariance, variance, covariance (Bardes et al. 2022, equations 1-6; weights 25, 25, 1)."""
    total = 25 * F.mse_loss(a, b)
    for z in (a, b):
        z = z - z.mean(0)
        spread = (z.var(0) + 1e-4).sqrt()
        covariance = z.T @ z / (len(z) - 1)
        off = covariance.square().sum() - covariance.diagonal().square().sum()
        total = total + 25 / 2 * F.relu(1 - spread).mean() + off / z.shape[1]
    return total


class _WithProjector(nn.Module):
    """The label-free trunk with the projector of its loss."""

    def __init__(self, judge: MixerJudge) -> None:
        super().__init__()
        self.trunk, self.penultimate = judge.free, judge.penultimate
        self.projector = nn.Sequential(
            nn.BatchNorm1d(FEATURES), nn.ReLU(), nn.Linear(FEATURES, 256)
        )

    def forward(self, images: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b d"]:
        return self.projector(self.penultimate(self.trunk(images)[-1].flatten(1)))


def _free_loss(model: _WithProjector, plan: training.Plan, device: torch.device) -> training.Loss:
    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        images = faces.render(training.batch_factors(plan, "judge", step, device))
        images = mixed_resolution(images, generator)
        views = torch.cat([augment(images, generator), augment(images, generator)])
        with training.autocast(device):
            projected = model(views)
        return vicreg(*projected.float().chunk(2))

    return loss


def _faces_of_features(count: int) -> Float[Tensor, "n 3 64 64"]:
    rows = torch.arange(70_000_000, 70_000_000 + count)
    return faces.render(faces.sample_factors("judge", rows))


@torch.no_grad()
def standardise(judge: MixerJudge, count: int = 1024) -> None:
    """Give the label-free features mean 0 and spread 1 on faces of the judges' split."""
    judge.eval()
    images = _faces_of_features(count)
    pooled = torch.cat([judge.pooled(judge.free(part)) for part in images.split(64)])
    judge.feature_mean.copy_(pooled.mean(0))
    judge.feature_spread.copy_(pooled.std(0))


@torch.no_grad()
def fit_wavelets(judge: AttentionJudge, count: int = 2048) -> None:
    """Fit the spread of patches and the principal components of wavelet features, on faces."""
    images = _faces_of_features(count)
    patches = torch.cat([judge.patches(part).flatten(0, 2) for part in images.split(64)])
    judge.patch_spread.copy_(patches.std(0))
    found = torch.cat([judge.wavelet_features(part) for part in images.split(64)])
    judge.feature_mean.copy_(found.mean(0))
    spread = found.std(0).clamp_min(LEAST_SPREAD)
    _, vectors = torch.linalg.eigh(((found - judge.feature_mean) / spread).T.cov())
    judge.feature_basis.copy_(vectors.flip(1)[:, :FEATURES] / spread[:, None])


def train_free(judge: Judge, plan: training.Plan, device: torch.device, root: Path) -> float:
    """Train the label-free trunk of ``zoo2`` where it is; gives the seconds spent."""
    torch.manual_seed(plan.seed)
    model = _WithProjector(judge).to(device)
    return training.train(model, _free_loss(model, plan, device), plan, root=root)


def train_supervised(
    judge: Judge, phases: Sequence[Phase], device: torch.device, root: Path
) -> list[float]:
    """Train the supervised parts of a judge where they are; gives each phase's seconds."""
    torch.manual_seed(phases[0].plan.seed)
    model = _WithCentres(judge).to(device)
    spent = []
    for phase in phases:
        loss = _supervised_loss(model, phase, device)
        spent.append(training.train(model, loss, phase.plan, root=root))
    return spent


# ---------------------------------------------------------------- perceptual distance


def distort(
    images: Float[Tensor, "b 3 h w"], kind: str, strength: float, generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Blur, noise, quantisation, shift or loss of contrast; strength 0 is none, 1 is plain."""
    if kind == "blur":
        reach = torch.arange(-6, 7, device=images.device)
        kernel = torch.exp(-0.5 * (reach / (0.05 + 2.5 * strength)).square())
        kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
        rows = F.conv2d(F.pad(images, (6, 6, 0, 0), mode="replicate"), kernel, groups=3)
        columns = F.pad(rows, (0, 0, 6, 6), mode="replicate")
        return F.conv2d(columns, kernel.transpose(2, 3), groups=3)
    if kind == "noise":
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images + 0.4 * strength * noise).clamp(-1, 1)
    if kind == "blocks":
        coarse = F.interpolate(F.avg_pool2d(images, 4), scale_factor=4.0, mode="nearest")
        return images + strength * (coarse - images)
    if kind == "shift":
        return torch.roll(images, round(1 + 7 * strength), dims=-1)
    if kind == "contrast":
        return images * (1 - 0.8 * strength)
    raise ValueError(f"unknown distortion {kind!r}; use one of {', '.join(DISTORTIONS)}")


DISTORTIONS = ("blur", "noise", "blocks", "shift", "contrast")


def triplets(
    split: str, first: int, count: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(image, nearer, further) whose order is known from how they were made.

    The same distortion at a lower and a higher strength; one factor moved less and more; one
    factor moved, and the same with a second one moved too.
    """
    generator = training.step_generator(seed, 0)
    factors = faces.sample_factors(split, torch.arange(first, first + count))
    images = faces.render(factors)
    for kind in DISTORTIONS:
        for low, high in ((0.15, 0.35), (0.3, 0.6), (0.5, 1.0)):
            nearer = distort(images, kind, low, generator)
            yield images, nearer, distort(images, kind, high, generator)
    for column, name in enumerate(faces.FACTOR_NAMES):
        sign = torch.where(factors[:, column] < 0.5, 1.0, -1.0)
        near = faces.with_factor(factors, name, factors[:, column] + 0.2 * sign)
        far = faces.with_factor(factors, name, factors[:, column] + 0.5 * sign)
        yield images, faces.render(near), faces.render(far)
        other = faces.FACTOR_NAMES[(column + 7) % len(faces.FACTOR_NAMES)]
        both = faces.with_factor(far, other, 1 - far[:, faces.factor_index(other)])
        yield images, faces.render(far), faces.render(both)


@torch.enable_grad()
def fit_layer_weights(judge: Judge, seed: int, count: int = 24, steps: int = 300) -> None:
    """Fit the non-negative level weights on triplets by logistic regression, where they are."""
    judge.eval()
    with torch.no_grad():
        gaps, scale = [], []
        for image, nearer, further in triplets("judge", 60_000_000, count, seed):
            near, far = judge.level_distances(image, nearer), judge.level_distances(image, further)
            gaps.append(far - near)
            scale.append(far)
        spread = torch.cat(scale).mean(0)
        gaps = torch.cat(gaps) / spread
    free = torch.zeros(gaps.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([free], 0.05)
    for _ in range(steps):
        loss = F.softplus(-10 * gaps @ free.softmax(0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    judge.layer_weights.copy_((free.softmax(0) / spread).detach())


# ---------------------------------------------------------------- the whole recipe


def make(
    name: str, folder: Path, device: torch.device, root: Path, share: float = 1.0
) -> dict[str, object]:
    """Train a judge (or go on training) and write its folder; gives the facts for the card."""
    phases = [replace(phase, plan=training.shortened(phase.plan, share)) for phase in PHASES[name]]
    torch.manual_seed(phases[0].plan.seed)
    judge = build(name).to(device)
    told: dict[str, object] = {}
    if isinstance(judge, MixerJudge):
        free = training.shortened(FREE_PLAN, share)
        seconds = train_free(judge, free, device, root)
        told["label_free_trunk"] = training.facts(free, "judge", seconds)
    if isinstance(judge, AttentionJudge):
        fit_wavelets(judge.cpu())
        judge.to(device)
    spent = train_supervised(judge, phases, device, root)
    for phase, seconds in zip(phases, spent, strict=True):
        told[phase.plan.name] = training.facts(phase.plan, "judge", seconds)
    judge.cpu()
    if isinstance(judge, MixerJudge):
        standardise(judge)
    fit_layer_weights(judge, phases[0].plan.seed)
    training.save_network(folder, judge, CONFIGS[name])
    return told


def refinable(name: str) -> Judge:
    """An embedded judge as `refine` starts from it: its features are out of reach of the heads."""
    judge = load_judge(name).requires_grad_(True)
    if not isinstance(judge, ConvolutionalJudge) or judge.reader is not None:
        return judge
    parted = ConvolutionalJudge(**_settings(name), own_reader=True)
    trunk = {
        f"reader.{key}": value
        for key, value in judge.state_dict().items()
        if key.startswith(("blocks.", "penultimate."))
    }
    parted.load_state_dict(judge.state_dict() | trunk)
    return parted


def refine(
    name: str, folder: Path, device: torch.device, root: Path, share: float = 1.0
) -> dict[str, object]:
    """Train the heads of an embedded judge further, on degraded images; write its folder.

    What features and perceptual distances see stays as it was.

    Returns:
        The facts for the card.
    """
    phase = REFINEMENTS[name]
    phase = replace(phase, plan=training.shortened(phase.plan, share))
    start = weights.card(name)["sha256"]["model.safetensors"]
    torch.manual_seed(phase.plan.seed)
    model = _WithCentres(refinable(name)).to(device)
    model.find_centres()
    loss = _supervised_loss(model, phase, device)
    seconds = training.train(model, loss, phase.plan, root=root)
    config = CONFIGS[name] | ({"own_reader": True} if name == "zoo1" else {})
    training.save_network(folder, model.judge.cpu(), config)
    told = training.facts(phase.plan, "judge", seconds)
    return {phase.plan.name: told | {"start_sha256": start, "degraded": phase.degraded}}
