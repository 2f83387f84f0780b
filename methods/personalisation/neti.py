"""NeTI: a word that is a function of the denoising time and of the layer that reads it."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, NotNegative, Positive, Share, Steps
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel
from latentbench.sampling.loop import Intervention, Step
from latentbench.types import SUBJECT, Batch, Space
from methods.personalisation.layers import (
    LayerPrompts,
    cross_layers,
    denoising_loss,
    rows_by_prompt,
)
from methods.personalisation.learned_subject import LearnedSubject, place_of_subject

TIMES = 1000  # to which the scale of the codes of time belongs
LAYERS = 16  # to which the scale of the codes of layers belongs
SIGMA_T, SIGMA_L = 0.03, 2.0

Learned = Mapping[str, Tensor]


class NeuralTextualInversion(LearnedSubject):
    """Learns a small network whose output v(t, l) stands for `SUBJECT` at time t in layer l.

    Source: "A Neural Space-Time Representation for Text-to-Image Personalization", sections 4.1
    (the mapper), 4.2 (textual bypass) and 4.3 (nested dropout), and the authors' code for what the
    paper leaves open: the order of normalisation and split, and which of keys and values the bypass
    reaches. The loss is the squared error of what the network predicts: eps in the paper.

    1. code: e(t, l) = [sin(W (t, l)); cos(W (t, l))] / ||.||, W random and fixed.
    2. mapper: h0 = A e + a, A starting as the codes of anchors; two blocks of linear layer, layer
       norm and leaky ReLU; o = U h + u.
    3. norm: o <- s o / ||o|| over word and bypass together, s the mean norm of the vocabulary.
    4. word: the first half of o, for layer l at time t.
    5. bypass: y' = y + strength ||y|| b / ||b||, b the second half, y the text encoder's output at
       the word's place; layer l takes its keys from y and its values from y'.
    6. nested dropout: in half of the steps only the first k units of h count, k drawn evenly.

    Deviations: s is the vocabulary's, not that of the word of a coarse class; the bypass is added
    after the text encoder's last layer norm, where the interface of a model ends, not before it;
    a step sees all references at one level of the sampler's grid; no weight decay; the scales of
    the codes are stretched to fewer layers.

    Args:
        iterations: steps of Adam.
        learning_rate: of Adam.
        frequencies: rows of W.
        anchors: times whose codes A starts from, each with every layer.
        width: units of h.
        nested: share of the steps with nested dropout.
        bypass: strength of the bypass, as a share of the norm of what it is added to; 0 is none.
        truncation: how many units of h count when images are drawn; None: all. Fewer follow the
            prompt better and resemble the subject less.
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.

    Raises:
        BadInput: truncation to more units than there are, or a prompt that names the subject twice.

    Example:
        >>> method = NeuralTextualInversion(iterations=400, truncation=16)
        >>> # method.personalise(references, ("a",), (f"{SUBJECT} smiling",))
    """

    paper = "A Neural Space-Time Representation for Text-to-Image Personalization, section 4"
    version = 2
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "personalise": frozenset({Space.NOISE, Space.TEXT, Space.ATTENTION})
    }

    def __init__(
        self,
        *,
        iterations: Count = 300,
        learning_rate: Positive = 0.002,
        frequencies: Count = 128,
        anchors: Count = 5,
        width: Count = 64,
        nested: Share = 0.5,
        bypass: NotNegative = 0.2,
        truncation: Count | None = None,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        if truncation is not None and truncation > width:
            raise BadInput(
                f"truncation must be at most width, {width} units, got {truncation}; lower it"
            )
        self.iterations, self.learning_rate = iterations, learning_rate
        self.frequencies, self.anchors, self.width = frequencies, anchors, width
        self.nested, self.bypass, self.truncation = nested, bypass, truncation
        self.steps, self.guidance = steps, guidance

    def settings(self) -> tuple[object, ...]:
        """Return what decides what is learned; truncation does not."""
        own = (self.frequencies, self.anchors, self.width, self.nested, self.bypass)
        return (*super().settings(), *own)

    def start(self, references: Batch) -> dict[str, Tensor]:
        """Return W and the mapper's parameters, by the symbols above."""
        del references
        layers, d = len(cross_layers(self.model)), self.model.vocabulary().shape[1]
        scale = torch.tensor([SIGMA_T, SIGMA_L * LAYERS / layers])
        codes = self._drawn("W", (self.frequencies, 2)) * scale
        times = [TIMES * k / self.anchors for k in range(self.anchors)]
        first = torch.stack([encoded(codes, t, k) for t in times for k in range(layers)])
        n, w = len(first), self.width
        learned = {
            "A": first, "a": torch.zeros(n),
            "B": self._linear("B", w, n), "b": torch.zeros(w),
            "B_gain": torch.ones(w), "B_shift": torch.zeros(w),
            "C": self._linear("C", w, w), "c": torch.zeros(w),
            "C_gain": torch.ones(w), "C_shift": torch.zeros(w),
            "U": self._linear("U", 2 * d, w), "u": torch.zeros(2 * d),
        }  # fmt: skip
        learned = {k: v.to(self.model.device).requires_grad_() for k, v in learned.items()}
        return {"W": codes.to(self.model.device), **learned}

    def told(
        self, prompts: Sequence[str], learned: Learned
    ) -> tuple[Condition, Sequence[Intervention]]:
        """Return the prompts' condition, and what lets each layer read its own at each time."""
        units = torch.ones(self.width, device=self.model.device)
        if self.truncation is not None:
            units[self.truncation :] = 0
        return self._told(prompts, learned, units)

    def loss(
        self,
        learned: Learned,
        z0: Float[Tensor, "b ..."],
        captions: Sequence[str],
        ids: Sequence[str],
        step: int,
    ) -> Float[Tensor, ""]:
        """Return the error under v(t, 1) .. v(t, L), with nested dropout."""
        drawn = self.streams.generator("neti/nested", str(step))
        units = torch.ones(self.width, device=self.model.device)
        if float(torch.rand((), generator=drawn)) < self.nested:  # 6.
            units[int(torch.randint(self.width, (), generator=drawn)) :] = 0
        return denoising_loss(
            self.model, self.streams, "neti", z0, ids, step, *self._told(captions, learned, units)
        )

    def _told(
        self, prompts: Sequence[str], learned: Learned, units: Float[Tensor, " w"]
    ) -> tuple[Condition, Sequence[Intervention]]:
        spread = SpaceTimePrompts(self.model, prompts, learned, units, self.bypass)
        return self.model.unconditional(len(prompts)), (spread,)  # whose rows no layer reads

    def _drawn(self, name: str, shape: tuple[int, int]) -> Tensor:
        return self.streams.normal("neti/start", (name,), shape)[0]

    def _linear(self, name: str, rows: int, columns: int) -> Tensor:
        return self._drawn(name, (rows, columns)) / columns**0.5


