"""Global counterfactual directions: one image tells how to change a classifier's answer on all."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss, normalize

from latentbench.bounds import Count, Name, NotNegative, Positive, Steps, above, at_most, between
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.models.semantic import SemanticDiffusion
from latentbench.types import Capability, Edit, Latent, Space
from methods.directions.vector_code import VectorCodeEditor, vector_code

HIDDEN = (128, 64, 32)  # of the proxy; 512, 256, 128, 64 for 512 numbers
HELD_OUT = 0.1  # share of the renders that say when to stop
MEMORY = 5  # epochs whose mean held-out loss the next must not exceed
W_LOGITS, W_DISTANCE = 1.0, 3.0  # of the proxy's loss
SEARCHED = 8  # amounts of the line search along a direction

Table = dict[str, Tensor]


class CounterfactualDirections(VectorCodeEditor):
    """Moves z_sem against a classifier that is asked, never differentiated: it is a black box.

    Source: "Global Counterfactual Directions". One image, chosen by the seed, is rendered from its
    own x_T at many z_sem + delta; a small network g learns from them what the classifier answers
    and how far the render is from the image. At delta = 0, with b the classifier's answer on it,

        C(delta) = w_class (logit of g if b, else -logit) + w_distance (distance of g).

    - `g`: the normalised -grad C.
    - `h`: the eigenvectors of the Hessian of the logit with the largest |eigenvalue|. A line search
      on the image, to both sides, orients them and sorts them by how soon the answer flips; `index`
      says which one edits.

    The other class is reached by the reverse. Strength is a length in units of sqrt(d), d being the
    length of z_sem, whose coordinates have a spread of 1; 0 is the method's reconstruction.

    Deviations: the rounds only collect, and one proxy learns from all, as the published last round
    does; all attributes share it. The distance is the root mean square of pixels (published:
    LPIPS through a sigmoid, whose network is no part of the suite). Inputs and outputs of g are
    standardised. The line search sorts h and chooses nothing else. x_T is always the image's own;
    sums of directions and the attribution of pixels (BB-LIG) are not implemented.

    Args:
        variant: which directions.
        classifier: a yaml of conf/classifier, whose answer is to change; never a judge.
        w_class: weight of the logit in g's objective.
        w_distance: weight of the distance; .05 and 1 are the published pair, 1 and 0 the other.
        rounds: batches of renders.
        batch: renders of a round, and rows of a step of the proxy's training.
        reach: longest delta, in units of sqrt(d).
        epochs: most passes of the proxy's training over the renders; 0 leaves it as it was drawn,
            whose directions are the control.
        learning_rate: of AdamW.
        count: number of h-directions; 30 at 128 px.
        index: the h-direction that edits, 0 the one that flips soonest.
        steps: sampling steps; default: the model's.
        max_strength: largest strength of a benchmark's curve, and of the line search.

    Raises:
        BadInput: an edit whose attribute was not fitted; a `reach` so small that no answer changes;
            more h-directions than z_sem has numbers.

    Example:
        >>> editor = CounterfactualDirections(variant="g")  # editor.fit(data, edits)
    """

    paper = "Global Counterfactual Directions, sections 3 and 4"
    families = (SemanticDiffusion,)
    small: ClassVar[Mapping[str, Any]] = {"rounds": 3, "batch": 8, "epochs": 5}
    others: ClassVar[Mapping[str, str]] = {"classifier": "classifier"}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.CLASSIFIER})
    }
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        verb: frozenset({Space.NOISE, Space.SEMANTIC}) for verb in ("invert", "edit")
    }

    def __init__(
        self,
        *,
        variant: Literal["g", "h"] = "g",
        classifier: Name = "attr1",
        w_class: Positive = 1.0,
        w_distance: NotNegative = 0.0,
        rounds: Count = 8,
        batch: Count = 64,
        reach: Annotated[float, above(0), at_most(10)] = 0.15,
        epochs: Annotated[int, between(0, 1_000_000)] = 300,
        learning_rate: Positive = 0.01,
        count: Count = 6,
        index: Annotated[int, between(0, 1_000_000)] = 0,
        steps: Steps | None = None,
        max_strength: Positive = 1.0,
    ) -> None:
        if variant == "h" and index >= count:
            raise BadInput(f"index={index} of {count} directions; give 0 to {count - 1}")
        if rounds * batch < 2:
            raise BadInput("one render cannot be split in two; raise rounds or batch")
        self.variant: Literal["g", "h"] = variant
        self.classifier, self.w_class, self.w_distance = classifier, w_class, w_distance
        self.rounds, self.batch, self.reach = rounds, batch, reach
        self.epochs, self.learning_rate = epochs, learning_rate
        self.count, self.index = count, index
        self.steps, self.max_strength = steps, max_strength
        self.learned_ = {}  # attribute -> unit directions ``[k, d]`` that raise it

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn the directions of each attribute from one image and what it renders to."""
        asked = sorted({str(edit.attribute) for edit in edits if edit.attribute is not None})
        column = {name: self.parts["classifier"].column(name) for name in asked}
        self.learned_ = {}
        if not asked:
            return
        (number,) = self.streams.choice("gcd/source", data.size("generator"), 1)
        with torch.no_grad():
            source = self.invert(data.batch("generator", [number]))
            image = data.batch("generator", [number]).images.to(self.model.device)
            logits = self.parts["classifier"].log_odds(image)
            if self.variant == "h" and self.count > (d := self._size(source)):
                raise BadInput(
                    f"method.count={self.count} is more than the {d} numbers of z_sem have "
                    f"directions; give {d} or fewer"
                )
            table = self._renders(source, image)
        for name in asked:
            answers = table["logits"][:, column[name]]
            if float(answers.min()) == float(answers.max()):
                raise BadInput(
                    f"no render within method.reach={self.reach:g} changes what the classifier "
                    f"answers of {name!r}; raise method.reach"
                )
        g, spread = self._proxy(table)
        for name in asked:
            y = column[name]
            toward = -1.0 if bool(logits[0, y] > 0) else 1.0  # the other answer
            if self.variant == "g":
                flips = self._gradient(g, spread, y, toward)
            else:
                flips = self._searched(source, self._curved(g, y), y, toward)
            self.learned_[name] = toward * flips

    def moved(
        self, code: Float[Tensor, "r d"], edit: Edit, strength: Float[Tensor, " r"]
    ) -> Float[Tensor, "r d"]:
        """Return z_sem + s sqrt(d) direction."""
        if edit.attribute not in self.learned_:
            known = ", ".join(self.learned_) or "none"
            raise BadInput(
                f"edit {edit.name!r} asks for {edit.attribute!r}, for which no direction was "
                f"fitted (there are: {known}); fit on this edit"
            )
        rows = self.learned_[edit.attribute]
        direction = rows[self.index if self.variant == "h" else 0]
        return code + (strength * code.shape[1] ** 0.5)[:, None] * direction.to(code)

    # ------------------------------------------------------------ what the classifier answers

    def _renders(self, source: Latent, image: Float[Tensor, "1 3 h w"]) -> Table:
        """Return deltas, all logits and the distance to the image, of all rounds."""
        d, device = self._size(source), self.model.device
        rows, labels = self.rounds * self.batch, len(self.parts["classifier"].labels)
        table = {
            "logits": torch.zeros(rows, labels, device=device),
            "distance": torch.zeros(rows, 1, device=device),
        }
        deltas = torch.cat([self._deltas(k, d) for k in range(self.rounds)]).to(device)
        for k in self.fitting.steps("gcd_renders", self.rounds, table):
            at = slice(k * self.batch, (k + 1) * self.batch)
            found = self._answers(source, deltas[at])
            gap = (found["images"] - image) / 2
            table["logits"][at] = found["logits"]
            table["distance"][at] = gap.square().mean((1, 2, 3)).sqrt()[:, None]
        return table | {"deltas": deltas}

    def _deltas(self, k: int, d: int) -> Float[Tensor, "n d"]:
        """Return r u of one round: u uniform on the sphere, r uniform up to the reach."""
        drawn = self.streams.generator(f"gcd/deltas/{k}")
        u = normalize(torch.randn(self.batch, d, generator=drawn), dim=1)
        r = torch.rand(self.batch, 1, generator=drawn)
        return self.reach * d**0.5 * r * u

    def _answers(self, source: Latent, deltas: Float[Tensor, "n d"]) -> Table:
        """Return the renders of DiffAE(x_T, z0 + delta) and the classifier's logits on them."""
        space, z0 = vector_code(source)
        parts = {name: x.repeat_interleave(len(deltas), 0) for name, x in source.parts.items()}
        parts[space] = z0 + deltas.to(z0)
        images = self.decode(Latent(parts, source.start)).clamp(-1, 1)
        logits = self.parts["classifier"].log_odds(images)
        return {"images": images, "logits": logits.to(self.model.device)}

    @staticmethod
    def _size(source: Latent) -> int:
        return vector_code(source)[1].shape[1]

    # ------------------------------------------------------------ the proxy

    def _proxy(self, table: Table) -> tuple[nn.Sequential, Float[Tensor, " o"]]:
        """Return g: delta / reach -> standardised (logits, distance), and the outputs' spread."""
        x = table["deltas"] / self.reach
        raw = torch.cat([table["logits"], table["distance"]], 1)
        spread = raw.std(0)
        y = (raw - raw.mean(0)) / spread.clamp(min=1e-6)
        weight = x.new_tensor([W_LOGITS] * table["logits"].shape[1] + [W_DISTANCE])
        held = max(round(HELD_OUT * len(x)), 1)
        kept, g = len(x) - held, self._network(x.shape[1], y.shape[1])
        adam = torch.optim.AdamW(g.parameters(), self.learning_rate)
        losses = x.new_full((self.epochs,), torch.inf)  # of the held-out renders, by epoch
        tensors = {"held_out": losses, **dict(g.named_parameters())}
        for epoch in self.fitting.steps("gcd_proxy", self.epochs, tensors, adam):
            before = losses[max(epoch - 1 - MEMORY, 0) : max(epoch - 1, 0)]
            if epoch > MEMORY and bool(losses[epoch - 1] > before.mean()):
                break
            order = torch.tensor(self.streams.choice(f"gcd/proxy/{epoch}", kept, kept))
            for rows in order.split(self.batch):
                adam.zero_grad()
                mse_loss(weight.sqrt() * g(x[rows]), weight.sqrt() * y[rows]).backward()
                adam.step()
            with torch.no_grad():
                losses[epoch] = mse_loss(weight.sqrt() * g(x[kept:]), weight.sqrt() * y[kept:])
        return g.requires_grad_(False), spread

    def _network(self, reads: int, writes: int) -> nn.Sequential:
        """Return layers with sigmoids between, uniform up to 1 / sqrt(fan-in)."""
        layers: list[nn.Module] = []
        sizes = (reads, *HIDDEN, writes)
        with torch.device("meta"):
            for a, b in itertools.pairwise(sizes):
                layers += [nn.Linear(a, b), nn.Sigmoid()]
        g = nn.Sequential(*layers[:-1]).to_empty(device=self.model.device)
        for module_name, module in g.named_children():
            for name, p in module.named_parameters(recurse=False):
                drawn = self.streams.generator(f"gcd/proxy/{module_name}/{name}")
                most = module.get_parameter("weight").shape[1] ** -0.5
                p.data = (most * (2 * torch.rand(p.shape, generator=drawn) - 1)).to(p.device)
        return g

    # ------------------------------------------------------------ directions

    def _gradient(
        self, g: nn.Sequential, spread: Float[Tensor, " o"], y: int, toward: float
    ) -> Float[Tensor, "1 d"]:
        """Return -grad C at 0, of unit length; it flips the source's answer."""
        delta = spread.new_zeros(g.get_submodule("0").get_parameter("weight").shape[1])

        def objective(at: Float[Tensor, " d"]) -> Float[Tensor, ""]:
            out = spread * g(at)
            return -toward * self.w_class * out[y] + self.w_distance * out[-1]

        return -normalize(torch.func.grad(objective)(delta), dim=0)[None]

    def _curved(self, g: nn.Sequential, y: int) -> Float[Tensor, "k d"]:
        """Return the eigenvectors of the logit's Hessian at 0, largest |eigenvalue| first."""
        first = g.get_submodule("0").get_parameter("weight")
        hessian = torch.func.hessian(lambda at: g(at)[y])(first.new_zeros(first.shape[1]))
        values, vectors = torch.linalg.eigh((hessian + hessian.T) / 2)
        order = values.abs().argsort(descending=True)[: self.count]
        return vectors.T[order]

    def _searched(
        self, source: Latent, found: Float[Tensor, "k d"], y: int, toward: float
    ) -> Float[Tensor, "k d"]:
        """Return the directions turned so that they flip the source's answer, the soonest first."""
        d = found.shape[1]
        amounts = torch.linspace(0, self.max_strength, SEARCHED + 1)[1:].to(found) * d**0.5
        turned, soon = [], []
        for v in found:
            both = torch.cat([amounts, -amounts])[:, None] * v
            with torch.no_grad():
                flipped = (toward * self._answers(source, both)["logits"][:, y]).sigmoid()
            sides = flipped.unflatten(0, (2, SEARCHED)).mean(1)  # the sooner, the larger
            turned.append(v if bool(sides[0] >= sides[1]) else -v)
            soon.append(sides.max())
        return torch.stack(turned)[torch.stack(soon).argsort(descending=True)]
