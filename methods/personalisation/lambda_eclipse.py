"""lambda-ECLIPSE: one pass from words and a photo of the subject to an image's code."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from diffusers import PriorTransformer
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from latentbench.batching import even_batches
from latentbench.bounds import Count, Name, NotNegative, Positive, SetSize, Share, Steps, between
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel
from latentbench.types import SUBJECT, Batch, Capability, Latent, Space
from methods.directions.vector_code import (
    ENCODED,
    MEAN,
    UNIT,
    CodeLearner,
    drawing,
    encoded,
    rendered,
    vector_code,
)
from methods.personalisation.learned_subject import without_subject
from methods.recombination.embedding_prior import (
    LEVELS,
    nearest_map,
    noised,
    predicted,
    prior,
    refuse_width,
    sampled,
    seeded,
    spread,
    trained,
    with_one,
)

CLIP = 1.0  # norm of gradients
AFTER = 4  # tokens of the transformer after the slots


@dataclass(frozen=True)
class Captions:
    """Words of captions, padded to the longest.

    Args:
        words: of each caption, without padding.
        rows: of each word in the table of embeddings; 0 where there is none.
        there: whether there is a word.
        free: whether a word says what may change from photo to photo of one subject.
        table: embeddings of words.
    """

    words: Sequence[Sequence[str]]
    rows: Int[Tensor, "n w"]
    there: Bool[Tensor, "n w"]
    free: Bool[Tensor, "n w"]
    table: Float[Tensor, "v e"]

    def cut(self, chosen: Int[Tensor, " b"], told: Bool[Tensor, "b w"]) -> list[str]:
        """Return captions of the words that are told."""
        rows = zip(chosen.tolist(), told.tolist(), strict=True)
        return [" ".join(itertools.compress(self.words[int(k)], row)) for k, row in rows]


class LambdaEclipse(CodeLearner):
    """Predicts the code of an image from a caption in which a photo stands for the subject.

    Source: "lambda-ECLIPSE: Multi-Concept Personalized Text-to-Image Diffusion Models by Leveraging
    CLIP Latent Space", section 3, and the authors' code for inference. F is a transformer over
    [a row per word, pooled text, constant, eps ~ N(0, 1), learned query] with a causal mask, read
    at the query. The rows of the words that name the subject are replaced by the code of its photo.

    1. e^ = F(eps, words, photo), in one pass and not by denoising;
    2. F learns |e^ - e|^2 + contrast x the contrastive loss of CLIP between e^ and the text;
    3. e^ is decoded from the x_T of the id; of several references, the mean of what each gives.

    Deviations: the codes are the model's own (z_sem, a VAE's mean, w), whitened, in place of CLIP's
    embeddings, so that the contrastive loss reads e^ by the affine map to the scorer's embedding
    that is nearest on the fit's images, and words are projected to the codes' size. A word's row
    is the scorer's embedding of the word alone, in place of the text encoder's hidden states. The
    constant is a time that never changes; there it is the embedding of an empty edge image, before
    the pooled text. Photos are whole images with another background, no crops without any. A
    caption is cut to words chosen at random; the words for the subject stand in it where no photo
    does. The decoder is not guided and not tuned. One subject; no edge images; no interpolation.

    Args:
        scorer: a yaml of conf/scorer, whose text tower reads the words.
        images: of the generators' split that F learns from; the cell's seed chooses them.
        photo: what F is shown of the subject: "other", another photo of it, whose attributes are
            another image's, or "same", the image whose code is to be predicted, as published.
        iterations: steps of Adam.
        batch: images of each step.
        learning_rate: of Adam at the start; it falls to 0.
        contrast: weight of the contrastive loss.
        temperature: of the contrastive loss.
        drop: chance that no photo is shown and the subject is named by its words; 1 leaves a map
            from text alone, which is not shown the references either.
        layers: of F.
        width: of F, a multiple of its 4 heads.
        prior_steps: 1 is the published one pass; with more, F is a diffusion prior of equal size
            that is sampled with so many steps, to compare with.
        steps: sampling steps of the decoder; default: the model's, where it has any.

    Raises:
        BadInput: a width that the heads do not divide.

    Example:
        >>> method = LambdaEclipse(contrast=0.2)  # method.fit(data, ()); method.personalise(...)
    """

    paper = "lambda-ECLIPSE: Multi-Concept Personalized Text-to-Image Diffusion Models, section 3"
    measured: ClassVar[tuple[str, ...]] = (MEAN, UNIT)
    small: ClassVar[Mapping[str, Any]] = {
        "images": 8, "iterations": 2, "batch": 4, "layers": 1, "width": 16,
    }  # fmt: skip
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"personalise": frozenset({Space.NOISE})}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "personalise": frozenset(
            {
                Capability.REFERENCES,
                Capability.SCORER,
                Capability.LABELS,
                Capability.COUNTERFACTUALS,
            }
        )
    }

    def __init__(
        self,
        *,
        scorer: Name = "clip1",
        images: SetSize = 4096,
        photo: Literal["other", "same"] = "other",
        iterations: Count = 1000,
        batch: SetSize = 64,
        learning_rate: Positive = 1e-3,
        contrast: NotNegative = 0.2,
        temperature: Positive = 0.07,
        drop: Share = 0.1,
        layers: Annotated[int, between(1, 100)] = 4,
        width: Annotated[int, between(8, 8192)] = 128,
        prior_steps: Annotated[int, between(1, LEVELS)] = 1,
        steps: Steps | None = None,
    ) -> None:
        refuse_width(width)
        self.scorer, self.images, self.iterations, self.batch = scorer, images, iterations, batch
        self.photo: Literal["other", "same"] = photo
        self.learning_rate, self.drop = learning_rate, drop
        self.contrast, self.temperature = contrast, temperature
        self.layers, self.width, self.prior_steps = layers, width, prior_steps
        self.steps = steps
        self.learned_: dict[str, Tensor] = {}

    def fit(self, data: Dataset, edits: Any) -> None:
        """Learn F from images, their captions, and photos of their subjects."""
        del edits
        draw = self.streams.generator("fit/images")  # a permutation of millions takes far longer
        chosen = torch.randint(data.size("generator"), (self.images,), generator=draw).tolist()
        found = {k: v.to(self.model.device) for k, v in self._seen(data, chosen).items()}
        e = found["codes"]
        self.learned_ = {MEAN: e.mean(0), UNIT: e.std(0).clamp(min=1e-6)}
        codes, photos = (self.whitened(found[name]) for name in ("codes", "photos"))
        read = nearest_map(codes, found["embeddings"]) if self.contrast else None
        weights = self._learn(codes, photos, self._captions(data, chosen), read)
        self.learned_ |= {name: v.detach() for name, v in weights.items()}

    def personalise(
        self, references: Batch, ids: Sequence[str], prompts: Sequence[str]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id of the references' subject, from the noise of that id.

        Raises:
            BadInput: nothing is fitted, or a prompt has more words than F has rows.
        """
        if MEAN not in self.learned_:
            raise BadInput("LambdaEclipse has learned nothing yet; call fit, or load_state")
        space, photos = vector_code(self.model.code_of(references.images))
        with torch.no_grad():
            code = self.mapped(self.whitened(photos.float()), ids, prompts)
        code = code * self.learned_[UNIT] + self.learned_[MEAN]
        parts = {space: code.to(photos)}
        if isinstance(self.model, DiffusionModel):
            parts[Space.NOISE] = self.model.noise(self.streams, ids)  # 3.
        return self.model.sample(Latent(parts), guidance=1.0, steps=self.steps)

    def mapped(
        self, photos: Float[Tensor, "r d"], ids: Sequence[str], prompts: Sequence[str]
    ) -> Float[Tensor, "b d"]:
        """Return the whitened codes that F predicts of prompts, on average over the photos.

        In float64: in float32, where a row stands in the batch decides how its last bits round.

        Args:
            photos: whitened codes of the subject's photos.
            ids: one name per prompt, for its noise.
            prompts: captions; `SUBJECT` in them stands for the photo.
        """
        size, read = self.learned_["words/weight"].shape
        most = self.learned_["prior/positional_embedding"].shape[1] - AFTER
        net, project = self._empty(size, read, most)
        for network in (net, project):
            nn.Module.double(network)
        with torch.no_grad():
            for name, weight in weights_of(net, project).items():
                weight.copy_(self.learned_[name])
        scorer, count = self.parts["scorer"], len(photos)
        rows = [self._row(prompt, photos.double(), project, most) for prompt in prompts]
        slots, mask = (torch.cat(parts) for parts in zip(*rows, strict=True))
        text = spread(torch.cat([scorer.text([without_subject(prompt)]) for prompt in prompts]))
        pooled = text.to(slots).repeat_interleave(count, 0)

        def drawn(stream: str) -> Tensor:
            noise = self.streams.normal(stream, ids, photos.shape[1:], slots.device)
            return noise.to(slots).repeat_interleave(count, 0)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            return predicted(net, x, t, slots, pooled, mask)

        x = drawn("lambda_eclipse/start")
        if self.prior_steps == 1:
            found = predict(x, torch.zeros(len(x), dtype=torch.long, device=x.device))
        else:
            found = sampled(
                predict, x, lambda i: drawn(f"lambda_eclipse/noise/{i}"), self.prior_steps
            )
        return found.unflatten(0, (-1, count)).mean(1).to(photos)

    def _learn(
        self,
        codes: Float[Tensor, "n d"],
        photos: Float[Tensor, "n d"],
        captions: Captions,
        read: Float[Tensor, "f e"] | None,
    ) -> dict[str, Tensor]:
        """Return F's weights after its training on whitened codes."""
        size, table = codes.shape[1], captions.table
        net, project = self._empty(size, table.shape[1], captions.rows.shape[1] + 1)
        weights = weights_of(net, project)
        adam = torch.optim.Adam(weights.values(), self.learning_rate)
        for step in self.fitting.steps("lambda_eclipse", self.iterations, weights, adam):
            draw = self.streams.generator(f"lambda_eclipse/{step}")
            chosen = torch.randint(len(codes), (self.batch,), generator=draw)
            eps = torch.randn(self.batch, size, generator=draw).to(codes)
            t = torch.randint(LEVELS, (self.batch,), generator=draw)
            told = self._told(captions, chosen, draw)
            with torch.no_grad():
                text = self.parts["scorer"].text(captions.cut(chosen, told[:, 1:])).to(codes)
            e, t = codes[chosen], torch.zeros_like(t) if self.prior_steps == 1 else t
            t = t.to(codes.device)
            x = eps if self.prior_steps == 1 else noised(e, t, eps)
            rows = torch.cat([photos[chosen][:, None], project(table[captions.rows[chosen]])], 1)
            slots, mask = _packed(rows, told.to(codes.device))
            guess = predicted(net, x, t, slots, spread(text), mask)  # 1.
            loss = (guess - e).square().mean()
            if read is not None:
                nearest = contrastive(with_one(guess) @ read, text, self.temperature)
                loss = loss + self.contrast * nearest  # 2.
            adam.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.iterations)
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights.values(), CLIP)
            adam.step()
        return weights

    def _told(
        self, captions: Captions, chosen: Int[Tensor, " b"], draw: torch.Generator
    ) -> Bool[Tensor, "b w"]:
        """Return whether the photo, and then each word, is told.

        Of each image, words are told with a chance of its own, drawn evenly.
        """
        count, width = len(chosen), captions.rows.shape[1]
        shown = torch.rand(count, 1, generator=draw) >= self.drop
        share = torch.rand(count, 1, generator=draw)
        kept = torch.rand(count, width, generator=draw) < share
        kept &= captions.there[chosen] & (captions.free[chosen] | ~shown)
        return torch.cat([shown, kept], 1)

    def _row(
        self, prompt: str, photos: Float[Tensor, "r d"], project: nn.Linear, most: int
    ) -> tuple[Float[Tensor, "r k d"], Float[Tensor, "r k"]]:
        """Return the slots of a prompt, for each photo, and which of them count."""
        # a map that never saw a photo would read one as if it were a word
        words = (without_subject(prompt) if self.drop == 1 else prompt).split()
        if len(words) > most:
            raise BadInput(
                f"a prompt has {len(words)} words, F learned of captions with at most {most}: "
                f"{prompt!r}; shorten it"
            )
        slots = torch.zeros(len(photos), most, photos.shape[1]).to(photos)
        named = [k for k, word in enumerate(words) if word != SUBJECT]
        if named:
            table = self._table([words[k] for k in named]).to(photos)
            slots[:, named] = project(table)
        for k in range(len(words)):
            if words[k] == SUBJECT:
                slots[:, k] = photos
        mask = (torch.arange(most) < len(words)).to(photos)
        return slots, mask.expand(len(photos), -1)

    def _seen(self, data: Dataset, chosen: Sequence[int]) -> dict[str, Tensor]:
        """Return codes of images and of the photos of their subjects, and the scorer's embeddings.

        Kept by content.
        """
        model, scorer = self.model, self.parts["scorer"]
        known = data.describe("generator", chosen).factors
        assert known is not None
        is_free = torch.tensor([name in data.attributes for name in data.factor_names])
        shown = torch.where(is_free, known.roll(1, 0), known) if self.photo == "other" else known
        networks = (model.fingerprint(), scorer.fingerprint())
        key = content_hash("subjects", *networks, *drawing(model, data), list(chosen), known, shown)

        def make() -> dict[str, Tensor]:
            codes, seen = encoded(model, data, chosen).float(), []
            with torch.no_grad():
                for index, kept in even_batches(len(chosen), ENCODED):
                    images = data.batch("generator", [chosen[k] for k in index]).images
                    seen.append(scorer.image(images)[:kept])
            photos = codes.clone() if self.photo == "same" else rendered(model, data, shown).float()
            return {"codes": codes, "photos": photos, "embeddings": torch.cat(seen)}

        return self.cache.get_or_make("codes", key, make)

    def _captions(self, data: Dataset, chosen: Sequence[int]) -> Captions:
        """Return the words of images of the generators' split."""
        captions = data.describe("generator", chosen).prompts
        assert captions is not None
        words = [caption.split() for caption in captions]
        free, longest = free_words(data, chosen, words), max(map(len, words))
        known = sorted({word for row in words for word in row})
        number = {word: k for k, word in enumerate(known)}

        def padded(rows: Sequence[Sequence[int]]) -> Tensor:
            return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])

        return Captions(
            words,
            padded([[number[word] for word in row] for row in words]),
            padded([[1] * len(row) for row in words]).bool(),
            padded(free).bool(),
            self._table(known).to(self.model.device),
        )

    def _table(self, words: Sequence[str]) -> Float[Tensor, "v e"]:
        """Return the embedding of each word alone."""
        with torch.no_grad():
            return spread(self.parts["scorer"].text(words))

    def _empty(self, size: int, text: int, slots: int) -> tuple[PriorTransformer, nn.Linear]:
        """Return F before it has learned anything: the transformer, and the words' projection."""
        start = self.streams.generator("lambda_eclipse/weights")
        made = partial(prior, self.layers, self.width, size, slots, text)
        net, project = seeded(start, lambda: (made(), nn.Linear(text, size)))
        for network in (net, project):
            nn.Module.to(network, self.model.device)
        return net, project


