"""What a tokenizer makes of a prompt, and which of its tokens are which words."""

import re
from dataclasses import dataclass
from typing import Any

from latentbench.errors import BadInput, Incompatible

WORD = re.compile(r"[\w'-]+")


@dataclass(frozen=True)
class Tokens:
    """One tokenizer's tokens of a prompt, padding included: places of the condition's token axis.

    Args:
        ids: the vocabulary's numbers.
        words: number of the word that each token is a piece of, see `words_of`; None for what is
            no word: start, end, padding, punctuation.
        count: how many tokens there are before the padding, start and end included.
    """

    ids: tuple[int, ...]
    words: tuple[int | None, ...]
    count: int

    def __len__(self) -> int:
        return len(self.ids)

    def of_word(self, number: int) -> list[int]:
        """Return the places of a word's tokens."""
        return [place for place, word in enumerate(self.words) if word == number]


def words_of(prompt: str) -> list[str]:
    """Return the words of a prompt, without punctuation.

    Example:
        >>> words_of("A blond-haired cat, smiling.")
        ['A', 'blond-haired', 'cat', 'smiling']
    """
    return WORD.findall(prompt)


def read_tokens(tokenizer: Any, prompt: str, limit: int | None = None) -> Tokens:
    """Return the tokens of a prompt, padded to `limit`, by default the tokenizer's own length.

    Raises:
        BadInput: the prompt would be cut.
        Incompatible: the tokenizer does not say where in the prompt a token is.
    """
    if not tokenizer.is_fast:
        raise Incompatible(
            f"{type(tokenizer).__name__} does not say which words its tokens are; add a "
            f"tokenizer.json to the checkpoint's tokenizer folder"
        )
    ids = token_ids(tokenizer, prompt, limit)
    read = tokenizer(prompt, return_offsets_mapping=True, truncation=False)
    spans = [word.span() for word in WORD.finditer(prompt)]
    words = [_word(spans, *offsets) for offsets in read["offset_mapping"]]
    words += [None] * (len(ids) - len(words))
    return Tokens(tuple(ids), tuple(words), len(read["input_ids"]))


def _word(spans: list[tuple[int, int]], start: int, end: int) -> int | None:
    """Return the number of the word that shares characters with a token, if any does."""
    shared = (k for k, (first, last) in enumerate(spans) if start < last and first < end)
    return next(shared, None)


def token_ids(tokenizer: Any, prompt: str, limit: int | None = None) -> list[int]:
    """Return a prompt's token ids, padded to `limit`, by default the tokenizer's own length.

    Raises:
        BadInput: the prompt would be cut.
    """
    limit = limit or int(tokenizer.model_max_length)
    ids = tokenizer(prompt, padding="max_length", max_length=limit, truncation=False).input_ids
    if len(ids) > limit:
        raise BadInput(f"prompt of {len(ids)} tokens, at most {limit}: {prompt!r}; shorten it")
    return ids


def lasting_words(caption: str, *others: str) -> str:
    """Return the words of a caption that all the others have too.

    Example:
        >>> lasting_words("young smiling hat", "young frowning hat", "old smiling hat")
        'hat'
    """
    kept = caption.split()
    for other in others:
        there = other.split()
        kept = [word for word in kept if word in there]
    return " ".join(kept)


def new_words(caption: str, other: str) -> str:
    """Return the words of a caption that another one has not.

    Example:
        >>> new_words("young smiling hat", "young frowning hat")
        'smiling'
    """
    return " ".join(word for word in caption.split() if word not in other.split())
