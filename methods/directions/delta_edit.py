"""DeltaEdit: edits of a code from text, by a map that was learned from pairs of images alone."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, mse_loss, normalize

from latentbench.batching import even_batches, map_batches
from latentbench.bounds import Count, Name, NotNegative, Positive, Steps, above, at_least, at_most
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.models.push_forward import PushForward
from latentbench.models.semantic import SemanticDiffusion
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.vector_code import vector_code

FIT_BATCH = 32
FAR = 5.0  # standard deviations by which a channel is moved to see what it does
CLOSE = 1e-5  # distance of two embeddings below which they tell nothing apart

Pairs = Annotated[int, at_least(2), at_most(100_000)]


class DeltaEdit(Editor[Any]):
    """Moves an image's code by what a map makes of a difference of texts.

    Source: "DeltaSpace: A Semantic-aligned Feature Space for Flexible Text-guided Image Editing"
    (DeltaEdit), section 3. Differences of images and of their captions point the same way in a
    scorer's space. So M learns from pairs of images, without any text, to turn (s_1, [c_1; Dc])
    into Ds = s_2 - s_1, with s the model's code and c the scorer's embedding, Dc of unit length, by
    the loss l2 |M - Ds|^2 + cosine (1 - cos(M, Ds)). An edit hands it the difference of two texts
    in place of Dc. Channels that the text does not concern are left alone: of R_j . D_text, R_j
    being the direction in which channel j moves the scorer's embedding, the `keep` largest count.

    Text is that of the captions with and without the edit, where there are captions, else the words
    of the edit. The strength multiplies the step; 1 is the published edit.

    Deviations: plain layers of one width, codes standardised per channel; one level, where a
    StyleGAN2 has three; no prompt templates; the gate is a share of the channels, there a fixed
    threshold.

    Args:
        scorer: a yaml of conf/scorer.
        images: images of the generators' split that M learns from, chosen by the cell's seed.
        rounds: steps of the training.
        pairs: pairs of images per step.
        learning_rate: of Adam.
        width: of the layers.
        l2: weight of the squared error.
        cosine: weight of the cosine.
        keep: share of the channels that an edit may change; 1 asks for no R.
        probes: images on which R is measured, by two decodings per channel.
        steps: sampling steps, where the model has any; default: the model's.
        max_strength: largest strength of a benchmark's curve.

    Raises:
        BadInput: an edit without captions and words.

    Example:
        >>> editor = DeltaEdit(keep=0.3)  # editor.fit(data, edits); editor.edit(...)
    """

    paper = "DeltaSpace: A Semantic-aligned Feature Space for Flexible Text-guided Editing, 3"
    scope = "global"
    families = (PushForward, SemanticDiffusion)
    small: ClassVar[Mapping[str, float]] = {
        "images": 12, "rounds": 120, "pairs": 16, "width": 32, "probes": 1, "learning_rate": 0.01,
    }  # fmt: skip
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {"edit": frozenset({Capability.SCORER})}

    def __init__(
        self,
        *,
        scorer: Name = "clip1",
        images: Pairs = 2000,
        rounds: Count = 2000,
        pairs: Count = 256,
        learning_rate: Positive = 0.001,
        width: Count = 256,
        l2: NotNegative = 1.0,
        cosine: NotNegative = 1.0,
        keep: Annotated[float, above(0), at_most(1)] = 0.3,
        probes: Count = 4,
        steps: Steps | None = None,
        max_strength: Positive = 1.5,
    ) -> None:
        self.scorer, self.images, self.rounds, self.pairs = scorer, images, rounds, pairs
        self.learning_rate, self.width, self.l2, self.cosine = learning_rate, width, l2, cosine
        self.keep, self.probes, self.steps, self.max_strength = keep, probes, steps, max_strength
        self.map_: nn.Sequential | None = None
        self.learned_: dict[str, Tensor] = {}

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more images than there are."""
        there = data.size("generator")
        if max(self.images, self.probes) > there:
            raise BadInput(
                f"method.images={self.images} and method.probes={self.probes}, the generators' "
                f"split has {there} images; give {there} or fewer"
            )

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn M from pairs of images, and R from moved codes."""
        scorer, chosen = self.parts["scorer"], self._chosen(data, self.images)
        s, c = [], []
        with torch.no_grad():
            for index, kept in even_batches(len(chosen), FIT_BATCH):
                images = data.batch("generator", [chosen[k] for k in index]).images
                s.append(vector_code(self.model.code_of(images))[1][:kept])
                c.append(scorer.image(images)[:kept])
        s, c = torch.cat(s), torch.cat(c).to(self.model.device)
        self.learned_ = {"mean": s.mean(0), "std": s.std(0).clamp(min=1e-6)}
        for edit in edits:
            if edit.words is not None:
                before, after = scorer.text(edit.words)
                self.learned_[f"text/{edit.name}"] = (after - before).detach()
        self.map_ = self._learn((s - s.mean(0)) / self.learned_["std"], c)
        if self.keep < 1:
            with torch.no_grad():
                self.learned_["R"] = self._relevance(data, c.shape[1])

    def state(self) -> dict[str, Tensor]:
        """Return M's weights, the code's statistics, the edits' texts and R."""
        weights = {} if self.map_ is None else self.map_.state_dict()
        return self.learned_ | {f"map/{k}": v for k, v in weights.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take them back."""
        device = self.model.device
        own = {k[4:]: v.to(device) for k, v in state.items() if k.startswith("map/")}
        self.learned_ = {k: v.to(device) for k, v in state.items() if not k.startswith("map/")}
        channels, reads = len(self.learned_["mean"]), own["0.weight"].shape[1]
        self.map_ = self._empty(channels, reads).requires_grad_(False)
        self.map_.load_state_dict(own)

    def invert(self, batch: Batch) -> Latent:
        """Return each image's code, with x_T where the model has one."""
        return self.model.invert(batch, self.cache, steps=self.steps)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of codes."""
        return self.model.sample(latent, guidance=1.0, steps=self.steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images of moved codes."""
        if self.map_ is None:
            raise BadInput("DeltaEdit has learned nothing yet; call fit, or load_state")
        latent, s = self.invert(batch), len(strengths)
        space, code = vector_code(latent)
        text = self._text(batch, edit)
        c = self.parts["scorer"].image(batch.images)
        own = (code - self.learned_["mean"]) / self.learned_["std"]
        asked = torch.cat([own, c.to(own), normalize(text, dim=1).to(own)], 1)
        delta = map_batches(self.map_, asked) * self.learned_["std"]
        if self.keep < 1:
            delta = delta * self._concerned(text)
        weight = strengths.repeat(len(batch)).to(delta)[:, None]
        parts = {k: v.repeat_interleave(s, 0) for k, v in latent.parts.items()}
        parts[space] = parts[space] + weight * delta.repeat_interleave(s, 0)
        return self.decode(Latent(parts, latent.start)).unflatten(0, (len(batch), s))

    def _text(self, batch: Batch, edit: Edit) -> Float[Tensor, "b d"]:
        """Return the difference of texts for each image."""
        scorer, known = self.parts["scorer"], self.learned_.get(f"text/{edit.name}")
        if batch.prompts is not None and edit.target_prompts is not None:
            return scorer.text(edit.target_prompts) - scorer.text(batch.prompts)
        if edit.words is not None:
            before, after = scorer.text(edit.words)
            known = after - before
        if known is None:
            raise BadInput(
                f"edit {edit.name!r} has neither captions nor words that say what it is; choose "
                f"data with captions"
            )
        return known.expand(len(batch), -1)

    def _concerned(self, text: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Return 1 at the channels that a text concerns most."""
        relevance = (text[:, None] * self.learned_["R"]).sum(2).abs()
        count = max(round(self.keep * relevance.shape[1]), 1)
        return torch.zeros_like(relevance).scatter(1, relevance.topk(count, 1).indices, 1.0)

    def _learn(self, s: Float[Tensor, "n k"], c: Float[Tensor, "n d"]) -> nn.Sequential:
        """Return M after its training on standardised codes and embeddings."""
        M = self._empty(s.shape[1], s.shape[1] + 2 * c.shape[1])
        generator = self.streams.generator("delta_edit/weights")
        for weight in M.parameters():
            size = weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.0
            weight.data = (size * torch.randn(weight.shape, generator=generator)).to(s)
        adam = torch.optim.Adam(M.parameters(), self.learning_rate)
        for k in self.fitting.steps("delta_edit", self.rounds, dict(M.named_parameters()), adam):
            drawn = self.streams.generator(f"delta_edit/{k}")
            a, b = torch.randint(len(s), (2, self.pairs), generator=drawn)
            between = c[b] - c[a]
            apart = between.norm(dim=1) > CLOSE
            if not bool(apart.any()):
                continue
            a, b, between = a[apart], b[apart], between[apart]
            Ds = s[b] - s[a]
            found = M(torch.cat([s[a], c[a], normalize(between, dim=1)], 1))
            loss = self.l2 * mse_loss(found, Ds)
            loss = loss + self.cosine * (1 - cosine_similarity(found, Ds, 1).mean())
            adam.zero_grad()
            loss.backward()
            adam.step()
        return M.requires_grad_(False)

    def _relevance(self, data: Dataset, d: int) -> Float[Tensor, "k d"]:
        """Return the direction in which each channel moves the scorer's embedding."""
        batch = data.batch("generator", self._chosen(data, self.probes))
        latent = self.invert(batch)
        space, code = vector_code(latent)
        batches, R = list(even_batches(code.shape[1], FIT_BATCH)), code.new_zeros(code.shape[1], d)
        scorer, std = self.parts["scorer"], self.learned_["std"]
        for k in self.fitting.steps("delta_edit-relevance", len(batches), {"R": R}):
            channels, kept = batches[k]
            shift = FAR * torch.diag(std)[channels]
            seen = []
            for sign in (1, -1):
                parts = {p: v.repeat_interleave(len(shift), 0) for p, v in latent.parts.items()}
                parts[space] = parts[space] + sign * shift.repeat(len(batch), 1)
                images = self.decode(Latent(parts, latent.start)).clamp(-1, 1)
                seen.append(scorer.image(images).unflatten(0, (len(batch), -1)))
            R[channels[0] : channels[0] + kept] = (seen[0] - seen[1]).mean(0)[:kept]
        return normalize(R, dim=1)

    def _chosen(self, data: Dataset, count: int) -> list[int]:
        return self.streams.choice("delta_edit/images", data.size("generator"), count)

    def _empty(self, channels: int, reads: int) -> nn.Sequential:
        """Return M without weights."""
        with torch.device("meta"):
            M = nn.Sequential(
                nn.Linear(reads, self.width), nn.LeakyReLU(0.2),
                nn.Linear(self.width, self.width), nn.LeakyReLU(0.2),
                nn.Linear(self.width, channels),
            )  # fmt: skip
        return M.to_empty(device=self.model.device)
