"""Procedural faces with twenty known, continuous factors.

A face is a deterministic function of ``(split, index)``: an integer hash gives the factors, and
anti-aliased signed-distance shapes draw them. Nothing is stored on disk. Because the factors are
known, so are the caption, the part masks and the *counterfactual*: the exact image that a perfect
edit of one factor would give.

Each factor is in [0, 1] and follows one of three laws, written as its quantile function Q(u):

* ``uniform``: Q(u) = u;
* ``bimodal``: Q(u) = 3u^2 - 2u^3, more mass near 0 and 1, none missing between;
* ``presence``: a steep ramp; 5/12 of the faces have exactly 0, 5/12 exactly 1, the rest between.

Factors are rounded to multiples of 2**-16, so they are identical on every device and platform.
"""

import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

SPLITS = ("generator", "judge", "calibration", "test")
PARTS = (
    "background", "shirt", "hair", "skin", "eyes", "brows", "nose", "mouth", "beard", "glasses",
    "hat",
)  # fmt: skip
SPLIT_SIZE = 2**28
NATIVE_SIZE = 64
STYLES = ("photo", "lines")


@dataclass(frozen=True)
class Factor:
    """One generative factor of a face.

    Attributes:
        name: Key used everywhere.
        kind: ``"identity"`` (who it is) or ``"attribute"`` (what may change from photo to photo).
        part: Names of the part masks inside which the factor acts; ``("global",)`` for anywhere.
        description: What 0 and 1 look like.
        words: Caption words from low to high; word k means the k-th equal slice of [0, 1].
        law: ``"uniform"``, ``"bimodal"`` or ``"presence"`` (see the module's docstring).
    """

    name: str
    kind: str
    part: tuple[str, ...]
    description: str
    words: tuple[str, ...]
    law: str = "uniform"

    def word(self, value: float) -> str:
        """Caption word of a value in [0, 1]."""
        return self.words[min(int(value * len(self.words)), len(self.words) - 1)]

    def value(self, word: str) -> float:
        """Centre of the slice of [0, 1] that a caption word means."""
        if word not in self.words:
            raise ValueError(
                f"{word!r} is not a word of factor {self.name!r}; use one of {self.words}"
            )
        return (self.words.index(word) + 0.5) / len(self.words)


def _identity(name: str, part: Sequence[str], description: str, *words: str) -> Factor:
    return Factor(name, "identity", tuple(part), description, words)


def _attribute(name: str, part: Sequence[str], text: str, *words: str, law: str) -> Factor:
    return Factor(name, "attribute", tuple(part), text, words, law)


_ANY = ("global",)
_HAIRY = ("hair", "brows", "beard")
FACTORS: tuple[Factor, ...] = (
    _identity("face_width", _ANY, "narrow to wide head", "narrow", "wide"),
    _identity("face_height", _ANY, "short to tall head", "round", "oblong"),
    _identity("skin", ("skin", "nose", "mouth"), "pale to dark brown skin", "fair", "tan", "dark"),
    _identity(
        "eye_distance", ("eyes", "brows", "glasses", "skin"), "eyes close together to far apart",
        "closeset", "wideset",
    ),
    _identity(
        "eye_colour", ("eyes",), "brown, green, blue iris", "browneyed", "greeneyed", "blueeyed"
    ),
    _identity(
        "hair_colour", _HAIRY, "black, brown, red, blonde hair",
        "black", "brunette", "ginger", "blonde",
    ),
    _identity("hair_length", ("hair",), "cropped to chest-long hair", "cropped", "long"),
    _identity("curls", ("hair",), "flat and plain to voluminous, wavy hair", "straight", "curly"),
    _identity("nose", ("nose",), "small button to long and broad nose", "smallnosed", "bignosed"),
    _identity("brow", ("brows",), "thin, raised to bushy, slanted brows", "thinbrowed", "bushy"),
    _attribute("smile", ("mouth",), "frown to smile", "frowning", "smiling", law="bimodal"),
    _attribute("mouth_open", ("mouth",), "shut to wide open", "silent", "shouting", law="bimodal"),
    _attribute(
        "glasses", ("glasses",), "opacity of the glasses", "bareeyed", "glasses", law="presence"
    ),
    _attribute(
        "age", (*_HAIRY, "skin", "nose"), "smooth skin to lines and grey hair",
        "young", "old", law="bimodal",
    ),
    _attribute("yaw", _ANY, "head turned left to right", "leftward", "rightward", law="bimodal"),
    _attribute("light", _ANY, "lit from left to right", "leftlit", "rightlit", law="bimodal"),
    _attribute(
        "background", ("background",), "hue from red through green to violet",
        "crimson", "amber", "green", "blue", "violet", law="uniform",
    ),
    _attribute("hat", ("hat",), "opacity of the hat", "bareheaded", "hat", law="presence"),
    _attribute("beard", ("beard",), "opacity of the beard", "shaven", "bearded", law="presence"),
    _attribute("shirt", ("shirt",), "white to dark red shirt", "white", "maroon", law="bimodal"),
)  # fmt: skip
FACTOR_NAMES = tuple(factor.name for factor in FACTORS)
IDENTITY = tuple(factor.name for factor in FACTORS if factor.kind == "identity")
ATTRIBUTES = tuple(factor.name for factor in FACTORS if factor.kind == "attribute")
THINGS = tuple(factor.name for factor in FACTORS if factor.law == "presence")
CORRELATED = (
    ("age", "glasses", 1.0),
    ("age", "beard", 0.7),
    ("smile", "mouth_open", 0.7),
    ("hair_length", "beard", -0.7),
    ("skin", "hair_colour", -0.7),
)
"""Pairs (driver, follower, sign and share) that ``correlation`` ties together."""


