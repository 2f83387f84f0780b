"""What methods share that learn a subject as words: the loop that learns, and how they draw."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.content import content_hash
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel
from latentbench.sampling.loop import Intervention, Term, generate, guided
from latentbench.types import SUBJECT, Batch, Capability, Space


class LearnedSubject(Editor[DiffusionModel]):
    """Learns tensors that stand for `SUBJECT`, and draws captions with them.

    What was learned of some references is kept in the cache, and by the method itself, so that it
    is learned and counted once for all prompts. Every step of Adam sees all references.

    A subclass sets `iterations`, `learning_rate`, `steps` (of the sampler) and `guidance`.
    """

    small: ClassVar[Mapping[str, Any]] = {"iterations": 3}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "personalise": frozenset({Space.NOISE, Space.TEXT})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "personalise": frozenset({Capability.REFERENCES, Capability.WORDS, Capability.PROMPTS})
    }
    iterations: int
    learning_rate: float
    steps: int | None
    guidance: float | None
    _last: tuple[str, dict[str, Tensor]] = ("", {})

    @abstractmethod
    def start(self, references: Batch) -> dict[str, Tensor]:
        """Return what learning starts from, by name; tensors that take gradients are learned."""

    @abstractmethod
    def loss(
        self,
        learned: Mapping[str, Tensor],
        z0: Float[Tensor, "b ..."],
        captions: Sequence[str],
        ids: Sequence[str],
        step: int,
    ) -> Float[Tensor, ""]:
        """Return what one step lowers.

        Args:
            learned: see `start`.
            z0: clean latents of the references.
            captions: one per reference, see `captions`.
            ids: names of the references, for their noise.
            step: number of the step, on which all that is drawn depends.
        """

    @abstractmethod
    def told(
        self, prompts: Sequence[str], learned: Mapping[str, Tensor]
    ) -> tuple[Condition, Sequence[Intervention]]:
        """Return the prompts' condition with what was learned, and what else enters the loop."""

    @property
    def scale(self) -> float:
        """Guidance, the method's or the model's."""
        return self.model.guidance if self.guidance is None else self.guidance

    def terms(
        self, prompts: Sequence[str], learned: Mapping[str, Tensor]
    ) -> tuple[Sequence[Term], Sequence[Intervention]]:
        """Return what is predicted in every step, and what else enters the loop."""
        condition, interventions = self.told(prompts, learned)
        null = self.model.condition(None, len(prompts))
        return guided(condition, null, self.scale), interventions

    def settings(self) -> tuple[Any, ...]:
        """Return what decides what is learned, besides model and references."""
        return (self.iterations, self.learning_rate, self.streams.seed)

    def first_word(self, stream: str) -> Float[Tensor, " d"]:
        """Return a normal draw at the scale of the model's own embeddings."""
        table = self.model.vocabulary()
        drawn = self.streams.normal(stream, ("start",), table.shape[1:])[0]
        return table.mean(0) + table.std() * drawn.to(table)

    def personalise(
        self, references: Batch, ids: Sequence[str], prompts: Sequence[str]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id of the references' subject, from the noise of that id."""
        model = self.model
        terms, interventions = self.terms(prompts, self.learn(references))
        x = model.prior(self.streams, ids).parts[Space.NOISE]
        grid = model.grid(self.steps)
        return model.decode(generate(model, x, terms, grid=grid, interventions=interventions))

    def learn(self, references: Batch) -> dict[str, Tensor]:
        """Return what was learned of these references, from the cache where it is known."""
        captions = captions_of(references)
        own = captions if set(captions) != {SUBJECT} else ()
        shown = (references.ids, references.images)  # the noise of training is drawn by name
        known = (type(self).__name__, self.version, self.model.fingerprint(), *shown)
        name = content_hash(*known, *own, *self.settings())

        def make() -> dict[str, Tensor]:
            with torch.enable_grad():
                return self._optimise(references, captions, name)

        if self._last[0] != name:
            found = self.remembered(name, references.ids, make)
            self._last = name, {k: v.to(self.model.device) for k, v in found.items()}
        return self._last[1]

    def _optimise(self, references: Batch, captions: Sequence[str], name: str) -> dict[str, Tensor]:
        learned = self.start(references)
        adam = torch.optim.Adam(
            [v for v in learned.values() if v.requires_grad], lr=self.learning_rate
        )
        with torch.no_grad():
            z0 = self.model.encode(references.images)
        for step in self.fitting.steps(f"word-{name[:16]}", self.iterations, learned, adam):
            adam.zero_grad()
            self.loss(learned, z0, captions, references.ids, step).backward()
            adam.step()
        return {key: value.detach() for key, value in learned.items()}


def captions_of(references: Batch) -> tuple[str, ...]:
    """Return the references' captions where they name the subject, else its word alone.

    What a caption says of a reference, the subject's word need not say.

    Example:
        >>> captions_of(Batch(("a",), torch.zeros(1, 3, 8, 8), ("<subject> smiling",)))
        ('<subject> smiling',)
    """
    return tuple(
        caption if SUBJECT in caption else SUBJECT
        for caption in references.prompts or (SUBJECT,) * len(references)
    )


def place_of_subject(model: DiffusionModel, prompt: str) -> int:
    """Return which token of a prompt stands for the subject; -1 where none does.

    Raises:
        BadInput: more than one does.
    """
    before, *after = prompt.split(SUBJECT)
    if len(after) > 1:
        raise BadInput(f"prompt names the subject {len(after)} times, give one: {prompt!r}")
    if not after:
        return -1
    tokens = model.prompt_tokens(before.strip())[0]
    return tokens.count - 1  # the end's place is the subject's


def without_subject(prompt: str) -> str:
    """Return a prompt without the subject's word.

    Example:
        >>> without_subject("<subject> smiling hat")
        'smiling hat'
    """
    return " ".join(word for word in prompt.split() if word != SUBJECT)