class SpaceTimePrompts(LayerPrompts):
    """Layer l reads the prompt with v(t, l), its values from what the bypass has moved.

    Args:
        model: whose text encoder and layers.
        prompts: one per image.
        learned: the mapper.
        units: 1 for units of h that count.
        bypass: its strength.
    """

    def __init__(
        self,
        model: DiffusionModel,
        prompts: Sequence[str],
        learned: Learned,
        units: Float[Tensor, " w"],
        bypass: float,
    ) -> None:
        super().__init__(cross_layers(model))
        self.model, self.prompts, self.learned = model, tuple(prompts), learned
        self.units, self.bypass = units, bypass
        self.norm = model.vocabulary().norm(dim=1).mean()  # s
        self.marks = torch.tensor([place_of_subject(model, p) for p in prompts])
        self._now: tuple[float, list[tuple[Tensor, Tensor]]] = (-1.0, [])

    def read(self, step: Step, place: int) -> tuple[Tensor, Tensor]:
        """Return what the keys and the values of layer l are made from at this time."""
        t = float(step.timestep)
        if self._now[0] != t:
            self._now = t, self._at(t)
        return self._now[1][place]

    def _at(self, t: float) -> list[tuple[Tensor, Tensor]]:
        outputs = [
            mapped(self.learned, t, k, self.units, self.norm).chunk(2)
            for k in range(len(self.places))
        ]
        words = [{SUBJECT: word} for word, _ in outputs]
        rows = rows_by_prompt(self.model, self.prompts, words)
        if self.bypass == 0:
            return [(y, y) for y in rows]
        return [(y, self._moved(y, b)) for y, (_, b) in zip(rows, outputs, strict=True)]

    def _moved(self, y: Float[Tensor, "r m d"], b: Float[Tensor, " d"]) -> Float[Tensor, "r m d"]:
        """Return y' of prompts that name the subject, y of those that do not."""
        size = y.norm(dim=-1, keepdim=True)
        at = torch.arange(y.shape[1]) == self.marks[:, None]
        return y + at[..., None].to(y) * self.bypass * size * b / b.norm()  # 5.


def encoded(codes: Float[Tensor, "f 2"], t: float, layer: int) -> Float[Tensor, " e"]:
    """Return e(t, l), of unit length.

    Example:
        >>> encoded(torch.tensor([[0.0, 1.0]]), 3.0, 0)
        tensor([0., 1.])
    """
    angles = codes @ codes.new_tensor([t, float(layer)])
    return F.normalize(torch.cat([angles.sin(), angles.cos()]), dim=0)  # 1.


def mapped(
    learned: Learned, t: float, layer: int, units: Float[Tensor, " w"], norm: Float[Tensor, ""]
) -> Float[Tensor, " o"]:
    """Return o(t, l), word and bypass, of length s."""
    h = F.linear(encoded(learned["W"], t, layer), learned["A"], learned["a"])  # 2.
    for name in ("B", "C"):
        h = F.linear(h, learned[name], learned[name.lower()])
        h = F.layer_norm(h, h.shape, learned[f"{name}_gain"], learned[f"{name}_shift"])
        h = F.leaky_relu(h)
    o = F.linear(units * h, learned["U"], learned["u"])
    return norm * F.normalize(o, dim=0)  # 3.
