"""SpaText: a map of image embeddings says what each region of an image is to show."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from latentbench.batching import even_batches
from latentbench.bounds import Count, Guidance, Name, Positive, Share, Steps, between
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.data.masks import changed
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel, LatentModel, LowRank
from latentbench.models.scorer import Scorer
from latentbench.models.unet import UNetDiffusion
from latentbench.parameterization import prediction_error
from latentbench.prompt_tokens import new_words
from latentbench.sampling.loop import (
    Step,
    Term,
    captioned,
    denoise,
    generate,
    invert,
    noise_to_level,
    plain,
)
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.adapters import EVERY, Adapted, first_down, layers_of
from methods.directions.fit_images import refuse_too_few
from methods.directions.vector_code import drawing
from methods.recombination.embedding_prior import nearest_map, spread, with_one

INPUT = "conv_in"  # the U-Net's first layer, which reads the new channels too
DOWN, UP, PROJECT, CHANNELS, PRIOR = "down/", "up/", "project", "channels", "prior"
READ = 64  # images that are read at once
TOLD = 8  # images that tell one set of data from another
GROWTH = 1  # pixels by which the region of an attribute grows


@dataclass(frozen=True)
class Segments:
    """Images of a fit, and the regions of each that the map may describe.

    Args:
        latents: clean.
        prompts: captions of whole images.
        masks: of each image's regions, in the latents' resolution.
        codes: image embedding of each region alone.
        texts: text embedding of each region's words.
    """

    latents: Float[Tensor, "n c h w"]
    prompts: Sequence[str]
    masks: Float[Tensor, "n a h w"]
    codes: Float[Tensor, "n a d"]
    texts: Float[Tensor, "n a d"]


class RegionMap(Adapted):
    """The tuned network: low-rank changes everywhere, the map in the branches that are told it.

    Args:
        learned: what was tuned; see `SpaText.state`.
        regions: the map ST, one per image.
        branches: names of the terms that are told it.
    """

    layers = (INPUT,)

    def __init__(
        self,
        learned: Mapping[str, Tensor],
        regions: Float[Tensor, "b d h w"],
        branches: Sequence[str],
    ) -> None:
        names = [name.removeprefix(DOWN) for name in learned if name.startswith(DOWN)]
        super().__init__({n: LowRank(learned[DOWN + n], learned[UP + n]) for n in names})
        self.told = tuple(branches)
        self.added = read_channels(regions, learned[PROJECT], learned[CHANNELS])

    def features(
        self, step: Step, layer: str, h: Float[Tensor, "k b c h w"]
    ) -> Float[Tensor, "k b c h w"]:
        """Return the first layer's output, with what it makes of the new channels."""
        told = h.new_tensor([name in self.told for name in step.branches])
        return h + told[:, None, None, None, None] * self.added.to(h)


