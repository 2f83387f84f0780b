"""Classifiers: which attributes an image shows, for methods. Never a judge of what methods make."""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForImageClassification

from latentbench.bounds import Dtype, Name
from latentbench.content import content_hash
from latentbench.errors import BadInput, unknown
from latentbench.models.metered import MeteredNetwork, weights_hash
from latentbench.models.scorer import Preparation, load_published


class Classifier(MeteredNetwork):
    """Says for each of its labels how much of it an image shows, differentiably.

    Attributes:
        labels: what it knows, in the order of the last axis.
    """

    labels: tuple[str, ...]

    @abstractmethod
    def read(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b l"]:
        """Return log-odds; images are square RGB in [-1, 1]."""

    def log_odds(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b l"]:
        """Return log(p / (1 - p)) of each label, for square RGB images in [-1, 1] of any size.

        What a guidance takes gradients of: log p is ``logsigmoid`` of it, log(1 - p) that of its
        negative.
        """
        return self.counted(self.read(images.to(self.device)))

    def probabilities(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b l"]:
        """Return p of each label, in 0..1."""
        return self.log_odds(images).sigmoid()

    def column(self, label: str) -> int:
        """Return a label's place.

        Raises:
            BadInput: the classifier does not know it; names near ones.
        """
        if label not in self.labels:
            raise unknown(f"label of classifier {self.name!r}", label, self.labels)
        return self.labels.index(label)


class PublishedClassifier(Classifier):
    """A published image classifier of transformers.

    Labels that exclude each other (softmax) and labels that do not (`problem_type` is
    "multi_label_classification", sigmoid) both give log-odds, one label against all else.
    Images are prepared as in `PublishedScorer`.

    Args:
        path: a local folder, or a hub id.
        dtype: "float32", "float16" or "bfloat16".
        device: where it runs.

    Raises:
        BadInput: a checkpoint with one label whose labels exclude each other.
        MissingWeights: no such folder, or nothing to fetch it with; only safetensors are read.
    """

    def __init__(self, *, path: Name, dtype: Dtype = "float32", device: str = "cpu") -> None:
        super().__init__(path, device)
        self.dtype = getattr(torch, dtype)
        cls = AutoModelForImageClassification
        self.network: Any = load_published(cls, path, self.dtype, self.device)
        config = self.network.config
        self.labels = tuple(config.id2label[k] for k in range(config.num_labels))
        self.exclusive = config.problem_type != "multi_label_classification"
        if self.exclusive and len(self.labels) < 2:
            raise BadInput(
                f"{path!r} has one label, which a softmax makes certain; a classifier needs two "
                'labels, or "problem_type": "multi_label_classification" in its config.json'
            )
        self.preparation = Preparation(path)

    def fingerprint(self) -> str:
        """Return a hash of weights, preparation and settings."""
        return content_hash(
            self.version, str(self.dtype), self.labels, self.exclusive,
            self.preparation.settings(), weights_hash(self.network),
        )  # fmt: skip

    def read(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b l"]:
        """Return log-odds: logits, or each logit against the others together."""
        logits = self.network(self.preparation(images).to(self.dtype)).logits.float()
        return against_the_others(logits) if self.exclusive else logits


def against_the_others(logits: Float[Tensor, "b l"]) -> Float[Tensor, "b l"]:
    """Return the log-odds of each label under a softmax.

    Example:
        >>> against_the_others(torch.tensor([[1.0, 3.0]])).tolist()
        [[-2.0, 2.0]]
    """
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    others = logits[:, None, :].masked_fill(own, -torch.inf)
    return logits - others.logsumexp(2)
