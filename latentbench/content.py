"""A hash of content: of tensors, bytes, JSON values and nests of them. It needs no torch."""

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any


def content_hash(*parts: Any) -> str:
    """Return a sha256 over tensors (dtype, shape, bytes), bytes, JSON values and nests of them.

    Other parts have other hashes: each is hashed with its kind and its length. Two things count as
    the same: a tuple and a list, and mappings whose items come in another order.

    Raises:
        TypeError: a part of another kind, whose text need not tell it from others.

    Example:
        >>> content_hash(1, ["a"]) == content_hash(1, ("a",))
        True
        >>> content_hash("a", "b") == content_hash(["a", "b"])
        False
    """
    digest = hashlib.sha256()
    encode(parts, digest.update)
    return digest.hexdigest()


def id_of(*parts: Any) -> str:
    """Return the first 16 digits of a content hash: the id of a cell."""
    return content_hash(*parts)[:16]


def encode(part: Any, write: Callable[[bytes | memoryview], object]) -> None:
    """Write a part's code in pieces: a letter for its kind, its length, a colon, its content.

    A reader of a code knows at every byte what comes next, so no two parts share one.

    Raises:
        TypeError: see `content_hash`.
    """
    if isinstance(part, str):
        text = part.encode("utf-8", "surrogatepass")
        write(b"s%d:%b" % (len(text), text))
    elif part is None or isinstance(part, bool):
        write({None: b"n0:", False: b"b1:0", True: b"b1:1"}[part])
    elif isinstance(part, int | float):
        text = b"%x" % part if isinstance(part, int) else float(part).hex().encode()
        write(b"%b%d:%b" % (b"i" if isinstance(part, int) else b"f", len(text), text))
    elif isinstance(part, bytes):
        write(b"y%d:" % len(part))
        write(part)
    elif isinstance(part, _tensors()):
        torch = sys.modules["torch"]
        flat = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        write(b"t%d:" % len(flat))
        encode((str(part.dtype), part.shape), write)
        write(flat.data)
    elif isinstance(part, Mapping):
        items = sorted(((_code(key), value) for key, value in part.items()), key=itemgetter(0))
        write(b"m%d:" % len(items))
        for key, value in items:
            write(key)
            encode(value, write)
    elif isinstance(part, Sequence):
        write(b"l%d:" % len(part))
        for inner in part:
            encode(inner, write)
    else:
        raise TypeError(
            f"content_hash takes tensors, bytes, JSON values, lists and mappings of them; got "
            f"{part!r} of {type(part).__module__}.{type(part).__qualname__}"
        )


def _code(part: Any) -> bytes:
    pieces: list[bytes | memoryview] = []
    encode(part, pieces.append)
    return b"".join(pieces)


def _tensors() -> tuple[type[Any], ...]:
    """Return the class of tensors; none where torch is not imported, as none can be there then."""
    torch = sys.modules.get("torch")
    return () if torch is None else (torch.Tensor,)
