"""Is everybody whom a method invents one person in all pictures, and each another one?"""

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.composition import goals
from benchmarks.personalisation import Personalisation, Prompts, with_ends, words_of
from latentbench.benchmark import Bench, Work
from latentbench.bounds import Count, SetSize
from latentbench.data.dataset import Split
from latentbench.types import SUBJECT, Capability, Samples


class Invention(Personalisation):
    """A name in, many pictures of the one character that a method has given that name out.

    A method is told a character's name, that of one image's noise, and a prompt such as
    "<subject> smiling hat", in which the subject stands for the character. Noises are shared
    neither by draws nor by prompts, so that a character is not its noise. Nobody says who a
    character is: what counts is that it is one person under all prompts and that no two characters
    are the same one. The measure is as many real people, photos of whom show what was asked.

    The main score (`metrics.pairs.invention_error`) adds up how much less people differ from each
    other than from themselves, against photos, and how far the draws are from the prompt: 0 is
    photos of real people, 1 is one of the two missed altogether: somebody else in each picture, or
    the same face for all.

    Args:
        n: characters.
        prompts: attributes with their directions.
        draws: pictures of each under each prompt.
        split: whose people are the measure.
    """

    question = "Is an invented character one person in all pictures, and each another one?"
    verbs = frozenset({"invent"})
    needs = frozenset({Capability.LABELS, Capability.PROMPTS, Capability.COUNTERFACTUALS})
    gives: frozenset[Capability] = frozenset()
    main_score = "invention_error_zoo1"

    def __init__(
        self,
        *,
        n: Count = 20,
        prompts: Prompts = ("glasses+", "smile+ hat+", "age+ beard+", "yaw+ shirt+"),
        draws: SetSize = 2,
        split: Split = "test",
    ) -> None:
        super().__init__(n=n, references=1, prompts=prompts, draws=draws, split=split)

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the draws of each character under the prompt, and as many photos of somebody."""
        data, asked, places = bench.dataset, goals(work.group), work.indices
        lacking = {a: 1 - goal for name in self.prompts for a, goal in goals(name).items()}
        people = self.subjects(places, bench, lacking)
        prompt = (f"{SUBJECT} {words_of(data, asked)}",) * self.draws
        first = self.references + self.prompts.index(work.group) * (self.draws + 1)
        photos = self._photos(data, people.factors, places, first, self.draws, asked)
        draws = [
            bench.editor.invent((name,) * self.draws, self._noises(name, work.group), prompt)
            for name in people.ids
        ]
        return Samples(
            people.ids,
            torch.stack(draws).clamp(-1, 1).cpu(),
            (work.group,) * len(places),
            sources=people.references[:, 0],
            truths=data.render(photos.flatten(0, 1)).unflatten(0, (-1, self.draws)),
            factors=people.factors,
            wanted=with_ends(data, people.factors[:, None], asked).expand(-1, self.draws, -1),
        )

    def _noises(self, character: str, group: str) -> Sequence[str]:
        """Return the names of the noises of a character's draws under a prompt."""
        return tuple(f"{character}/{group}/{k}" for k in range(self.draws))
