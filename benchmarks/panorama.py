"""Does a wide picture hold together, and are its parts still parts of their own?"""

from typing import Any

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count
from latentbench.data.dataset import Dataset, Split
from latentbench.data.strips import windows_in
from latentbench.errors import BadInput
from latentbench.types import Capability, Samples

WINDOWS = 2  # of a strip, without which there is nothing to compare


class Panorama(Benchmark):
    """A caption in, a strip several times as wide as the model's images out.

    Captions name what all things of a strip share, but leave room: their words are ranges. Each
    strip should have one light, one hue, hats for all or none; and still, no two faces alike. The
    truth is the data set's own strip of that caption: not the one answer, but one that has all of
    this.

    The main score (`metrics.strips.strip_error`) adds up five ways of missing a true strip: parts
    that do not go together, copies of one part, another caption, what is no picture of anything,
    and seams.

    Args:
        n: strips.
        split: where captions come from.

    Raises:
        BadInput: strips that have no room for two windows to compare (raised by `check`).
    """

    question = "Does a wide picture hold together, of parts that are each their own?"
    verbs = frozenset({"panorama"})
    needs = frozenset({Capability.PROMPTS, Capability.STRIPS})
    main_score = "strip_error_zoo1"

    def __init__(self, *, n: Count = 32, split: Split = "test") -> None:
        self.n, self.split = n, split

    def check(self, dataset: Dataset) -> None:
        """Refuse strips of a single window: nothing in them can hold together or be alike."""
        super().check(dataset)
        side, width = dataset.batch(self.split, [0]).images.shape[-2:]
        room = windows_in(width, side, dataset.pitch)
        if room < WINDOWS:
            raise BadInput(
                f"panorama compares {WINDOWS} windows of a strip or more, one of {width} pixels "
                f"has room for {room}; set dataset.width to {side + WINDOWS * dataset.pitch} or "
                f"more"
            )

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        del dataset
        return ("strips",)

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return one strip per caption, and a true one."""
        batch = bench.dataset.batch(self.split, work.indices)
        prompts = batch.prompts if Capability.PROMPTS in bench.model.gives else None
        strips = bench.editor.panorama(batch.ids, prompts, int(batch.images.shape[-1]))
        return Samples(
            batch.ids,
            strips.clamp(-1, 1).cpu()[:, None],
            (work.group,) * len(batch),
            truths=batch.images[:, None],
            factors=batch.factors,
            prompts=batch.prompts,
        )
