"""Denoisers in closed form, for cells with two of them, and a protocol that suits them."""

from acme.parts import Brighten
from latentbench.conformance import toy


class Planted(toy.GaussianModel):
    """Gaussian images of a planted brightness."""

    def __init__(self, *, bright: float = 0.0, device: str = "cpu"):
        super().__init__(steps=4)
        self.bright = bright

    def mean(self, prompt):
        return super().mean(prompt) + self.bright

    def fingerprint(self):
        return f"{super().fingerprint()}-{self.bright}"


class BrightenHalf(Brighten):
    """Edits at half and at whole strength."""

    def setup(self, bench):
        return {"strengths": [0.5, 1.0]}
