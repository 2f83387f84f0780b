"""The nouns that travel between data, editors, benchmarks and metrics: frozen dataclasses.

Axis names in shapes: b images, s strengths or path frames, c h w image, f factors, n steps.
Images are float32 RGB in [-1, 1] everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentbench.errors import BadInput, NotFinite


class Space(StrEnum):
    """Where a method works. A model class lists the spaces it has, a method those it requires."""

    NOISE = "noise"  # x_T
    NOISE_MAPS = "noise_maps"  # x_T and z_1..T of a stochastic sampler
    VAE = "vae"  # z_0, the autoencoder's latent
    BOTTLENECK = "bottleneck"  # h_t, output of the network's middle block
    TEXT = "text"  # prompt embedding, per layer and step where needed
    ATTENTION = "attention"  # queries, keys, values and maps inside the network
    JOINT_ATTENTION = "joint_attention"  # those of image and text tokens in one layer
    TOKEN_MAPS = "token_maps"  # how much each place of the image reads each token of the prompt
    CONSISTENCY = "consistency"  # x_t to x_0 in one call, noised again between steps: no inversion
    SEMANTIC = "semantic"  # z_sem of a diffusion autoencoder
    STYLE = "style"  # w of a style-based GAN
    WEIGHTS = "weights"  # adapter coefficients


class Capability(StrEnum):
    """What a method or a benchmark needs, and a model, a data set, a benchmark or a part gives."""

    LABELS = "labels"  # a data set: known factors of each image
    PROMPTS = "prompts"  # a data set: a caption per image; a model: images from captions
    CLASSES = "classes"  # a model: its captions name one of its classes
    WORDS = "words"  # a model: embeddings of new words can take part in a caption
    CONTROL = "control"  # a model: an image, such as a sketch, steers its network
    PART_MASKS = "part_masks"  # a data set: where each part of the image is
    COUNTERFACTUALS = "counterfactuals"  # a data set: the exact image that an edit should give
    EDITS = "edits"  # a data set: edits of its own, as prompt pairs with masks
    STRIPS = "strips"  # a data set: wide images of things in a row that share some factors
    SECOND_DOMAIN = "second_domain"  # a data set: images of another domain, to translate to
    TARGET_PROMPTS = "target_prompts"  # a benchmark: the caption of the edited image
    EDIT_MASKS = "edit_masks"  # a benchmark: where the edit may change the image
    REFERENCES = "references"  # a benchmark: images that show the wanted look
    TRAJECTORY = "trajectory"  # a benchmark: all levels of the sampler's own way to the images
    SECOND_MODEL = "second_model"  # a part that a setting names, as the three below
    SCORER = "scorer"
    CLASSIFIER = "classifier"


@dataclass(frozen=True)
class Batch:
    """Images with what is known of them.

    Args:
        ids: one name per image; randomness is drawn per id, so a row never depends on its
            neighbours.
        images: float32 RGB in [-1, 1].
        prompts: one caption per image, where the data set has them.
        factors: known factors in [0, 1], where the data set has them.
        masks: part name -> 1 inside the part, where the data set has them.
        trajectory: x at every level of the deterministic sampler's way to the images, x_T first and
            the clean latents last, where a benchmark has made the images and compares ways.
    """

    ids: tuple[str, ...]
    images: Float[Tensor, "b 3 h w"]
    prompts: tuple[str, ...] | None = None
    factors: Float[Tensor, "b f"] | None = None
    masks: Mapping[str, Float[Tensor, "b h w"]] | None = None
    trajectory: Float[Tensor, "b l ..."] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def description(self) -> "Description":
        """What is known of the images, without their pixels."""
        return Description(self.ids, self.prompts, self.factors)


@dataclass(frozen=True)
class Description:
    """What is known of images, without their pixels.

    Args:
        ids: one name per image.
        prompts: one caption per image, where the data set has them.
        factors: known factors in [0, 1], where the data set has them.
    """

    ids: tuple[str, ...]
    prompts: tuple[str, ...] | None = None
    factors: Float[Tensor, "b f"] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Latent:
    """A code in one or more spaces, one row per image.

    Args:
        parts: tensors by space, each ``[b, ...]``; noise maps are ``[b, n, ...]``.
        start: grid index at which ``parts[NOISE]`` lives; 0 is the noisiest level.
        prompts: captions that the code was made with, where there were any.
        trajectory: x at every level of the inversion, in the order of `Batch.trajectory`, where the
            method passes through the same levels and the batch came with the sampler's.
    """

    parts: Mapping[Space, Tensor]
    start: int = 0
    prompts: tuple[str, ...] | None = None
    trajectory: Float[Tensor, "b l ..."] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.parts.values()), self.prompts or ()))


@dataclass(frozen=True)
class Endpoint:
    """One end of each path: a noise (with a prompt where the model takes one), or a real image.

    Args:
        ids: one name per path.
        noise: x_T of this end (z of a model without a sampler), for paths between generated images.
        prompts: one caption per path, where the model takes prompts.
        images: real images, for paths between inverted images.
        code: z_sem of this end, where the model takes one.
    """

    ids: tuple[str, ...]
    noise: Float[Tensor, "b ..."] | None = None
    prompts: tuple[str, ...] | None = None
    images: Float[Tensor, "b 3 h w"] | None = None
    code: Float[Tensor, "b d"] | None = None


@dataclass(frozen=True)
class Edit:
    """What a benchmark asks for, in the user's terms.

    Args:
        name: what the edit is called in tables, for instance ``glasses+``.
        attribute: the factor to change, or None for a free edit.
        sign: +1 raises the attribute, -1 lowers it.
        source_prompts: one caption per image before the edit, where there are prompts.
        target_prompts: one caption per image after the edit, where there are prompts.
        masks: 1 where the image may change, for local edits.
        references: one image per row that shows the wanted look.
        words: the attribute in words before and after the edit, such as ("bareheaded", "hatted"),
            for methods that learn from text what holds for all images.
        component: number of an unsupervised direction, for an edit that names no attribute.
        factors: factors to take of a second image, for `combine`.
    """

    name: str
    attribute: str | None = None
    sign: int = 1
    source_prompts: tuple[str, ...] | None = None
    target_prompts: tuple[str, ...] | None = None
    masks: Float[Tensor, "b h w"] | None = None
    references: Float[Tensor, "b 3 h w"] | None = None
    words: tuple[str, str] | None = None
    component: int | None = None
    factors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Concept:
    """One of several things that an image is asked to show, or not to show.

    Args:
        prompts: one caption per image.
        weight: how strongly; a negative weight asks for its absence.
        region: 1 where the concept counts, for layouts; None: everywhere.
    """

    prompts: tuple[str, ...]
    weight: float = 1.0
    region: Float[Tensor, "b h w"] | None = None


SUBJECT = "<subject>"  # means what references show, in the prompts of `personalise`


@dataclass(frozen=True)
class Direction:
    """What a direction method learned: a shift per space, with what is needed to use it again.

    Args:
        shift: one tensor per step grid index for the bottleneck ``[n, c, h, w]``, or one for
            the noise ``[c, h, w]``.
        space: where the shift is added.
        steps: number of sampling steps that it was fitted with.
        unit: what a strength of 1 means, in words.
    """

    shift: Tensor
    space: Space
    steps: int
    unit: str


At = Literal["main", "effect"]  # which output figures count at: the main one, or matched effect


@dataclass(frozen=True)
class Samples:
    """What a benchmark yields and metrics read; row k of every field belongs to ``ids[k]``.

    Args:
        ids: image or path name; the resampling unit (cluster) of every interval.
        outputs: edits over strengths, frames of a path, or one image per row (s = 1).
        groups: what the row is a case of (the edit's name, the kind of path), one per row.
        sources: the image before the edit.
        truths: the exact image that a perfect method would give, per output.
        reconstructions: the method's own output at strength 0.
        strengths: native strength of each output.
        main: index into s of the output that the main score is made of; None: all.
        effect: index into s of the output at matched effect, where figures that explain the main
            score are compared; None: at `main` as well.
        matched: whether the row's output at matched effect has that effect; rows that could not
            reach it are left out of the figures that count there. None: all rows count.
        factors: known factors of the source.
        wanted: factors that a perfect output would have, per output.
        asked: which factors an edit names, where others of `wanted` follow from them; None: those
            in which `wanted` differs from `factors`.
        other_truths: further answers of a row of which any one will do, as `truths`; see `answers`.
        other_wanted: the factors of these.
        other_asked: which factors each of them names.
        alone: images that show the asked factors one at a time, in the factors' order.
        noise: x_T, inverted or given, for the statistics of the latent.
        trajectory: x at a few levels of the sampler's way to the source, evenly spread from x_T to
            the clean latent.
        found_trajectory: the inversion's x at the same levels.
        ends: the images that a path should begin and end with.
        codes: what a model's space holds of the source, one vector per row.
        other_codes: the same image's vector in the space that `codes` are compared with.
        masks: 1 where the edit may change the image, for local edits.
        prompts: caption that each row's outputs should fit, where there are captions.
        source_prompts: caption of each source.
        before_after: an image of a caption that does not name the subject: the model's, before it
            learned the subject, and the method's, afterwards.
    """

    ids: tuple[str, ...]
    outputs: Float[Tensor, "b s 3 h w"]
    groups: tuple[str, ...]
    sources: Float[Tensor, "b 3 h w"] | None = None
    truths: Float[Tensor, "b s 3 h w"] | None = None
    reconstructions: Float[Tensor, "b 3 h w"] | None = None
    strengths: Float[Tensor, "b s"] | None = None
    main: int | None = None
    effect: int | None = None
    matched: Bool[Tensor, " b"] | None = None
    factors: Float[Tensor, "b f"] | None = None
    wanted: Float[Tensor, "b s f"] | None = None
    asked: Bool[Tensor, "b f"] | None = None
    other_truths: Float[Tensor, "b a 3 h w"] | None = None
    other_wanted: Float[Tensor, "b a f"] | None = None
    other_asked: Bool[Tensor, "b a f"] | None = None
    alone: Float[Tensor, "b k 3 h w"] | None = None
    noise: Float[Tensor, "b c hn wn"] | None = None
    trajectory: Float[Tensor, "b l c hn wn"] | None = None
    found_trajectory: Float[Tensor, "b l c hn wn"] | None = None
    ends: Float[Tensor, "b 2 3 h w"] | None = None
    codes: Float[Tensor, "b d"] | None = None
    other_codes: Float[Tensor, "b e"] | None = None
    masks: Float[Tensor, "b h w"] | None = None
    prompts: tuple[str, ...] | None = None
    source_prompts: tuple[str, ...] | None = None
    before_after: Float[Tensor, "b 2 3 h w"] | None = None

    def __post_init__(self) -> None:
        b = len(self.ids)
        for name, value in (self.tensors() | self.texts()).items():
            if len(value) != b:
                raise BadInput(
                    f"Samples.{name} has {len(value)} rows, ids has {b}; give one row per id"
                )
        for name, value in self.tensors().items():
            if not torch.isfinite(value).all():
                bad = ~torch.isfinite(value).flatten(1).all(1)
                names = [i for i, x in zip(self.ids, bad.tolist(), strict=True) if x]
                raise NotFinite(f"Samples.{name} holds NaN or infinity for images {names[:5]}")

    def __len__(self) -> int:
        return len(self.ids)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensor fields that are present, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def texts(self) -> dict[str, tuple[str, ...]]:
        """Return the fields of one text per row that are present, by name: ids, groups, prompts."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, tuple)}

    def rows(self, index: Sequence[int]) -> "Samples":
        """Return the given rows, in the given order."""
        picked = {name: value[list(index)] for name, value in self.tensors().items()}
        texts = {name: tuple(value[k] for k in index) for name, value in self.texts().items()}
        return replace(self, **texts, **picked)

    def answers(self) -> list["Samples"]:
        """Return these samples with each of the answers of which any one will do, in turn."""
        truths, wanted, asked = self.other_truths, self.other_wanted, self.other_asked
        if truths is None or wanted is None or asked is None:
            return [self]
        none = replace(self, other_truths=None, other_wanted=None, other_asked=None)
        others = zip(truths.unbind(1), wanted.unbind(1), asked.unbind(1), strict=True)
        return [
            none,
            *(replace(none, truths=t[:, None], wanted=w[:, None], asked=a) for t, w, a in others),
        ]

    def column(self, at: At) -> int | None:
        """Return the index of the output at which figures of this kind count; None: all."""
        return self.main if at == "main" or self.effect is None else self.effect

    def counting(self, at: At) -> Bool[Tensor, " b"]:
        """Return which rows count for figures of this kind."""
        everyone = torch.ones(len(self), dtype=torch.bool)
        return everyone if at == "main" or self.matched is None else self.matched

    def headline(self, at: At) -> Float[Tensor, "b s 3 h w"]:
        """Return the outputs at which figures of this kind count."""
        k = self.column(at)
        return self.outputs if k is None else self.outputs[:, k : k + 1]


@dataclass(frozen=True)
class Score:
    """One figure with its uncertainty.

    Args:
        value: the figure, or None where n is too small or nothing could be measured.
        n: number of independent units (images, paths) behind it.
        low: lower end of the 95% interval, or None where no valid interval exists.
        high: upper end of the 95% interval.
        note: why the value or interval is missing, or what the floor is.
        replicates: the figure without each group of images, where its interval is a jackknife.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    note: str = ""
    replicates: tuple[float, ...] = ()