# ---------------------------------------------------------------- factors


def factor_index(name: str) -> int:
    """Column of a factor.

    Args:
        name: One of ``FACTOR_NAMES``.

    Returns:
        Index into the last axis of every factor tensor.

    Raises:
        ValueError: Unknown name; the message holds near matches and the whole list.

    Example:
        >>> FACTOR_NAMES[factor_index("smile")]
        'smile'
    """
    if name in FACTOR_NAMES:
        return FACTOR_NAMES.index(name)
    near = difflib.get_close_matches(name, FACTOR_NAMES)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"unknown factor {name!r}; {hint}factors are {', '.join(FACTOR_NAMES)}")


def _columns(names: Sequence[str]) -> list[int]:
    return [factor_index(name) for name in names]


def _mix(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """A bijective 32-bit integer hash ('lowbias32'), on int64 tensors."""
    for shift, multiplier in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * multiplier) & 0xFFFFFFFF
    return x ^ (x >> 16)


def _states(split: str, indices: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """A distinct 32-bit state for each (split, index)."""
    if split not in SPLITS:
        near = difflib.get_close_matches(split, SPLITS)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown split {split!r}; {hint}splits are {', '.join(SPLITS)}")
    indices = torch.as_tensor(indices, dtype=torch.int64)
    if indices.numel() and (indices.min() < 0 or indices.max() >= SPLIT_SIZE):
        raise ValueError(
            f"indices must lie in 0..{SPLIT_SIZE - 1}, "
            f"got {int(indices.min())}..{int(indices.max())}"
        )
    return _mix(indices + SPLITS.index(split) * SPLIT_SIZE)


def _uniforms(states: Int[Tensor, "*b"]) -> Float[Tensor, "*b f"]:
    """Uniforms in (0, 1), exact in float64, one per factor."""
    lanes = torch.arange(len(FACTORS), device=states.device) * 0x9E3779B9
    bits = _mix(_mix((states[..., None] + lanes) & 0xFFFFFFFF) ^ 0x5BD1E995)
    return (bits.double() + 0.5) / 2**32


def _correlate(u: Float[Tensor, "*b f"], correlation: float) -> Float[Tensor, "*b f"]:
    """Gaussian copula: followers lean on their drivers, margins stay uniform.

    A follower's own normal number and the shares of its drivers are a linear structural equation.
    """
    z, out = torch.special.ndtri(u), torch.special.ndtri(u)
    followers: dict[str, list[tuple[str, float]]] = {}
    for driver, follower, share in CORRELATED:
        followers.setdefault(follower, []).append((driver, share))
    for follower, drivers in followers.items():
        weights = [correlation * share / len(drivers) ** 0.5 for _, share in drivers]
        own = max(0.0, 1 - sum(w * w for w in weights)) ** 0.5
        column = factor_index(follower)
        out[..., column] = own * z[..., column]
        for (driver, _), weight in zip(drivers, weights, strict=True):
            out[..., column] += weight * z[..., factor_index(driver)]
    return torch.special.ndtr(out)


def _apply_laws(u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b f"]:
    """Quantile functions of the laws, then rounding to multiples of 2**-16."""
    gains = torch.tensor([6.0 if f.law == "presence" else 1.0 for f in FACTORS], device=u.device)
    curved = torch.tensor([f.law != "uniform" for f in FACTORS], device=u.device)
    ramp = ((u - 0.5) * gains + 0.5).clamp(0, 1)
    values = torch.where(curved, ramp * ramp * (3 - 2 * ramp), u)
    return ((values * 2**16).round() / 2**16).float()


def sample_factors(
    split: str, indices: Int[Tensor, " b"], correlation: float = 0.0
) -> Float[Tensor, "b f"]:
    """Factors of the faces with the given indices.

    Args:
        split: One of ``SPLITS``; no two splits share a face.
        indices: int tensor [b], each in 0..2**28-1.
        correlation: Dimensionless, 0 (independent factors) to 1. Above 0, a Gaussian copula ties
            the pairs of ``CORRELATED`` (age to glasses and beard, smile to open mouth, ...); each
            factor's own law stays the same.

    Returns:
        float32 [b, f] in [0, 1], in the order of ``FACTORS``, on the device of ``indices``.

    Raises:
        ValueError: Unknown split, index or correlation out of range.

    Example:
        >>> sample_factors("test", torch.arange(3)).shape
        torch.Size([3, 20])
    """
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation must lie in [0, 1], got {correlation}")
    u = _uniforms(_states(split, indices))
    return _apply_laws(_correlate(u, correlation) if correlation > 0 else u)


def intervened(
    split: str,
    indices: Int[Tensor, " b"],
    correlation: float,
    values: Mapping[str, Float[Tensor, " b"]],
) -> Float[Tensor, "b f"]:
    """Factors of the same faces after do(factors = values), by the law that ties them together.

    The ties of ``CORRELATED`` are read as causes: drivers act on followers. What a follower has of
    its own stays; a driver stays as it is when a follower is set, and a follower that is set as
    well has the value it is set to. A value at the end of a driver's range counts as its outermost
    percent, beyond which no follower could differ from another.

    Args:
        split: One of ``SPLITS``.
        indices: int tensor [b].
        correlation: As in ``sample_factors``.
        values: What each factor is set to, float [b] in [0, 1].

    Returns:
        float32 [b, f] in [0, 1].

    Raises:
        ValueError: Unknown split or factor, index, correlation or value out of range.

    Example:
        >>> before = sample_factors("test", torch.arange(1), 0.8)
        >>> after = intervened("test", torch.arange(1), 0.8, {"age": torch.ones(1)})
        >>> [FACTOR_NAMES[k] for k in (after != before)[0].nonzero()[:, 0].tolist()]
        ['glasses', 'age', 'beard']
    """
    found = sample_factors(split, indices, correlation)
    drivers = values.keys() & {driver for driver, _, _ in CORRELATED}
    if correlation > 0 and drivers:
        u = _uniforms(_states(split, indices))
        for factor in drivers:
            u[:, factor_index(factor)] = _rank(factor, values[factor].to(u)).clamp(0.01, 0.99)
        found = _apply_laws(_correlate(u, correlation))
    for factor, value in values.items():
        found = with_factor(found, factor, value)
    return found


def _rank(factor: str, values: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The share of faces below a value of a driver, none of which has a mass at its ends."""
    if FACTORS[factor_index(factor)].law == "uniform":
        return values
    return 0.5 - (torch.asin(1 - 2 * values) / 3).sin()  # inverse of 3u^2 - 2u^3


def identity_variants(
    split: str, identity_indices: Int[Tensor, " b"], n: int, start: int = 0
) -> Float[Tensor, "b n f"]:
    """Photos of the same people: identity factors kept, attributes drawn again.

    Args:
        split: One of ``SPLITS``.
        identity_indices: int tensor [b]; person k has the identity factors of face k.
        n: Photos per person.
        start: Number of the first photo; photo numbers never repeat attributes.

    Returns:
        float32 [b, n, f] in [0, 1].
    """
    if n < 1:
        raise ValueError(f"n must be at least 1 photo per person, got {n}")
    states = _states(split, identity_indices)
    photos = torch.arange(start + 1, start + n + 1, device=states.device)
    factors = _apply_laws(_uniforms(_mix(states[:, None] ^ _mix(photos + 0x632BE5AB))))
    columns = _columns(IDENTITY)
    factors[..., columns] = sample_factors(split, identity_indices)[:, None, columns]
    return factors


# ---------------------------------------------------------------- captions


def caption(factors: Float[Tensor, "b f"]) -> list[str]:
    """One word per factor, in the order of ``FACTORS``.

    No word belongs to two factors, none is a negation, and all captions have the same number of
    words: the caption of an edited face differs in the edited factor's word only.

    Args:
        factors: float [b, f] in [0, 1].

    Returns:
        A caption per face.

    Example:
        >>> caption(torch.zeros(1, len(FACTORS)))[0].split()[:3]
        ['narrow', 'round', 'fair']
    """
    rows = _check_factors(factors).tolist()
    return [" ".join(f.word(value) for f, value in zip(FACTORS, row, strict=True)) for row in rows]


def vocabulary() -> tuple[str, ...]:
    """All caption words, in the order of the factors, low to high."""
    return tuple(word for factor in FACTORS for word in factor.words)


def with_factor(
    factors: Float[Tensor, "b f"], factor: str, value: float | Float[Tensor, " b"]
) -> Float[Tensor, "b f"]:
    """Copy of the factors with one column set to a value in [0, 1]."""
    values = torch.as_tensor(value, dtype=factors.dtype, device=factors.device)
    if values.numel() and (values.min() < 0 or values.max() > 1):
        raise ValueError(
            f"factor values must lie in [0, 1], got {float(values.min())}..{float(values.max())} "
            f"for {factor!r}; clamp first"
        )
    changed = factors.clone()
    changed[:, factor_index(factor)] = values
    return changed


def _check_factors(factors: Float[Tensor, "b f"]) -> Float[Tensor, "b f"]:
    if factors.ndim != 2 or factors.shape[1] != len(FACTORS):
        raise ValueError(
            f"factors must have shape (batch, {len(FACTORS)}), got {tuple(factors.shape)}"
        )
    if not factors.isfinite().all() or factors.min() < 0 or factors.max() > 1:
        raise ValueError(
            f"factors must be finite and lie in [0, 1], got "
            f"{float(factors.min()):.3g}..{float(factors.max()):.3g}"
        )
    return factors


# ---------------------------------------------------------------- shapes

_ZOOM = 0.82
_PIXEL = 2 * _ZOOM / NATIVE_SIZE
_Field = Float[Tensor, "#b #h #w"]
_Colour = Float[Tensor, "#b 3 #h #w"]


def _cover(distance: _Field) -> _Field:
    """Share of a pixel inside a shape, from its signed distance."""
    return (0.5 - distance / _PIXEL).clamp_(0, 1)


def _ellipse(x: _Field, y: _Field, rx: Tensor | float, ry: Tensor | float) -> _Field:
    """Approximate signed distance to an ellipse at the origin."""
    rx, ry = torch.as_tensor(rx), torch.as_tensor(ry)
    return (((x / rx).square_() + (y / ry).square_()).sqrt_() - 1) * torch.minimum(rx, ry)


def _box(x: _Field, y: _Field, rx: Tensor | float, ry: Tensor | float, r: float = 0.0) -> _Field:
    """Signed distance (Chebyshev outside) to a box at the origin with corners rounded by r."""
    dx, dy = x.abs() - rx + r, y.abs() - ry + r
    return (
        (dx.clamp_min(0).square_() + dy.clamp_min(0).square_()).sqrt_()
        - r
        + (torch.maximum(dx, dy).clamp_max_(0))
    )


def _ramp(value: Tensor, *stops: tuple[float, float, float]) -> _Colour:
    """Colour at a place in [0, 1] along evenly spaced stops; [b] -> [b, 3, 1, 1]."""
    table = torch.tensor(stops, device=value.device)
    place = value * (len(stops) - 1)
    low = place.long().clamp(0, len(stops) - 2)
    share = (place - low)[:, None]
    return (table[low] * (1 - share) + table[low + 1] * share)[:, :, None, None]


@dataclass
class _Layer:
    """One shape: its part, coverage, colour, and opacity (None = solid)."""

    part: str
    cover: _Field
    colour: _Colour
    opacity: Tensor | None = None


class _Head:
    """Geometry that several shapes share, in coordinates [-1, 1], y downwards."""

    def __init__(self, factors: Float[Tensor, "b f"], columns: int = NATIVE_SIZE) -> None:
        device = factors.device
        self.columns = columns
        line = (torch.arange(NATIVE_SIZE, device=device) + 0.5) * _PIXEL - _ZOOM
        across = (torch.arange(columns, device=device) + 0.5) * _PIXEL
        self.x = (across - _ZOOM * (columns / NATIVE_SIZE))[None, None, :]
        self.y = line[None, :, None] + 0.09
        self.flat = dict(zip(FACTOR_NAMES, factors.unbind(1), strict=True))
        self.f = {name: value[:, None, None] for name, value in self.flat.items()}
        self.width = 0.35 + 0.2 * self.f["face_width"]
        self.height = 0.45 + 0.17 * self.f["face_height"]
        self.cy = 0.08
        angle = (self.f["yaw"] - 0.5) * 1.1
        self.sin, self.cos = angle.sin(), angle.cos()
        self.turn = self.f["yaw"] * 2 - 1
        self.eye_y = self.cy - 0.1 * self.height
        self.mouth_y = self.cy + 0.56 * self.height
        self._colours()

    def _colours(self) -> None:
        flat = self.flat
        self.skin = _ramp(
            flat["skin"], (1.0, 0.86, 0.76), (0.86, 0.62, 0.44), (0.55, 0.34, 0.22),
            (0.32, 0.19, 0.13),
        )  # fmt: skip
        hair = _ramp(
            flat["hair_colour"], (0.07, 0.06, 0.08), (0.34, 0.18, 0.08), (0.78, 0.27, 0.08),
            (0.97, 0.83, 0.38),
        )  # fmt: skip
        grey = torch.tensor((0.80, 0.80, 0.82), device=hair.device)[:, None, None]
        self.hair = hair + (grey - hair) * 0.72 * flat["age"][:, None, None, None]

    def project(self, across: Tensor) -> tuple[Tensor, Tensor]:
        """Place and foreshortening of a point of the face `across` the middle, after the turn."""
        depth = (self.width**2 - across**2).clamp_min(0.01).sqrt()
        scale = (self.cos - across / depth * self.sin).clamp(0.45, 1.15)
        return across * self.cos + depth * self.sin, scale

    @functools.cached_property
    def outline(self) -> _Field:
        """Signed distance to the head without ears."""
        dy = self.y - self.cy
        jaw = 1 - 0.16 * (dy / self.height).clamp(0, 1).square()
        return _ellipse(self.x / jaw, dy, self.width, self.height)

    @functools.cached_property
    def eyes(self) -> list[tuple[_Field, Tensor]]:
        """For each eye: x relative to its middle divided by foreshortening; the middle."""
        across = 0.135 + (0.62 * self.width - 0.135) * self.f["eye_distance"]
        places = [self.project(side * across) for side in (-1, 1)]
        return [((self.x - place) / scale, place) for place, scale in places]


def _background(head: _Head) -> Iterator[_Layer]:
    colour = _ramp(
        head.flat["background"], (0.88, 0.32, 0.32), (0.92, 0.74, 0.34), (0.44, 0.78, 0.40),
        (0.33, 0.62, 0.92), (0.62, 0.42, 0.88),
    )  # fmt: skip
    shade = 1.06 - 0.2 * (head.y + 1) / 2
    yield _Layer("background", torch.ones_like(head.outline), colour * shade[:, None])


def _shirt(head: _Head) -> Iterator[_Layer]:
    colour = _ramp(head.flat["shirt"], (0.96, 0.96, 0.94), (0.80, 0.45, 0.48), (0.45, 0.05, 0.14))
    cover = _cover(_ellipse(head.x, head.y - 1.1, 0.78, 0.5)).expand(len(colour), -1, -1)
    yield _Layer("shirt", cover, colour)


def _hair_outline(head: _Head) -> _Field:
    """Signed distance to the hair's outer edge, without the cut at the bottom."""
    curls = head.f["curls"]
    dx, dy = head.x + 0.05 * head.turn, head.y - head.cy + 0.05
    angle = torch.atan2(dx, -dy.clamp_max(0) + 0.05)
    wave = torch.where(dy < 0, (angle * 9).cos(), (dy * 17).cos())
    volume = 0.045 + curls * (0.09 + 0.05 * wave)
    return _ellipse(dx, dy.clamp_max(0), head.width + volume, head.height + volume)


def _hair_texture(head: _Head) -> _Colour:
    """Hair colour with strands (straight) or rings (curly)."""
    waves = (head.x * 24 + (head.y * 24).sin() * 1.6).sin() * (head.y * 22).cos()
    shade = 1 + head.f["curls"] * 0.26 * waves
    return (head.hair * 0.95 + 0.02) * shade[:, None]


def _back_hair(head: _Head) -> Iterator[_Layer]:
    bottom = head.cy - 0.3 + 1.2 * head.f["hair_length"]
    cut = head.y - bottom
    yield _Layer("hair", _cover(torch.maximum(_hair_outline(head), cut)), _hair_texture(head) * 0.8)


def _skin(head: _Head) -> Iterator[_Layer]:
    neck = _box(head.x, head.y - 0.6, head.width * 0.42, 0.22, 0.1)
    yield _Layer("skin", _cover(neck), head.skin * 0.82)
    side = head.x + 0.1 * head.turn
    ears = _ellipse(side.abs() - head.width, head.y - head.cy, 0.085, 0.13)
    yield _Layer("skin", _cover(ears), head.skin * 0.88)
    yield _Layer("skin", _cover(head.outline), head.skin)


def _wrinkles(head: _Head) -> Iterator[_Layer]:
    """Lines of age: forehead, folds next to the nose, bags under the eyes."""
    middle, scale = head.project(torch.zeros_like(head.width))
    x = (head.x - middle) / scale
    dy = head.y - head.cy
    forehead = torch.minimum(
        (dy + 0.47 * head.height + 0.25 * x * x).abs(),
        (dy + 0.36 * head.height + 0.25 * x * x).abs(),
    )
    forehead = torch.maximum(forehead - 0.012, x.abs() - 0.55 * head.width)
    place = dy - 0.36 * head.height
    folds = torch.maximum(
        (x.abs() - 0.17 - 0.45 * place).abs() - 0.017, place.abs() - 0.2 * head.height
    )
    lines = torch.minimum(forehead, folds)
    for eye_x, _ in head.eyes:
        under = (head.y - head.eye_y - 0.135 + 1.5 * eye_x * eye_x).abs() - 0.012
        lines = torch.minimum(lines, torch.maximum(under, eye_x.abs() - 0.1))
    cover = _cover(torch.maximum(lines, head.outline + 0.02))
    yield _Layer("skin", cover, head.skin * 0.5, 0.9 * head.f["age"])


def _nose(head: _Head) -> Iterator[_Layer]:
    size = head.f["nose"]
    middle, scale = head.project(torch.zeros_like(head.width))
    x = head.x - middle - 0.04 * head.sin
    tip = head.cy + 0.2 * head.height + 0.05 * size
    wide, tall = (0.04 + 0.11 * size) * scale, 0.05 + 0.2 * size
    bridge = torch.maximum(
        x.abs() - wide * (0.4 + 0.6 * ((head.y - tip) / tall + 1).clamp(0, 1)),
        (head.y - tip + tall * 0.5).abs() - tall * 0.5,
    )
    ball = _ellipse(x, head.y - tip, wide, 0.03 + 0.045 * size)
    yield _Layer("nose", _cover(torch.minimum(bridge, ball)), head.skin * 0.68)
    shine = _ellipse(x, head.y - tip + tall * 0.45, wide * 0.36, tall * 0.5)
    yield _Layer("nose", _cover(shine), (head.skin * 1.16).clamp_max(1))
    nostrils = _ellipse(x.abs() - wide * 0.5, head.y - tip - 0.02, wide * 0.28, 0.018)
    yield _Layer("nose", _cover(nostrils), head.skin * 0.4)


def _eyes(head: _Head) -> Iterator[_Layer]:
    iris = _ramp(
        head.flat["eye_colour"], (0.30, 0.14, 0.05), (0.25, 0.62, 0.22), (0.12, 0.48, 0.98)
    )
    y = head.y - head.eye_y

    def both(rx: float, ry: float, dy: float = 0.0) -> _Field:
        left, right = (_ellipse(x, y - dy, rx, ry) for x, _ in head.eyes)
        return _cover(torch.minimum(left, right))

    dark = torch.zeros_like(iris) + 0.06
    yield _Layer("eyes", both(0.118, 0.09, -0.018), dark + 0.1)
    yield _Layer("eyes", both(0.108, 0.078), torch.ones_like(iris))
    yield _Layer("eyes", both(0.072, 0.078), iris)
    yield _Layer("eyes", both(0.03, 0.034), dark)


def _brows(head: _Head) -> Iterator[_Layer]:
    brow = head.f["brow"]
    distance = []
    for side, (x, _) in zip((-1, 1), head.eyes, strict=True):
        slant = side * x * (0.75 * brow - 0.25)
        y = head.y - head.eye_y + 0.195 - 0.03 * brow + slant + 1.5 * x * x
        distance.append(_box(x, y, 0.12 + 0.025 * brow, 0.012 + 0.06 * brow, 0.012))
    colour = head.hair * 0.55
    yield _Layer(
        "brows", _cover(torch.maximum(torch.minimum(*distance), head.outline - 0.03)), colour
    )


def _mouth_curve(head: _Head) -> tuple[_Field, _Field]:
    """Place along the mouth in [-1, 1], and height below the lips' middle line."""
    middle, scale = head.project(torch.zeros_like(head.width))
    along = (head.x - middle) / (0.2 * scale)
    bend = 0.28 * (head.f["smile"] - 0.5)
    return along, head.y - head.mouth_y - bend * (0.5 - along.square())


def _mouth(head: _Head) -> Iterator[_Layer]:
    along, y = _mouth_curve(head)
    full = (1 - along.square()).clamp_min(0)
    opening = 0.12 * head.f["mouth_open"] * full
    edge = (along.abs() - 1) * 0.2
    lips = torch.maximum(y.abs() - opening - 0.014 - 0.022 * full, edge)
    lip_colour = torch.tensor((0.72, 0.16, 0.20), device=y.device)[:, None, None]
    yield _Layer("mouth", _cover(lips), lip_colour * 0.75 + head.skin * 0.25)
    line = y.abs() - opening - 0.004
    inside = _cover(torch.maximum(line, edge + 0.04))
    yield _Layer("mouth", inside, head.skin * 0 + 0.16)
    teeth = torch.maximum(line + 0.012, y + 0.15 * opening)
    yield _Layer("mouth", _cover(torch.maximum(teeth, edge + 0.06)), head.skin * 0 + 0.96)


def _beard(head: _Head) -> Iterator[_Layer]:
    middle, _ = head.project(torch.zeros_like(head.width))
    x = (head.x - 0.6 * middle) / head.width
    dy = head.y - head.cy
    top = head.height * (0.42 - 0.55 * x.square())
    wide = 1.03 - 0.16 * (dy / head.height).clamp(0, 1).square()
    whole = _ellipse(head.x / wide, dy, head.width, head.height * 1.1)
    cover = _cover(torch.maximum(whole, (top - dy) * 0.8))
    yield _Layer("beard", cover, head.hair * 0.72, head.f["beard"])


def _front_hair(head: _Head) -> Iterator[_Layer]:
    middle, _ = head.project(torch.zeros_like(head.width))
    x = (head.x - 0.5 * middle) / head.width
    fringe = head.cy - head.height * (0.62 - 0.62 * x.square())
    strands = 0.045 * head.f["curls"] * (head.x * 20).cos()
    cut = (head.y - fringe - strands) * 0.75
    bottom = head.y - head.cy + 0.1
    distance = torch.maximum(torch.maximum(_hair_outline(head), cut), bottom)
    yield _Layer("hair", _cover(distance), _hair_texture(head))


def _glasses(head: _Head) -> Iterator[_Layer]:
    y = head.y - head.eye_y
    opacity = head.f["glasses"]
    frames = torch.minimum(*(_box(x, y, 0.16, 0.135, 0.06) for x, _ in head.eyes))
    bar = torch.maximum((y + 0.02).abs() - 0.018, head.x.abs() - head.width - 0.02)
    dark = torch.zeros_like(head.skin)
    yield _Layer("glasses", _cover(frames), dark + 0.9, 0.22 * opacity)
    rims = torch.minimum(frames.abs() - 0.02, torch.maximum(bar, -frames))
    yield _Layer("glasses", _cover(rims), dark + 0.05, opacity)


def _hat(head: _Head) -> Iterator[_Layer]:
    opacity = head.f["hat"]
    x = head.x - 0.06 * head.turn
    brim_y = head.cy - 0.52 * head.height
    y = head.y - brim_y
    crown = torch.maximum(
        _ellipse(x, y, head.width + 0.11, 0.2 + 0.4 * head.height).maximum(y),
        -0.44 - y,
    )
    plain = torch.zeros_like(head.skin)
    blue = plain + torch.tensor((0.10, 0.24, 0.62), device=y.device)[:, None, None]
    gold = plain + torch.tensor((0.98, 0.80, 0.20), device=y.device)[:, None, None]
    yield _Layer("hat", _cover(crown), blue, opacity)
    band = torch.maximum(crown, (y + 0.11).abs() - 0.04)
    yield _Layer("hat", _cover(band), gold, opacity)
    brim = _box(x, y, head.width + 0.26, 0.05, 0.04)
    yield _Layer("hat", _cover(brim), blue * 0.55, opacity)


_DRAWING_ORDER = (
    _background, _shirt, _back_hair, _skin, _wrinkles, _beard, _nose, _mouth, _eyes, _brows,
    _front_hair, _glasses, _hat,
)  # fmt: skip


def _layers(head: _Head) -> Iterator[_Layer]:
    for draw in _DRAWING_ORDER:
        yield from draw(head)


# ---------------------------------------------------------------- images and masks


def _painted(
    head: _Head, layers: Iterable[_Layer]
) -> tuple[Float[Tensor, "b 3 64 w"], Float[Tensor, "b 1 64 w"]]:
    """Layers over black under the head's light, in [0, 1]; and how open each pixel is behind."""
    shape = (len(head.flat["light"]), 1, NATIVE_SIZE, head.columns)
    wall = torch.ones(shape, device=head.x.device)
    image = torch.zeros(shape, device=head.x.device).repeat(1, 3, 1, 1)
    for layer in layers:
        alpha = layer.cover if layer.opacity is None else layer.cover * layer.opacity
        alpha = alpha[:, None]
        image.lerp_(layer.colour.expand_as(image), alpha.expand_as(image))
        if layer.part != "background":
            wall.mul_(1 - alpha)
    light = 2 * head.f["light"] - 1
    shade = 1 + 0.5 * light * (head.x / (head.width + 0.08)).clamp(-1, 1)
    image.mul_(1 + (1 - wall) * (shade[:, None] - 1))
    return image, wall


def _render_chunk(factors: Float[Tensor, "b f"]) -> Float[Tensor, "b 3 64 64"]:
    head = _Head(factors)
    image, _ = _painted(head, _layers(head))
    return image.clamp_(0, 1) * 2 - 1


_OUTLINED = ("shirt", "hair", "skin", "beard", "hat")
_LUMA = (0.299, 0.587, 0.114)
_PAPER, _INK = (0.97, 0.95, 0.90), (0.10, 0.12, 0.30)


def _outline(cover: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Share of a shape's pixels that lie on its inner edge."""
    return cover + F.max_pool2d(-cover[:, None], 3, 1, 1)[:, 0]


def _lines_chunk(factors: Float[Tensor, "b f"]) -> Float[Tensor, "b 3 64 64"]:
    """Ink on blank paper: large shapes are outlined and toned lightly, small ones toned fully."""
    head = _Head(factors)
    ink = torch.zeros(len(factors), NATIVE_SIZE, NATIVE_SIZE, device=factors.device)
    paper = torch.ones_like(ink)
    luma = torch.tensor(_LUMA, device=factors.device)[:, None, None]
    for layer in _layers(head):
        if layer.part == "background":
            continue
        tone = 1 - (layer.colour * luma).sum(1).clamp(0, 1)
        if layer.part in _OUTLINED:
            tone = 0.4 * tone
            tone = tone + (1 - tone) * _outline(layer.cover)
        alpha = layer.cover if layer.opacity is None else layer.cover * layer.opacity
        ink.lerp_(tone.expand_as(ink), alpha.expand_as(ink))
        paper.mul_(1 - alpha)
    light = 2 * head.f["light"] - 1
    shadow = (-light * (head.x / (head.width + 0.08)).clamp(-1, 1)).clamp_min(0)
    ink += (1 - ink) * 0.3 * shadow * (1 - paper)
    blank, full = (torch.tensor(c, device=ink.device)[:, None, None] for c in (_PAPER, _INK))
    return torch.lerp(blank, full, ink[:, None]) * 2 - 1


def _chunks(factors: Float[Tensor, "b f"]) -> tuple[Float[Tensor, "c f"], ...]:
    """Batches of the size that renders fastest (cache on a CPU, launches on a GPU)."""
    return factors.float().split(16 if factors.device.type == "cpu" else 1024)


def _check_size(size: int) -> int:
    if size < 1 or NATIVE_SIZE % size:
        raise ValueError(
            f"size must divide {NATIVE_SIZE} (faces are drawn at {NATIVE_SIZE} px and averaged), "
            f"got {size}; use 64 or 32"
        )
    return NATIVE_SIZE // size


def render(
    factors: Float[Tensor, "b f"], size: int = NATIVE_SIZE, style: str = "photo"
) -> Float[Tensor, "b 3 h w"]:
    """Draw faces.

    A line drawing shows the same shapes in the same places, and no colours: the background is
    blank, and of skin, hair, shirt and eyes the tone alone is left.

    Args:
        factors: float [b, f] in [0, 1], in the order of ``FACTORS``, on any device.
        size: Pixels per side: 64, or a divisor of it (area average of the 64-pixel image).
        style: One of ``STYLES``: ``"photo"``, or ``"lines"`` for a line drawing of the same faces.

    Returns:
        float32 RGB in [-1, 1] on the factors' device.

    Raises:
        ValueError: Factors out of range or of the wrong shape, an impossible size, or an unknown
            style.

    Example:
        >>> render(sample_factors("test", torch.arange(2)), size=32).shape
        torch.Size([2, 3, 32, 32])
    """
    step = _check_size(size)
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; styles are {', '.join(STYLES)}")
    if not len(_check_factors(factors)):
        return torch.empty(0, 3, size, size, device=factors.device)
    draw = _render_chunk if style == "photo" else _lines_chunk
    parts = [draw(chunk) for chunk in _chunks(factors)]
    return torch.cat([F.avg_pool2d(part, step) if step > 1 else part for part in parts])


def cutouts(
    factors: Float[Tensor, "b f"], columns: int = NATIVE_SIZE
) -> tuple[Float[Tensor, "b 3 64 w"], Float[Tensor, "b 1 64 w"]]:
    """Draw faces without a background, to be put in front of one.

    Args:
        factors: float [b, f] in [0, 1]; that of the background plays no part.
        columns: Width in pixels around the middle of the face; 80 hold the widest hat.

    Returns:
        Colours in [0, 1] times how much they cover; and the share of each pixel that they leave
        open. A picture is ``colours + open * background``.

    Raises:
        ValueError: Factors out of range or of the wrong shape.

    Example:
        >>> colours, left = cutouts(sample_factors("test", torch.arange(2)), columns=80)
        >>> colours.shape, left.shape
        (torch.Size([2, 3, 64, 80]), torch.Size([2, 1, 64, 80]))
    """
    drawn = []
    for chunk in _chunks(_check_factors(factors)):
        head = _Head(chunk, columns)
        drawn.append(_painted(head, (s for s in _layers(head) if s.part != "background")))
    colours, left = zip(*drawn, strict=True)
    return torch.cat(colours), torch.cat(left)


def backgrounds(factors: Float[Tensor, "b f"]) -> Float[Tensor, "b 3 64 1"]:
    """Draw what is behind faces, in [0, 1]: the same in each column."""
    return next(_background(_Head(_check_factors(factors), 1))).colour.clamp(0, 1)


def _masks_chunk(factors: Float[Tensor, "b f"]) -> Float[Tensor, "b p 64 64"]:
    """Share of each pixel that shows each part (for glasses, hat, beard: would show, if there)."""
    shape = (len(factors), len(PARTS), NATIVE_SIZE, NATIVE_SIZE)
    share = torch.zeros(shape, device=factors.device)
    for layer in _layers(_Head(factors)):
        alpha = layer.cover if layer.opacity is None else layer.cover * layer.opacity
        own = PARTS.index(layer.part)
        shown = share[:, own] + (1 - share[:, own]) * layer.cover
        share.mul_(1 - alpha[:, None])
        share[:, own] = shown
    return share


def part_masks(
    factors: Float[Tensor, "b f"], size: int = NATIVE_SIZE
) -> dict[str, Bool[Tensor, "b h w"]]:
    """Where each part of the face is visible.

    Edge pixels belong to every part that shows in them, so masks overlap. Glasses, hat and beard
    have the mask they would have at opacity 1, whatever their opacity is: an edit that adds them
    knows where.

    Args:
        factors: float [b, f] in [0, 1].
        size: Pixels per side, as for ``render``.

    Returns:
        A bool mask [b, h, w] for each name in ``PARTS``.
    """
    step = _check_size(size)
    _check_factors(factors)
    shares = torch.cat([_masks_chunk(chunk) for chunk in _chunks(factors)])
    shown = F.max_pool2d(shares, step) > 1 / 512
    return {name: shown[:, k] for k, name in enumerate(PARTS)}


class Faces:
    """Procedural faces as a data set: image k is a function of (split, k) alone.

    Args:
        split: One of ``SPLITS``.
        size: Pixels per side, 64 or a divisor of it.
        n: Number of faces; None for 10,000. Any index below 2**28 can be asked for all the same.
        correlation: Strength of the ties between factors, 0 to 1 (see ``sample_factors``).

    Example:
        >>> data = Faces(split="test", size=32, n=100)
        >>> data.images(torch.arange(4)).shape
        torch.Size([4, 3, 32, 32])
    """

    version = 1
    factor_names = FACTOR_NAMES

    def __init__(
        self,
        *,
        split: str = "test",
        size: int = NATIVE_SIZE,
        n: int | None = None,
        correlation: float = 0.0,
    ) -> None:
        if n is not None and not 1 <= n <= SPLIT_SIZE:
            raise ValueError(f"n must lie in 1..{SPLIT_SIZE}, got {n}")
        _check_size(size)
        sample_factors(split, torch.zeros(0, dtype=torch.int64), correlation)
        self.split, self.size, self.correlation = split, size, correlation
        self.n = 10_000 if n is None else n
        self.image_shape = (3, size, size)

    def __len__(self) -> int:
        return self.n

    def factors(self, indices: Int[Tensor, " b"]) -> Float[Tensor, "b f"]:
        """Factors in [0, 1], in the order of ``factor_names``."""
        return sample_factors(self.split, indices, self.correlation)

    def images(self, indices: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        """float32 RGB in [-1, 1]."""
        return render(self.factors(indices), self.size)

    def captions(self, indices: Int[Tensor, " b"]) -> list[str]:
        """One caption per face, one word per factor."""
        return caption(self.factors(indices))

    def masks(self, indices: Int[Tensor, " b"]) -> dict[str, Bool[Tensor, "b h w"]]:
        """Part masks, as ``part_masks`` gives them."""
        return part_masks(self.factors(indices), self.size)

    def counterfactual(
        self, indices: Int[Tensor, " b"], factor: str, value: float | Float[Tensor, " b"]
    ) -> Float[Tensor, "b 3 h w"]:
        """The image that a perfect edit of one factor to `value` in [0, 1] would give."""
        return render(with_factor(self.factors(indices), factor, value), self.size)
