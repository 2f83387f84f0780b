"""Methods of paths that know the answer, or cheat on purpose: where must a benchmark put them?

They draw their frames, so that no diffusion is needed; each is a method like any other to the
runner. Of a face they know the factors: by its id, or as the noise of `Drawn` codes them.
"""

from functools import cache

import torch
from planted_editors import SIZE, Blank, blurred, number
from torch import Tensor

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import LatentModel
from latentbench.types import Endpoint, Space


class Drawn(Blank):
    """A perfect generator: each number of its noise codes a factor."""

    spaces = frozenset({Space.NOISE})
    gives = frozenset()

    def __init__(self, *, device: str = "cpu") -> None:
        super().__init__(device=device)
        self.latent_shape = (len(faces.FACTORS), 1, 1)

    def sample(self, latent, **options):
        return faces.render(coded(latent.parts[Space.NOISE]), SIZE)


class Even(Editor[LatentModel]):
    """Moves the factors in equal steps from one end to the other, and draws each face."""

    paper = "none"
    families = (LatentModel,)

    def interpolate(self, a: Endpoint, b: Endpoint, steps: int) -> Tensor:
        self.middle = 1 - (2 * torch.linspace(0, 1, steps) - 1).abs()  # 0 at the ends, 1 between
        return self.frames(known(a), known(b), torch.linspace(0, 1, steps)).clamp(-1, 1)

    def frames(self, a: Tensor, b: Tensor, times: Tensor) -> Tensor:
        return drawn(self.factors(a, b, times))

    def factors(self, a: Tensor, b: Tensor, times: Tensor) -> Tensor:
        return mixed(a, b, times)


class Eased(Even):
    """Small steps near the ends, larger ones between."""

    def factors(self, a, b, times):
        return mixed(a, b, times.square() * (3 - 2 * times))


class SlowFast(Even):
    """Small steps first, larger ones later."""

    def factors(self, a, b, times):
        return mixed(a, b, times.square())


class Wavering(Even):
    """Goes forth and back on the way."""

    def factors(self, a, b, times):
        return mixed(a, b, (times + torch.sin(4 * torch.pi * times) / 4).clamp(0, 1))


class Repeated(Even):
    """One frame twice."""

    def factors(self, a, b, times):
        return mixed(a, b, torch.cat([times[:3], times[2:3], times[4:]]))


class Stranger(Even):
    """Another person in the middle frame."""

    def factors(self, a, b, times):
        found = mixed(a, b, times)
        found[:, len(times) // 2] = faces.sample_factors("generator", torch.arange(len(a)))
        return found


class MeanFactors(Even):
    """To the face of middling factors, and on to the other end: every frame is a face."""

    def factors(self, a, b, times):
        ends = mixed(a, b, (times > 0.5).float())
        return ends.lerp(torch.full_like(ends, 0.5), self.middle[None, :, None])


class Jump(Even):
    """One face, then the other."""

    def factors(self, a, b, times):
        return mixed(a, b, (times > 0.5).float())


class Late(Even):
    """Stands still up to the middle, then moves."""

    def factors(self, a, b, times):
        return mixed(a, b, (2 * times - 1).clamp_min(0))


class Still(Even):
    """Never leaves the first face."""

    def factors(self, a, b, times):
        return mixed(a, b, torch.zeros_like(times))


class There(Even):
    """Goes there, and comes back."""

    def factors(self, a, b, times):
        return mixed(a, b, self.middle)


class Detour(Even):
    """Changes the background on the way."""

    def factors(self, a, b, times):
        found, column = mixed(a, b, times), faces.factor_index("background")
        found[..., column] = (found[..., column] + 0.4 * self.middle) % 1
        return found


class OtherEnds(Even):
    """An even path between two other faces."""

    def factors(self, a, b, times):
        return mixed(1 - a, 1 - b, times)


class Swapped(Even):
    """The path backwards."""

    def factors(self, a, b, times):
        return mixed(b, a, times)


class CrossFade(Even):
    """Fades the pixels of one face into the other's."""

    def frames(self, a, b, times):
        ends = drawn(mixed(a, b, torch.tensor([0.0, 1.0])))
        return mixed(ends[:, 0], ends[:, 1], times)


class ThroughMean(Even):
    """Fades to the mean of many faces, then to the other face."""

    def frames(self, a, b, times):
        return self.fading(CrossFade.frames(self, a, b, (times > 0.5).float()), mean_face())

    def fading(self, images: Tensor, towards: Tensor) -> Tensor:
        return images.lerp(towards, self.middle.reshape(1, -1, 1, 1, 1))


class Mirrored(Even):
    """The even path, left and right exchanged between the ends."""

    def frames(self, a, b, times):
        images = super().frames(a, b, times)
        return torch.cat([images[:, :1], images[:, 1:-1].flip(-1), images[:, -1:]], 1)


class Blurred(ThroughMean):
    """The even path, blurred towards the middle."""

    def frames(self, a, b, times):
        images = Even.frames(self, a, b, times)
        pairs = zip(images.unbind(1), self.middle.tolist(), strict=True)
        return torch.stack([blurred(image, float(share)) for image, share in pairs], 1)


class LowContrast(ThroughMean):
    """The even path, with 0.7 of its contrast in the middle."""

    def frames(self, a, b, times):
        images = Even.frames(self, a, b, times)
        grey = images.mean((2, 3, 4), keepdim=True).expand_as(images)
        return images.lerp(self.fading(images, grey), 0.3)


class Noisy(ThroughMean):
    """The even path, with noise in the middle."""

    def frames(self, a, b, times):
        images = Even.frames(self, a, b, times)
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        return self.fading(images, images + 0.1 * noise)


def known(end: Endpoint) -> Tensor:
    """Return the factors of an end."""
    if end.noise is not None:
        return coded(end.noise)
    return faces.sample_factors("test", torch.tensor([number(name) for name in end.ids]))


def coded(noise: Tensor) -> Tensor:
    """Return the factors that noise codes."""
    return torch.special.ndtr(noise.flatten(1))


def mixed(a: Tensor, b: Tensor, times: Tensor) -> Tensor:
    """Return what lies between two batches at these times."""
    t = times.reshape(1, -1, *(1,) * (a.dim() - 1))
    return (1 - t) * a[:, None] + t * b[:, None]


def drawn(factors: Tensor) -> Tensor:
    return faces.render(factors.flatten(0, 1), SIZE).unflatten(0, factors.shape[:2])


@cache
def mean_face() -> Tensor:
    return faces.render(faces.sample_factors("calibration", torch.arange(256)), SIZE).mean(0)