def weights_of(net: PriorTransformer, project: nn.Linear) -> dict[str, Tensor]:
    """Return F's weights by name."""
    words = {f"words/{name}": v for name, v in project.named_parameters()}
    return {f"prior/{name}": v for name, v in trained(net).items()} | words


def contrastive(
    images: Float[Tensor, "b e"], texts: Float[Tensor, "b e"], temperature: float
) -> Float[Tensor, ""]:
    """Return CLIP's loss: each image is to be nearest to its own text, and the other way round.

    Source: "Learning Transferable Visual Models From Natural Language Supervision", figure 3.

    Args:
        images: embeddings of any length.
        texts: embeddings of any length, row by row.
        temperature: of the softmax over cosines.

    Example:
        >>> same = torch.eye(4)
        >>> bool(contrastive(same, same, 0.1) < contrastive(same, same.flip(0), 0.1))
        True
    """
    cosines = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T / temperature
    own = torch.arange(len(cosines), device=cosines.device)
    return (F.cross_entropy(cosines, own) + F.cross_entropy(cosines.T, own)) / 2


def free_words(
    data: Dataset, chosen: Sequence[int], words: Sequence[Sequence[str]]
) -> list[list[int]]:
    """Return 1 for each word of a caption that the edit of some attribute takes away."""
    kept = [set(row) for row in words]
    for name in data.attributes:
        for end in (0.0, 1.0):
            values = torch.full((len(chosen),), end)
            edited = data.edited_prompts("generator", chosen, name, values)
            kept = [row & set(prompt.split()) for row, prompt in zip(kept, edited, strict=True)]
    return [
        [int(word not in stays) for word in row] for row, stays in zip(words, kept, strict=True)
    ]


def _packed(
    rows: Float[Tensor, "b k d"], told: Bool[Tensor, "b k"]
) -> tuple[Float[Tensor, "b k d"], Float[Tensor, "b k"]]:
    """Return the rows that are told, in front and in their order, and a mask of them."""
    order = told.int().argsort(dim=1, descending=True, stable=True)
    mask = told.gather(1, order).to(rows)
    return rows.gather(1, order[..., None].expand_as(rows)) * mask[..., None], mask
