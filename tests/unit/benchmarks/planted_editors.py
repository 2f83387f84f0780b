"""Editors that know the answer, or cheat on purpose: where must a benchmark put them?

They render, so that no diffusion is needed; each is a method like any other to the runner.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import Evaluations, LatentModel
from latentbench.types import Batch, Capability, Edit, Latent, Space
from latentbench.zoo.judges import load_judge

SIZE = 32
LEVELS = 2 / 255  # one grey level in [-1, 1]


class Blank(LatentModel):
    """A model that is never asked for anything."""

    spaces = frozenset()
    gives = frozenset({Capability.PROMPTS})

    def __init__(self, *, device: str = "cpu") -> None:
        self.evaluations = Evaluations()
        self.device = torch.device(device)
        self.image_size, self.latent_shape = SIZE, (3, SIZE, SIZE)

    def encode(self, images):
        return images

    def decode(self, latent):
        return latent

    def sample(self, latent, **options):
        return latent

    def fingerprint(self):
        return "blank"


class Perfect(Editor[LatentModel]):
    """Renders the true counterfactual, at the strength as a share of the asked change."""

    paper = "none"
    families = (LatentModel,)
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {"edit": frozenset({Capability.LABELS})}

    def edit(self, batch: Batch, edit: Edit, strengths: Tensor) -> Tensor:
        first = self.reconstruction(batch)
        frames = [self.edited(batch, edit, float(s)) if s > 0 else first for s in strengths]
        return torch.stack(frames, 1).clamp(-1, 1)

    def reconstruction(self, batch: Batch) -> Tensor:
        return batch.images

    def edited(self, batch: Batch, edit: Edit, strength: float) -> Tensor:
        return faces.render(self.factors(batch, edit, strength), SIZE)

    def factors(self, batch: Batch, edit: Edit, strength: float) -> Tensor:
        assert batch.factors is not None
        return moved(batch.factors, str(edit.attribute), float(edit.sign > 0), strength)


class PerfectBlurred(Perfect):
    """The same, slightly blurred."""

    def edited(self, batch, edit, strength):
        return blurred(super().edited(batch, edit, strength), 0.4)


class Inverting(Perfect):
    """The same, whose reconstruction need not be the source."""

    def invert(self, batch):
        return Latent({Space.NOISE: self.reconstruction(batch)})

    def decode(self, latent):
        return latent.parts[Space.NOISE]


class LossyInversion(PerfectBlurred, Inverting):
    """Edits perfectly what its inversion has left."""

    def reconstruction(self, batch):
        return blurred(batch.images, 0.4)


class Leaky(Perfect):
    """The target is right, `k` other factors are moved by 0.3 of their range."""

    def __init__(self, *, k: int = 1) -> None:
        self.k = k

    def factors(self, batch, edit, strength):
        found = super().factors(batch, edit, strength)
        for name in ("background", "shirt", "skin", "hair_colour", "face_width")[: self.k]:
            column = faces.factor_index(name)
            away = torch.where(found[:, column] > 0.5, -0.3, 0.3)
            found[:, column] = found[:, column] + away
        return found


class Reckless(Perfect):
    """The right edit on another background."""

    def factors(self, batch, edit, strength):
        found = super().factors(batch, edit, strength)
        column = faces.factor_index("background")
        found[:, column] = (found[:, column] + 0.5) % 1
        return found


class HalfMix(Perfect):
    """Cross-fades the pixels towards the full answer, never beyond half of it."""

    def edited(self, batch, edit, strength):
        whole = super().edited(batch, edit, 1.0)
        return batch.images.lerp(whole, min(strength, 0.5))


class PerfectBinary(Perfect):
    """Makes the whole edit on a share of the images, at most half of them, and none on the rest."""

    def edited(self, batch, edit, strength):
        whole = super().edited(batch, edit, 1.0)
        chosen = [k % 2 == 0 and strength > k / 20 for k in range(len(batch))]
        return torch.where(torch.tensor(chosen)[:, None, None, None], whole, seen(batch.images))


class IdentityCopy(Perfect):
    """Returns the source."""

    def edited(self, batch, edit, strength):
        return batch.images


class Tiny(Perfect):
    """Changes what no one can see."""

    def edited(self, batch, edit, strength):
        return seen(batch.images)


class GlobalBlur(Perfect):
    """Blurs."""

    def edited(self, batch, edit, strength):
        return seen(blurred(batch.images, 2 * strength))


class BrightnessShift(Perfect):
    """Brightens."""

    def edited(self, batch, edit, strength):
        return batch.images + 0.5 * strength


class Mirrored(Perfect):
    """The answer, left and right exchanged."""

    def edited(self, batch, edit, strength):
        return super().edited(batch, edit, strength).flip(-1)


class Neighbour(Perfect):
    """Gives each image the answer of another."""

    def edited(self, batch, edit, strength):
        return super().edited(batch, edit, strength).roll(1, 0)


class Overfit(Perfect):
    """Knows the answer of the images on which strengths are chosen, and of no other."""

    def edited(self, batch, edit, strength):
        unknown = torch.tensor([name.startswith("test") for name in batch.ids])
        answer = super().edited(batch, edit, strength)
        return torch.where(unknown[:, None, None, None], seen(batch.images), answer)


class Compressed(Perfect):
    """The source as a JPEG file has it, the smaller the larger the strength."""

    def edited(self, batch, edit, strength):
        return compressed(batch.images, max(5, round(95 - 80 * strength)))


class OneFace(Perfect):
    """Turns everybody into one person with the attribute."""

    def factors(self, batch, edit, strength):
        one = faces.sample_factors("test", torch.tensor([77])).expand(len(batch), -1)
        return moved(one, str(edit.attribute), float(edit.sign > 0), 1.0)


class OtherFace(Perfect):
    """Another person with the attribute; the reconstruction is the source."""

    def factors(self, batch, edit, strength):
        right = super().factors(batch, edit, strength)
        return torch.where(torch.tensor(IDENTITY), self.other(batch), right)

    def other(self, batch):
        return torch.stack(
            [faces.sample_factors("test", torch.tensor([number(i) + 1]))[0] for i in batch.ids]
        )


class OtherFaceBoth(OtherFace, Inverting):
    """Another person in the reconstruction already."""

    def reconstruction(self, batch):
        return faces.render(
            torch.where(torch.tensor(IDENTITY), self.other(batch), batch.factors), SIZE
        )


class WrongAttribute(Perfect):
    """Moves the background instead."""

    def factors(self, batch, edit, strength):
        return moved(batch.factors, "background", 1.0, strength)


class LateGarbage(Perfect):
    """Right at small strengths, noise from a third on."""

    def edited(self, batch, edit, strength):
        if strength < 0.3:
            return super().edited(batch, edit, strength / 0.25 if strength < 0.25 else 1.0)
        return noise(batch.ids, 0.6)


class Coarse(Perfect):
    """Has three strengths, none of them near the half."""

    shares: Sequence[float] = (0.3, 0.7, 0.9)

    def factors(self, batch, edit, strength):
        return super().factors(batch, edit, self.shares[min(int(3 * strength), 2)])


class TinyGarbage(Perfect):
    """A twentieth of the edit, with noise that can be seen."""

    def edited(self, batch, edit, strength):
        slight = super().edited(batch, edit, 0.05 * strength)
        return slight + noise(batch.ids, 0.1)


class Adversarial(Perfect):
    """Adds 6 grey levels of noise that one judge reads as the edit, and edits nothing."""

    def __init__(self, *, judge: str = "zoo3", steps: int = 12) -> None:
        self.judge, self.steps = judge, steps

    def edited(self, batch, edit, strength):
        judge, column = load_judge(self.judge), faces.factor_index(str(edit.attribute))
        goal, most = float(edit.sign > 0), 6 * LEVELS
        change = torch.zeros_like(batch.images)
        for _ in range(self.steps):
            with torch.enable_grad():
                x = change.detach().requires_grad_()
                read = judge.read(to_64(batch.images + x))[0][:, column]
                (slope,) = torch.autograd.grad((read - goal).square().sum(), x)
            change = (change - most / 4 * slope.sign()).clamp(-most, most)
        return batch.images + strength * change


IDENTITY = [factor.kind == "identity" for factor in faces.FACTORS]


def moved(factors: Tensor, name: str, goal: float, share: float) -> Tensor:
    """Return factors with one of them moved by a share of the way to its goal."""
    found, column = factors.clone(), faces.factor_index(name)
    found[:, column] += min(share, 1.0) * (goal - found[:, column])
    return found


def number(name: str) -> int:
    return int(name.split("/")[1])


def seen(images: Tensor) -> Tensor:
    """Return a copy that differs by less than a grey level: a copy alone is refused."""
    return images + 0.1 * LEVELS


def blurred(images: Tensor, sigma: float) -> Tensor:
    reach = torch.arange(-4, 5) / max(sigma, 1e-3)
    kernel = torch.exp(-reach.square() / 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    rows = F.conv2d(F.pad(images, (4, 4, 0, 0), "replicate"), kernel[:, :, None], groups=3)
    return F.conv2d(F.pad(rows, (0, 0, 4, 4), "replicate"), kernel[..., None], groups=3)


def compressed(images: Tensor, quality: int) -> Tensor:
    """Return images as JPEG files of this quality have them."""
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    files = (encode_jpeg(image, quality) for image in levels)
    return torch.stack([decode_jpeg(file, ImageReadMode.RGB) for file in files]) / 127.5 - 1


def noise(ids: Sequence[str], size: float) -> Tensor:
    rows = [
        torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(number(i))) for i in ids
    ]
    return size * torch.stack(rows)


def to_64(images: Tensor) -> Tensor:
    return F.interpolate(images, size=(64, 64), mode="bilinear", antialias=True)
