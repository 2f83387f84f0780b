"""Which tokens of a source prompt the tokens of a target prompt take their attention maps from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.errors import BadInput
from latentbench.prompt_tokens import Tokens, words_of


@dataclass(frozen=True)
class Alignment:
    """How the target's maps come from the source's: ``M* <- taken (M A) + (1 - taken) M*``.

    Args:
        A: weight of each source token (rows) in each target token (columns).
        taken: 1 for the target's tokens that take the source's maps, 0 for those that keep theirs.
    """

    A: Float[Tensor, "m m"]
    taken: Float[Tensor, " m"]

    @staticmethod
    def concat(parts: Sequence["Alignment"]) -> "Alignment":
        """Return the alignment of several tokenizers' tokens, one after the other."""
        A = torch.block_diag(*(part.A for part in parts))
        return Alignment(A, torch.cat([part.taken for part in parts]))


def replaced(source: Tokens, target: Tokens) -> Alignment:
    """Return the alignment word by word, of prompts with as many words.

    Source: "Prompt-to-Prompt Image Editing with Cross Attention Control", section 3.2, word swap.
    A word's tokens take those of the word in its place, one by one, or their sum in equal shares
    where they are not as many. What is no word (start, end, padding, punctuation) takes what is at
    its place between the same words; where the source has nothing there, it keeps its own maps.
    Deviation: the published code aligns all tokens after a word of another length one place off.
    """
    A, taken = torch.zeros(len(source), len(target)), torch.ones(len(target))
    for ours, theirs in zip(_runs(source), _runs(target), strict=True):
        if not ours:
            taken[theirs] = 0
        elif len(ours) == len(theirs):
            A[ours, theirs] = 1
        elif theirs and source.words[ours[0]] is None:
            _spread(A, ours, theirs)
        elif theirs:
            A[ours[0] : ours[-1] + 1, theirs[0] : theirs[-1] + 1] = 1 / len(theirs)
    return Alignment(A, taken)


def refined(source: Tokens, target: Tokens) -> Alignment:
    """Return the alignment of the tokens that both prompts have; new ones keep their own maps.

    Source: the same section, adding a new phrase. Needleman-Wunsch over token ids, with a match
    worth 1, a mismatch -1 and a gap 0, as in the published code; padding stays at its place.
    """
    A, taken = torch.zeros(len(source), len(target)), torch.ones(len(target))
    taken[: target.count] = 0
    for i, j in common_subsequence(source.ids[: source.count], target.ids[: target.count]):
        A[i, j], taken[j] = 1, 1
    padding = range(target.count, len(target))
    A[padding, padding] = 1
    return Alignment(A, taken)


def common_subsequence(x: Sequence[int], y: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of places of a longest common subsequence, first to last.

    Example:
        >>> common_subsequence([1, 2, 3], [1, 9, 2, 3])
        [(0, 0), (1, 2), (2, 3)]
    """
    best = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            best[i + 1][j + 1] = max(best[i][j] + (a == b), best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], len(x), len(y)
    while i and j:
        if best[i][j] == best[i][j - 1]:
            j -= 1
        elif best[i][j] == best[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def same_number_of_words(source: str, target: str) -> bool:
    """Return whether two prompts can be aligned word by word."""
    return len(words_of(source)) == len(words_of(target))


def changed_words(prompt: str, other: str) -> list[int]:
    """Return the numbers of the words of a prompt that the other has not, in the order there.

    Example:
        >>> changed_words("a smiling old man", "a man smiling")
        [1, 2]
    """
    words, others = ([w.lower() for w in words_of(p)] for p in (prompt, other))
    names = {name: k for k, name in enumerate(dict.fromkeys([*words, *others]))}
    kept = common_subsequence([names[w] for w in words], [names[w] for w in others])
    return sorted(set(range(len(words))) - {i for i, _ in kept})


def places_of(tokens: Sequence[Tokens], words: Sequence[int]) -> Float[Tensor, " m"]:
    """Return 1 at the places of words' tokens, 0 elsewhere, over all tokenizers' tokens."""
    told = [float(word in words) for part in tokens for word in part.words]
    return torch.tensor(told)


def numbers_of(prompt: str, words: Sequence[str]) -> list[int]:
    """Return the numbers of the words of a prompt that are among the given ones."""
    asked = {word.lower() for word in words}
    return [k for k, word in enumerate(words_of(prompt)) if word.lower() in asked]


def require_a_word(prompts: Sequence[str], words: Sequence[str]) -> None:
    """Refuse words none of which is in any of the prompts.

    Raises:
        BadInput: names words and prompts.
    """
    if not any(numbers_of(prompt, words) for prompt in prompts):
        raise BadInput(
            f"neither of the prompts {' and '.join(map(repr, prompts))} has a word of "
            f"method.words={list(words)}; give words of the prompts, or null for those in which "
            f"they differ"
        )


def _runs(tokens: Tokens) -> list[list[int]]:
    """Return the places of each word's tokens, and those before, between and after words.

    In order: before the first word, the first word, what follows it, the second word, ...
    """
    last = max((w for w in tokens.words if w is not None), default=-1)
    runs: list[list[int]] = [[] for _ in range(2 * last + 3)]
    run = 0
    for place, word in enumerate(tokens.words):
        run = max(run, 2 * word + 1) if word is not None else run + (run % 2)
        runs[run].append(place)
    return runs


def _spread(A: Float[Tensor, "m m"], ours: list[int], theirs: list[int]) -> None:
    """Align what is no word in order; the last takes or shares what is left over."""
    n = min(len(ours), len(theirs))
    for k in range(n - 1):
        A[ours[k], theirs[k]] = 1
    A[ours[n - 1 :], theirs[n - 1]] = 1
    A[ours[n - 1], theirs[n - 1 :]] = 1 / len(theirs[n - 1 :])
