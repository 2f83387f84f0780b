"""`personalisation_error_<judge>`: the subject, as the prompt asks, as varied as its photos?"""

from torch import Tensor

from latentbench.metric import Figure
from latentbench.types import Samples
from metrics.pairs.variation_error import SMALLEST, VariationError


class PersonalisationError(VariationError):
    """How far new pictures of a subject are from photos of it that show what was asked.

    * `subject_error`: the content error of `VariationError`. 0 is what photos of the subject give,
      1 what photos of somebody else give; blur and noise are no photos of anybody.
    * `prompt_error`: root mean square over the asked factors of (reading of a draw - mean reading
      of the true photos) / the same of the first reference, which lacks all of them: 0 is the
      prompt obeyed, 1 a reference copied. Half of a thing that is there or not counts as nothing.
    * `variety_error`: the spread error of `VariationError`, against true photos that show what was
      asked: 0 is their variety, 1 is one picture again and again.
    * `personalisation_error`: the sum.

    Source: this suite; possible since the data set draws faces. The three aims are those of
    "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation", section
    4.2: subject fidelity, prompt fidelity, diversity.

    Args:
        extractor: judge whose features give the distances, and which reads what was asked.

    Raises:
        NotMeasurable: fewer than two draws of a subject under a prompt.

    Example:
        >>> list(PersonalisationError().figures)[1:]
        ['subject_error_zoo1', 'prompt_error_zoo1', 'variety_error_zoo1']
    """

    needs = frozenset({"truths", "factors", "wanted", "sources"})
    source = "DreamBooth, section 4.2: subject, prompt and diversity, with known factors"

    @property
    def figures(self) -> dict[str, Figure]:
        """The sum and its parts."""
        by = f"perceptual of {self.extractor}"
        words = {
            "personalisation_error": f"subject error + prompt error + variety error, {by}",
            "subject_error": f"distance to the subject's photo / that of somebody else's, {by}",
            "prompt_error": f"distance to what was asked / the reference's, read by "
            f"{self.extractor}",
            "variety_error": f"energy distance to the subject's photos / that of copies, {by}",
        }
        return {
            f"{name}_{self.extractor}": Figure(
                text, "", None, None, higher_is_better=False, smallest=SMALLEST
            )
            for name, text in words.items()
        }

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the four errors of each row ``[b]``."""
        subject, variety = self.content_and_spread(samples)
        prompt = self.far_from_asked(samples)
        errors = (subject + prompt + variety, subject, prompt, variety)
        return dict(zip(self.figures, errors, strict=True))