class SpaText(Editor[DiffusionModel]):
    """Writes image embeddings into regions, and samples from a model that was tuned to read them.

    Source: "SpaText: Spatio-Textual Representation for Controllable Image Generation", section 3.
    ST is a map whose value inside a region is the image embedding of that region alone, and 0
    elsewhere. It is projected to a few channels by a 1 x 1 convolution and concatenated to the
    noisy latents; the new channels start at 0, so that tuning starts from the model as it is.

    1. Of a training image, some regions are drawn at random, cut out on a neutral background, and
       embedded; caption and ST are dropped independently, each with probability `drop`.
    2. For sampling, a region's words become a text embedding, that an image embedding by a
       text-to-image prior, and that is written into the mask.
    3. Guidance by several conditions: eps = eps(0) + sum_i s_i (eps(c_i) - eps(0)), one pass each;
       `fast`: along the joint direction, eps = eps(0) + s (eps(all) - eps(0)), in two passes.

    An edit inverts the image into x_T by the tuned model's deterministic sampler, told nothing, and
    samples from there. c_1 is the caption after the edit; c_2 is ST, whose one region is the edit's
    mask with the words that are new in that caption (all of it, where none is). The strength
    multiplies all s_i, so that 0 is the reconstruction. Nothing is blended: what is kept outside
    the mask, the model keeps.

    Deviations: the model is tuned by low-rank changes of its attention layers and the new channels,
    not in all of its weights; what the first layer makes of the new channels is added to its
    output, which is the same sum. A region is where an attribute shows, as far as the data can draw
    it at both its ends, in place of a panoptic segmentation; so each has words. Captions
    are cut to words drawn at random, each image with a share of its own: captions that name all
    there is leave the map nothing to say. A region is cut out where it lies, not enlarged: a scorer
    of whole images reads little of enlarged parts. The prior is the affine map that is nearest in
    the least squares from regions' words to their embeddings, scaled to unit length, and no
    diffusion prior of whole images. Levels are of the sampler's grid, one for all images of a step.
    Real images are the suite's own use: the paper draws new ones.

    Args:
        scorer: a yaml of conf/scorer, whose two towers embed.
        images: of the generators' split that the fit learns from; the cell's seed chooses them.
        batch: images of one step.
        iterations: steps of Adam; 0 leaves the model as it is, which ST does not change.
        learning_rate: of Adam at the start; it falls to 0.
        rank: of the low-rank changes.
        channels: of the projected map.
        regions: of one training image, at most.
        drop: chance that the caption is dropped, and that ST is.
        text_to_image: "prior", or "identity": the text embedding itself is written.
        guidance: s of the caption, and of both where `fast`.
        local_guidance: s of ST.
        fast: one joint direction.
        steps: sampling steps; default: the model's.
        max_strength: largest factor on the scales of a benchmark's curve.

    Raises:
        BadInput: a batch of more images than there are; no guidance by words, where the map has no
            effect either; an edit without masks or captions.

    Example:
        >>> editor = SpaText(fast=True)  # editor.fit(data, []); editor.edit(batch, edit, strengths)
    """

    paper = "SpaText: Spatio-Textual Representation for Controllable Image Generation, section 3"
    version = 2
    small: ClassVar[Mapping[str, Any]] = {"images": 4, "batch": 2, "iterations": 2, "rank": 2}
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    families: ClassVar[tuple[type[LatentModel], ...]] = (UNetDiffusion,)
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        verb: frozenset({Space.NOISE, Space.TEXT, Space.WEIGHTS}) for verb in ("invert", "edit")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "invert": frozenset({Capability.SCORER, Capability.COUNTERFACTUALS}),
        "edit": frozenset(
            {
                Capability.TARGET_PROMPTS,
                Capability.EDIT_MASKS,
                Capability.SCORER,
                Capability.COUNTERFACTUALS,
            }
        ),
    }

    def __init__(
        self,
        *,
        scorer: Name = "clip1",
        images: Count = 256,
        batch: Count = 8,
        iterations: Annotated[int, between(0, 1_000_000)] = 400,
        learning_rate: Positive = 1e-3,
        rank: Annotated[int, between(1, 1024)] = 8,
        channels: Annotated[int, between(1, 1024)] = 8,
        regions: Count = 3,
        drop: Share = 0.1,
        text_to_image: Literal["prior", "identity"] = "prior",
        guidance: Guidance = 3.0,
        local_guidance: Guidance = 3.0,
        fast: bool = False,
        steps: Steps | None = None,
        max_strength: Positive = 1.0,
    ) -> None:
        if batch > images:
            raise BadInput(f"a batch of {batch} is more than the {images} images")
        deaf = {"fast=true": fast, "local_guidance=0": not local_guidance,
                "iterations=0": not iterations, "drop=1": drop == 1}  # fmt: skip
        if guidance == 0 and any(deaf.values()):
            why = next(name for name, holds in deaf.items() if holds)
            raise BadInput(
                f"guidance=0 leaves an edit to the map, which does nothing where {why}; give a "
                f"guidance above 0, or another {why.split('=')[0]}"
            )
        self.scorer, self.images, self.batch = scorer, images, batch
        self.iterations, self.learning_rate, self.rank = iterations, learning_rate, rank
        self.channels, self.regions, self.drop = channels, regions, drop
        self.text_to_image: Literal["prior", "identity"] = text_to_image
        self.guidance, self.local_guidance, self.fast = guidance, local_guidance, fast
        self.steps, self.max_strength = steps, max_strength
        self.learned_: dict[str, Tensor] = {}

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more images than there are."""
        refuse_too_few(self.images, data)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Tune the model to read ST, and find the prior.

        Cells that differ in how they sample share what is learned.
        """
        del edits
        draw = self.streams.generator("fit/images")  # a permutation of millions takes far longer
        chosen = torch.randint(data.size("generator"), (self.images,), generator=draw).tolist()
        shown = data.batch("generator", chosen[:TOLD])
        key = content_hash(
            self.model.fingerprint(), self.parts["scorer"].fingerprint(),
            *drawing(self.model, data), shown.images, shown.prompts, chosen,
            self.streams.seed, self.batch, self.iterations, self.learning_rate, self.rank,
            self.channels, self.regions, self.drop, self.steps,
        )  # fmt: skip
        found = self.cache.get_or_make("spatext", key, lambda: self._learned(data, chosen))
        self.load_state(found)

    def state(self) -> dict[str, Tensor]:
        """Return ``down/LAYER``, ``up/LAYER``, ``project``, ``channels`` and ``prior``."""
        return self.learned_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take them back."""
        self.learned_ = {name: value.to(self.model.device) for name, value in state.items()}

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images with what the edit adds written into its masks, one per strength."""
        self._refuse_unfitted()
        if edit.masks is None or edit.target_prompts is None:
            lacks = "masks" if edit.masks is None else "captions"
            raise BadInput(
                f"edit {edit.name!r} has no {lacks}, and spatext writes words into a mask; choose "
                f"benchmark=local_editing benchmark.give_masks=true"
            )
        b, s, model = len(batch), len(strengths), self.model
        targets, sources = edit.target_prompts, edit.source_prompts or ("",) * b
        pairs = zip(targets, sources, strict=True)
        codes = self.codes([new_words(after, before) or after for after, before in pairs])
        x = self.invert(batch).parts[Space.NOISE]
        masks = area_mask(edit.masks.to(x)[:, None], x.shape[-2:])
        regions = spatial_map(codes[:, None].to(x), masks)
        null, told = model.unconditional(b), captioned(model, targets)
        terms = self._terms(null.repeat(s), told.repeat(s), strengths.to(x).repeat(b))
        images = self._sampled(x.repeat_interleave(s, 0), terms, regions.repeat_interleave(s, 0))
        return images.unflatten(0, (b, s))

    def invert(self, batch: Batch) -> Latent:
        """Return x_T of the tuned model, which is told neither words nor a region."""
        self._refuse_unfitted()
        key = content_hash(
            self.model.fingerprint(), self.learned_, batch.ids, batch.images, self.steps
        )
        made = self.cache.get_or_make("spatext_inversion", key, lambda: self._inverted(batch))
        return Latent({Space.NOISE: made["x"].to(self.model.device)})

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return what the tuned model makes of x_T, told neither words nor a region."""
        self._refuse_unfitted()
        x = latent.parts[Space.NOISE]
        return self._sampled(x, plain(self.model.unconditional(len(x))), self._nowhere(x))

    def codes(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Return the unit embedding that is written into a region of these words."""
        embedded = each_alone(self.parts["scorer"], texts).to(self.model.device)
        if self.text_to_image == "identity":
            return embedded
        return F.normalize(with_one(embedded) @ self.learned_[PRIOR].to(embedded), dim=1)  # 2.

    def _terms(self, null: Condition, told: Condition, alpha: Float[Tensor, " r"]) -> list[Term]:
        """Return the terms of the guidance, of scales alpha s_i; those of s_i = 0 are left out."""
        conditions = {"words": (told, self.guidance), "regions": (null, self.local_guidance)}
        if self.fast:
            conditions = {"all": (told, self.guidance)}
        parts = {name: part for name, part in conditions.items() if part[1]}
        total = sum(scale for _, scale in parts.values())
        terms = [Term(name, c, alpha * scale) for name, (c, scale) in parts.items()]
        return [Term("none", null, 1 - alpha * total), *terms]  # 3.

    def _sampled(
        self, x: Float[Tensor, "r ..."], terms: Sequence[Term], regions: Float[Tensor, "r d hl wl"]
    ) -> Float[Tensor, "r 3 h w"]:
        """Return the tuned model's images, of which terms for regions are told the map."""
        model, told = self.model, RegionMap(self.learned_, regions, ("regions", "all"))
        z = generate(model, x, terms, grid=model.grid(self.steps), interventions=[told])
        return model.decode(z)

    def _inverted(self, batch: Batch) -> dict[str, Tensor]:
        model, z0 = self.model, self.model.encode(batch.images)
        terms = plain(model.unconditional(len(batch)))
        tuned = RegionMap(self.learned_, self._nowhere(z0), ())
        return {"x": invert(model, z0, terms, grid=model.grid(self.steps), interventions=[tuned])}

    def _nowhere(self, x: Float[Tensor, "r c h w"]) -> Float[Tensor, "r d h w"]:
        """Return the map of no region."""
        return x.new_zeros(len(x), self.learned_[PROJECT].shape[1], *x.shape[-2:])

    def _refuse_unfitted(self) -> None:
        if not self.learned_:
            raise BadInput("spatext has learned nothing yet; call fit, or load_state")

    def _learned(self, data: Dataset, chosen: Sequence[int]) -> dict[str, Tensor]:
        """Return all that is learned."""
        with torch.no_grad():
            known = self.segments(data, chosen)
        prior = nearest_map(known.texts.flatten(0, 1), known.codes.flatten(0, 1))
        size = known.codes.shape[2]
        learned = {k: v.to(self.model.device) for k, v in self._first(size).items()}
        for value in learned.values():
            value.requires_grad_()
        adam = torch.optim.Adam(learned.values(), self.learning_rate)
        for step in self.fitting.steps("spatext", self.iterations, learned, adam):
            adam.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.iterations)
            adam.zero_grad()
            self.loss(known, learned, f"spatext/{step}").backward()
            adam.step()
        return {k: v.detach() for k, v in learned.items()} | {PRIOR: prior}

    def loss(self, known: Segments, learned: Mapping[str, Tensor], draw: str) -> Float[Tensor, ""]:
        """Return the squared error of what the network predicts, at one level for all images.

        Args:
            known: images and regions.
            learned: what is tuned.
            draw: name of what is drawn.
        """
        model, grid, b = self.model, self.model.grid(self.steps), self.batch
        generator = self.streams.generator(draw)
        rows = self.streams.choice(f"{draw}/images", len(known.latents), b)
        level = int(torch.randint(grid.n, (), generator=generator))
        eps = torch.randn(b, *known.latents.shape[1:], generator=generator).to(known.latents)
        silent, blank = torch.rand(2, b, generator=generator) < self.drop  # 1.
        taken = self._taken(known.masks[rows], generator) & ~blank[:, None]
        masks = known.masks[rows] * taken.to(known.masks)[:, :, None, None]
        shares = torch.where(silent, 0.0, torch.rand(b, generator=generator)).tolist()
        told = [known.prompts[k] for k in rows]
        prompts = [cut(p, share, generator) for p, share in zip(told, shares, strict=True)]
        z0 = known.latents[rows]
        change = RegionMap(learned, spatial_map(known.codes[rows], masks), ("condition",))
        x0, found = denoise(
            model, noise_to_level(grid, z0, eps, level), plain(captioned(model, prompts)),
            grid=grid, level=level, interventions=[change],
        )  # fmt: skip
        levels = grid.levels(level, z0)
        error = prediction_error(model.prediction_type, (x0, found), (z0, eps), *levels)
        return error.square().mean()

    def _taken(
        self, masks: Float[Tensor, "b a h w"], generator: torch.Generator
    ) -> Bool[Tensor, "b a"]:
        """Return which regions of each image are written: 1 to `regions` of them."""
        b, a = masks.shape[:2]
        most = min(self.regions, a)
        count = torch.randint(1, most + 1, (b, 1), generator=generator)
        rank = torch.rand(b, a, generator=generator).argsort(1).argsort(1)
        return rank < count

    def segments(self, data: Dataset, chosen: Sequence[int]) -> Segments:
        """Return images of the generators' split with all of their regions."""
        parts = []
        for index, kept in even_batches(len(chosen), READ):
            parts.append(self._read(data, [chosen[k] for k in index], kept))
        prompts = [prompt for part in parts for prompt in part.prompts]
        joined = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("latents", "masks", "codes", "texts")
        )
        latents, masks, codes, texts = joined
        return Segments(latents, prompts, masks, codes, texts)

    def _read(self, data: Dataset, index: Sequence[int], kept: int) -> Segments:
        """Return the first `kept` of these images with their regions."""
        batch, scorer, n = data.batch("generator", index), self.parts["scorer"], len(index)
        prompts = batch.prompts or ("",) * n
        z0 = self.model.encode(batch.images.to(self.model.device))
        masks, codes, texts = [], [], []
        for attribute in data.attributes:
            ends = [torch.full((n,), value) for value in (0.0, 1.0)]
            low, high = (data.counterfactual("generator", index, attribute, e) for e in ends)
            mask = changed(low, high, GROWTH)
            masks.append(area_mask(mask[:, None].to(z0), z0.shape[-2:])[:, 0])
            codes.append(scorer.image(batch.images * mask[:, None]).to(z0))  # grey is 0
            named = [data.edited_prompts("generator", index, attribute, e) for e in ends]
            words = [new_words(own, both(a, c)) for own, a, c in zip(prompts, *named, strict=True)]
            texts.append(each_alone(scorer, words).to(z0))
        stacked = (torch.stack(v, 1)[:kept] for v in (masks, codes, texts))
        return Segments(z0[:kept], prompts[:kept], *stacked)

    def _first(self, size: int) -> dict[str, Tensor]:
        """Return a change that changes nothing yet, for embeddings of this size."""
        layers = layers_of(self.model, EVERY)
        down = first_down(layers, 1, self.rank, self.streams, "spatext/down")
        found = {DOWN + name: value for name, value in down.items()}
        found |= {UP + n: torch.zeros(1, out, self.rank) for n, (_, out) in layers.items()}
        first = self.model.network.get_submodule(INPUT)
        generator = self.streams.generator("spatext/project")
        found[PROJECT] = torch.randn(self.channels, size, generator=generator) / size**0.5
        found[CHANNELS] = torch.zeros(first.out_channels, self.channels, *first.kernel_size)
        return found


