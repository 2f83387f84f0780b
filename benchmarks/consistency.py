"""Do many pictures show the one person that the model has invented?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.personalisation import Personalisation, Prompts, Subjects, with_ends, words_of
from latentbench.benchmark import Bench
from latentbench.bounds import Count, SetSize
from latentbench.content import content_hash
from latentbench.data.dataset import Split
from latentbench.types import Capability
from latentbench.zoo.answers import PROJECTORS, read_factors
from latentbench.zoo.judges import Judge, load_judge


class Consistency(Personalisation):
    """One picture of somebody whom the model has invented in, more pictures of that person out.

    The model draws one picture at its own steps and guidance, of a caption that names no identity:
    only that everything is absent which the prompts will ask for. Whom it shows is decided by the
    noise. The picture is the one reference; its identity is what zoo2 and zoo3 read on it (the mean
    of both), and everything else is as in `Personalisation`: prompts, truth and scores. So the
    pictures are held against photos of the invented person, and one face for all is nobody's.

    Args:
        n: invented people.
        prompts: attributes with their directions.
        draws: pictures of each under each prompt.
        split: what the people's noises are named after.
    """

    question = "Do many pictures show the one person that the model has invented?"
    needs = frozenset({Capability.LABELS, Capability.PROMPTS, Capability.COUNTERFACTUALS})
    fixed_networks = frozenset(PROJECTORS)

    def __init__(
        self,
        *,
        n: Count = 8,
        prompts: Prompts = ("glasses+", "smile+ hat+", "age+ beard+", "yaw+ shirt+"),
        draws: SetSize = 4,
        split: Split = "test",
    ) -> None:
        super().__init__(n=n, references=1, prompts=prompts, draws=draws, split=split)

    def subjects(
        self, places: Sequence[int], bench: Bench, lacking: Mapping[str, float]
    ) -> Subjects:
        """Return the invented people, read by judges that do not score."""
        data = bench.dataset
        ids = data.describe(self.split, places).ids
        caption = words_of(data, lacking)
        images = torch.cat([self._invented(bench, name, caption) for name in ids])
        read = read_factors(images[:, None].to(bench.device), _judges(bench.device)).cpu()[:, 0]
        factors = with_ends(data, read, lacking)
        return Subjects(ids, factors, images[:, None])

    def _invented(self, bench: Bench, name: str, caption: str) -> Float[Tensor, "1 3 h w"]:
        """Return the model's picture of the caption, kept for all prompts and methods."""
        model, own = bench.model, f"{name}/invented"

        def make() -> dict[str, Tensor]:
            start = replace(model.prior(bench.streams, (own,)), prompts=(caption,))
            return {"images": model.sample(start).clamp(-1, 1)}

        key = content_hash("invented", model.fingerprint(), bench.streams.seed, own, caption)
        return bench.cache.get_or_make("sample", key, make)["images"].cpu()


@cache
def _judges(device: torch.device) -> list[Judge]:
    return [load_judge(name, device) for name in PROJECTORS]
