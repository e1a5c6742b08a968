"""What trainer, export and server do alike with the token ids of a prompt."""

from collections.abc import Mapping
from typing import Final, Protocol

UNKNOWN: Final = ("<unk>", "[UNK]")


class AddedToken(Protocol):
    """An added token of a tokenizer, as the library ``tokenizers`` has it."""

    content: str
    special: bool


def without_control(ids: list[int], added: Mapping[int, AddedToken]) -> list[int]:
    """Ids of a text, the unknown token in place of control tokens.

    T5's own tokenizer has these among its ordinary pieces, so it writes ``</s>`` in a text as the end token though the
    text is not split at special tokens.

    Args:
        ids: without the special tokens at the ends.
        added: the tokenizer's added tokens by id.
    """
    control = {token for token, piece in added.items() if piece.special}
    unknown = next((token for token, piece in added.items() if piece.content in UNKNOWN), None)
    return ids if unknown is None or control.isdisjoint(ids) else [unknown if i in control else i for i in ids]


def both_ends(ids: list[int], room: int) -> list[int]:
    """The first and the last tokens of a list that is too long, half of the room each.

    >>> both_ends([1, 2, 3, 4, 5, 6], 3), both_ends([1, 2], 3)
    ([1, 2, 6], [1, 2])
    """
    if len(ids) <= room:
        return ids
    tail = room // 2
    return [*ids[: room - tail], *(ids[-tail:] if tail else [])]