def each_alone(scorer: Scorer, texts: Sequence[str]) -> Float[Tensor, "b d"]:
    """Return the embeddings of texts, each read alone.

    Those that are read together are padded to the longest, on which their last bits may depend.
    """
    known = {text: scorer.text([text]) for text in dict.fromkeys(texts)}
    return torch.cat([known[text] for text in texts])


def spatial_map(
    codes: Float[Tensor, "b k d"], masks: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b d h w"]:
    """Return ST: each region's embedding at its cells, at a spread of 1, and 0 elsewhere.

    Where regions overlap, the smallest counts.

    Args:
        codes: unit embeddings.
        masks: 1 inside the region of an embedding, 0 outside.

    Example:
        >>> codes = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> masks = torch.tensor([[[[1.0, 1.0]], [[0.0, 1.0]]]])
        >>> spatial_map(codes, masks)[0, :, 0].T.tolist()  # of each cell, times sqrt(2)
        [[1.4142135381698608, 0.0], [0.0, 1.4142135381698608]]
    """
    b, k, d = codes.shape
    order = masks.flatten(2).sum(2).argsort(dim=1, descending=True, stable=True)
    wide = spread(codes.flatten(0, 1)).unflatten(0, (b, k))
    found = codes.new_zeros(b, d, *masks.shape[-2:])
    row = torch.arange(b, device=codes.device)
    for place in order.unbind(1):
        inside = masks[row, place][:, None] > 0
        found = torch.where(inside, wide[row, place][:, :, None, None], found)
    return found


def area_mask(mask: Float[Tensor, "b 1 H W"], size: Sequence[int]) -> Float[Tensor, "b 1 h w"]:
    """Return 1 at the cells of which half or more lies inside a mask, 0 elsewhere.

    Of a mask too thin for that, the cells are taken of which most lies inside.

    Example:
        >>> mask = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])[None, None]
        >>> area_mask(mask, (1, 2)).tolist(), area_mask(mask[..., 2:], (1, 1)).tolist()
        ([[[[1.0, 0.0]]]], [[[[1.0]]]])
    """
    area = F.adaptive_avg_pool2d(mask, (size[0], size[1]))
    least = area.flatten(1).amax(1).clamp(max=0.5)[:, None, None, None]
    return ((area >= least) & (area > 0)).to(mask)


def read_channels(
    regions: Float[Tensor, "b d h w"],
    project: Float[Tensor, "p d"],
    channels: Float[Tensor, "c p kh kw"],
) -> Float[Tensor, "b c h w"]:
    """Return what a first layer adds to its output for the channels that a map is projected to."""
    projected = F.conv2d(regions.to(project), project[:, :, None, None])
    return F.conv2d(projected, channels, padding="same")


def cut(caption: str, share: float, generator: torch.Generator) -> str:
    """Return a caption with each of its words kept by this chance.

    Example:
        >>> cut("young smiling hat", 1.0, torch.Generator())
        'young smiling hat'
    """
    words = caption.split()
    kept = (torch.rand(len(words), generator=generator) < share).tolist()
    return " ".join(itertools.compress(words, kept))


def both(a: str, b: str) -> str:
    """Return the words of one caption that another has as well.

    Example:
        >>> both("young smiling hat", "young frowning hat")
        'young hat'
    """
    return " ".join(word for word in a.split() if word in b.split())
