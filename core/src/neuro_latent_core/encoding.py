"""Text files that people give: UTF-8, with or without a byte order mark."""

import json


def check_utf8(start: bytes) -> None:
    """Check the first four bytes of a file.

    Raises:
        ValueError: the file is UTF-16 or UTF-32.

    >>> check_utf8("name".encode("utf-16")[:4])
    Traceback (most recent call last):
    ValueError: the text is UTF-16; save it as UTF-8
    """
    encoding = json.detect_encoding(start)
    if not encoding.startswith("utf-8"):
        raise ValueError(f"the text is {encoding[:6].upper()}; save it as UTF-8")


def decode(content: bytes) -> str:
    """The text of a whole file, without a byte order mark.

    Raises:
        ValueError: the file is not UTF-8; a UnicodeDecodeError where it is not UTF-16 or UTF-32 either.
    """
    check_utf8(content[:4])
    return content.decode("utf-8-sig")
