"""The one interface that every method implements."""

from abc import ABC
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor

from latentbench.cache import CARD, IMPORTED, SUBJECT_KIND, Cache
from latentbench.data.dataset import Dataset
from latentbench.errors import Incompatible
from latentbench.fitting import Fitting
from latentbench.metric_state import as_json, as_tensor
from latentbench.model import DiffusionModel, LatentModel
from latentbench.option import Option
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Concept, Edit, Endpoint, Latent, Space

Model = TypeVar("Model", bound=LatentModel)
VERBS = (
    "generate",
    "invert",
    "edit",
    "interpolate",
    "represent",
    "compose",
    "mixture",
    "feature_maps",
    "personalise",
    "vary",
    "invent",
    "combine",
    "panorama",
)


class Editor(ABC, Generic[Model]):
    """A latent-space method, for one kind of model: ``class SDEdit(Editor[DiffusionModel])``.

    The constructor takes hyper-parameters only, keyword-only and typed. `attach` gives the model;
    `fit` learns (learned things end in ``_``); the verbs act. A method has a verb when its class
    overrides it: the runner reads that on the class, before any weight is loaded.

    Class attributes:
        paper: title and section that the file follows; `paper_of` where a setting decides.
        version: raised when a fix changes figures; part of every cell's id.
        requires: verb -> spaces that the model must have for it.
        needs: verb -> what data, model, benchmark or another part must give for it.
        others: setting -> group of conf/ ("model", "scorer", "classifier") of which it names an
            option; `attach` gives the loaded part under the setting's name.
        small: settings with which a fit takes a second or two, for the conformance laws.
        neutral: settings added later, with their defaults, at which the method is what it was
            without them: there they are no part of a cell's id, and older cells keep theirs.
        numbered: whether the directions that it finds are asked for by number alone, and not by the
            name of an attribute.
        scope: "image" (one image at a time), "global" (one direction for all), "model".
        families: kinds of model that it works on; a denoiser where nothing else is said.

    A setting `steps` is the number of sampling steps, None the model's.

    Attributes:
        max_strength: the largest native strength that is worth trying. A benchmark spreads its
            strength curve evenly over [0, max_strength], so choose the value at which edits
            begin to break; a class attribute, or a setting of the same name.
    """

    paper: ClassVar[str]
    version: ClassVar[int] = 1
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {}
    others: ClassVar[Mapping[str, str]] = {}
    small: ClassVar[Mapping[str, Any]] = {}
    neutral: ClassVar[Mapping[str, Any]] = {}
    numbered: ClassVar[bool] = False
    scope: ClassVar[str] = "image"
    families: ClassVar[tuple[type[LatentModel], ...]] = (DiffusionModel,)

    max_strength: float = 1.0
    model: Model
    streams: Streams
    cache: Cache
    parts: Mapping[str, Any]
    fitting: Fitting

    @property
    def sampling_steps(self) -> int | None:
        """The setting `steps`; None where it leaves the number to the model."""
        return getattr(self, "steps", None)

    @classmethod
    def verbs(cls) -> frozenset[str]:
        """Return the verbs that this class overrides."""
        return frozenset(v for v in VERBS if getattr(cls, v) is not getattr(Editor, v))

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return (spaces, data needs) of these verbs, for an instance with this config.

        Override it where a hyper-parameter decides, as the space of a direction does.
        """
        del config
        spaces = frozenset(s for verb in verbs for s in cls.requires.get(verb, ()))
        return spaces, frozenset(n for verb in verbs for n in cls.needs.get(verb, ()))

    @classmethod
    def paper_of(cls, config: Mapping[str, Any]) -> str:
        """Return title and section of what an instance with this config follows.

        Override it where a hyper-parameter chooses between papers, as the two sources of a coupled
        editor do.
        """
        del config
        return cls.paper

    @classmethod
    def directions(cls, config: Mapping[str, Any]) -> int:
        """Return how many directions it finds by itself, for an instance with this config.

        They are asked for by number (`Edit.component`), 0 and up; 0 where it finds none.
        """
        del config
        return 0

    @classmethod
    def misfit(cls, model: type[LatentModel], others: Mapping[str, Option]) -> str | None:
        """Return why its other parts do not go with the model or with each other, or None.

        Args:
            model: class of the cell's model.
            others: the options that its settings name, by setting.
        """
        del model, others
        return None

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse settings that do not fit the cell, before a weight is read.

        Override it where settings depend on each other through the number of steps, on the labels
        or on the size of the data. What a constructor can tell alone, it refuses itself.

        Args:
            data: the images; of no size yet where the model decides it.
            steps: sampling steps, the method's or the model's; None for a model without a sampler.
            strengths: native strengths that the benchmark will ask for, 0 left out.

        Raises:
            BadInput: says what came, what is allowed and what to do.
        """
        del data, steps, strengths

    def attach(
        self,
        model: Model,
        streams: Streams,
        cache: Cache,
        parts: Mapping[str, Any] | None = None,
        fitting: Fitting | None = None,
    ) -> None:
        """Give the editor what it works with.

        Args:
            model: the generative model.
            streams: the cell's random streams.
            cache: shared store for inversions and fits.
            parts: the parts that `others` declares, by setting; settings left empty are absent.
            fitting: what `fit` keeps on disk while it runs; default: nothing.
        """
        self.model, self.streams, self.cache = model, streams, cache
        self.parts, self.fitting = dict(parts or {}), fitting or Fitting(None)
        self.card: Mapping[str, Any] = {}

    def remembered(
        self, key: str, subjects: Sequence[str], make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return what was learned of single subjects, from the cache where it is known.

        In a cell it is kept with a card that says whose it is, so that `latentbench fits list`
        shows it, and it may have been imported.

        Args:
            key: hash of all that it depends on, as of `content_hash`.
            subjects: ids of the images that show them.
            make: learns; returns tensors by name.
        """
        named = {"key": key, "kind": SUBJECT_KIND, "edits": [], "subjects": list(subjects)}
        card = {**self.card, "seed": self.streams.seed, **named}

        def carded() -> Mapping[str, Tensor]:
            return {**make(), **({CARD: as_tensor(card)} if self.card else {})}

        found = self.cache.get_or_make(SUBJECT_KIND, key, carded)
        known = as_json(found.pop(CARD)) if CARD in found else {}
        if IMPORTED in known:
            self.cache.imported.add(known[IMPORTED])
        return found

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn what the verbs need, from the generators' split; nothing by default.

        Gradients are on; the model's weights are frozen. Draw learned parameters' start and the
        choice of images from `self.streams`, and take the steps of an optimisation from
        `self.fitting.steps`, which resumes a killed fit.

        Args:
            data: images with labels or prompts, as `needs` says.
            edits: what will be asked for: name, attribute, sign, and the words for before and
                after where the data set has them; the prompts of single images are absent.
        """
        del data, edits

    def state(self) -> dict[str, Tensor]:
        """Return what `fit` learned, as tensors, to be cached as safetensors."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned; edits are then equal."""
        del state

    def randomise(self, streams: Streams) -> None:
        """Put noise in the place of what was learned: the control that a method must beat.

        Each slice of a tensor along its first axis keeps its norm. Override it where that is not
        how large a direction is.

        Raises:
            Incompatible: nothing was learned.
        """
        learned = self.state()
        if not learned:
            raise Incompatible(f"{type(self).__name__} has learned nothing that noise can replace")
        self.load_state({name: _noise(v, name, streams) for name, v in learned.items()})

    def generate(
        self, ids: Sequence[str], prompts: Sequence[str] | None, noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one fresh image per id, from the x_T of that id or from a given one."""
        raise self._cannot("generate")

    def invert(self, batch: Batch) -> Latent:
        """Return the latent code of each image; `decode` gives the images back."""
        raise self._cannot("invert")

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of latent codes made by `invert`: the method's own reconstruction."""
        raise self._cannot("invert")

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the edited images; strength 0 is the method's own reconstruction."""
        raise self._cannot("edit")

    def effective_strength(self, strength: float) -> float:
        """Return the strength that `edit` works at, so that no image is made twice.

        Override it where several strengths give one image, as shares of whole steps do.
        """
        return strength

    def interpolate(self, a: Endpoint, b: Endpoint, steps: int) -> Float[Tensor, "b t 3 h w"]:
        """Return `steps` frames from `a` to `b`, ends included."""
        raise self._cannot("interpolate")

    def represent(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return one vector per image: its code in a space of the model."""
        raise self._cannot("represent")

    def compose(
        self, ids: Sequence[str], concepts: Sequence[Concept], noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one fresh image per id that shows all concepts, and none of negative weight."""
        raise self._cannot("compose")

    def mixture(
        self, ids: Sequence[str], concepts: Sequence[Concept], alternatives: Sequence[Concept]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one fresh image per id that shows all concepts and one of the alternatives.

        Each alternative is as frequent as the others: a mixture of equal parts.
        """
        raise self._cannot("mixture")

    def feature_maps(self, batch: Batch) -> Mapping[str, Float[Tensor, "b d h w"]]:
        """Return dense features of each image by layer, for readouts of places in the image."""
        raise self._cannot("feature_maps")

    def personalise(
        self, references: Batch, ids: Sequence[str], prompts: Sequence[str]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one fresh image per id of what the references show.

        Args:
            references: a few images of one subject; their prompts, where there are any, name it
                `SUBJECT` and say what else all of them show.
            ids: one name per image, for its noise.
            prompts: one caption per image, with the word `SUBJECT` for the subject; one without it
                asks for what the model draws now that it has learned the subject.
        """
        raise self._cannot("personalise")

    def vary(self, batch: Batch, draws: int) -> Float[Tensor, "b v 3 h w"]:
        """Return `draws` fresh images of what each image shows, each in a layout of its own."""
        raise self._cannot("vary")

    def invent(
        self, characters: Sequence[str], ids: Sequence[str], prompts: Sequence[str]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one fresh image per id of a character that the method invents.

        Args:
            characters: whom each image shows: one name stands for one character in all calls.
            ids: one name per image, for its noise.
            prompts: one caption per image, with the word `SUBJECT` for the character.
        """
        raise self._cannot("invent")

    def combine(self, a: Batch, b: Batch, edit: Edit) -> Float[Tensor, "b 3 h w"]:
        """Return one image per pair: `a` with what the edit takes of `b` (`Edit.factors`).

        Args:
            a: images that keep all else.
            b: images that something is taken of, as many.
            edit: its name, and the factors that are taken.
        """
        raise self._cannot("combine")

    def panorama(
        self, ids: Sequence[str], prompts: Sequence[str] | None, width: int
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one fresh wide picture per id, as high as the model's images.

        Args:
            ids: one name per picture, for its noise.
            prompts: one caption per picture, where the model takes captions.
            width: pixels.
        """
        raise self._cannot("panorama")

    def _cannot(self, verb: str) -> Incompatible:
        has = ", ".join(sorted(self.verbs())) or "none"
        return Incompatible(f"{type(self).__name__} has no verb {verb!r}; it has: {has}")


def _noise(value: Tensor, name: str, streams: Streams) -> Tensor:
    """Return noise of the shape of a tensor, whose slices along the first axis have its norms."""
    if not value.is_floating_point() or value.dim() == 0:
        return value
    rows = [str(k) for k in range(len(value))]
    noise = streams.normal(f"random/{name}", rows, value.shape[1:], value.device).to(value)
    sizes = value.reshape(len(value), -1).norm(dim=1) / noise.reshape(len(value), -1).norm(dim=1)
    return noise * sizes.reshape(-1, *[1] * (value.dim() - 1))
