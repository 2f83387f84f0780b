"""`arcface_id`: identity by the published ArcFace network with the usual fixed crop."""

from jaxtyping import Float
from torch import Tensor, nn

from latentbench.batching import map_batches
from latentbench.metric import Figure, Surroundings
from latentbench.zoo.published_weights import PublishedWeights
from metrics.networks.reader import BATCH
from metrics.pairs.pairwise import Pairwise

ARCFACE = PublishedWeights(
    "model_ir_se50.pth",
    "a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
    "https://github.com/xinntao/facexlib/releases/download/v0.1.0/recognition_arcface_ir_se50.pth",
)
STAGES = ((64, 64, 3), (64, 128, 4), (128, 256, 14), (256, 512, 3))  # in, out, blocks


class ArcFaceIdentity(Pairwise):
    """Mean cosine of ArcFace embeddings of source and output.

    Images are average-pooled to 256, cropped to rows 35:223 and columns 32:220, and average-pooled
    to 112: the fixed crop of FFHQ-aligned faces, without a detector. On other faces the figure
    means little.

    Source: Deng et al., "ArcFace"; crop and network as in the identity loss of Richardson et al.,
    "Encoding in Style" (pSp).

    Example:
        >>> list(ArcFaceIdentity().figures)
        ['arcface_id']
    """

    figure = Figure("cosine of ArcFace embeddings", low=-1.0, high=1.0, higher_is_better=True)
    source = "ArcFace; crop as in Encoding in Style"
    weights = (ARCFACE,)

    def __init__(self) -> None:
        super().__init__(against=("sources",))

    def column(self, kind: str) -> str:
        """Return the published name: it is against the source always."""
        del kind
        return "arcface_id"

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the network; its hash is checked before the file is opened."""
        super().prepare(surroundings)
        state = ARCFACE.state(surroundings.weights_dir)
        self.network = IRSE50()
        self.network.load_state_dict(state)
        self.network.eval().requires_grad_(False).to(surroundings.device)

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the cosine of each pair."""
        a, b = (map_batches(self._embed, images, BATCH) for images in (outputs, targets))
        return (a * b).sum(1)

    def _embed(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n e"]:
        return self.network(face_crop(images.to(self.surroundings.device))).cpu()


def face_crop(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 112 112"]:
    """Return the region of an FFHQ-aligned face that ArcFace takes.

    Example:
        >>> face_crop(torch.zeros(1, 3, 1024, 1024)).shape
        torch.Size([1, 3, 112, 112])
    """
    whole = nn.functional.adaptive_avg_pool2d(images, (256, 256))
    return nn.functional.adaptive_avg_pool2d(whole[:, :, 35:223, 32:220], (112, 112))


class IRSE50(nn.Module):
    """The ArcFace backbone IR-SE50, with the parameter names of the published file."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.input_layer = nn.Sequential(first, nn.BatchNorm2d(64), nn.PReLU(64))
        blocks = [
            _Block(before if k == 0 else after, after, 2 if k == 0 else 1)
            for before, after, count in STAGES
            for k in range(count)
        ]
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512),
        )

    def forward(self, faces: Float[Tensor, "n 3 112 112"]) -> Float[Tensor, "n 512"]:
        """Return unit embeddings."""
        found = self.output_layer(self.body(self.input_layer(faces)))
        return nn.functional.normalize(found, dim=1)


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            shrink = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(shrink, nn.BatchNorm2d(after))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            _Excitation(after),
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        return self.res_layer(x) + self.shortcut_layer(x)


class _Excitation(nn.Module):
    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
