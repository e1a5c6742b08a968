"""Whether a text holds a secret: a key, a token, a password. Needs the extra ``secrets``.

The rules are those of Betterleaks, which is kept up with the forms of keys; :data:`_MORE` adds what people write into
prompts and a scanner of source code lets pass.
"""

import re
from typing import Final

import betterleaks

_MORE: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"  # also without the key itself
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bsk-[\w-]{20,}"
    r"|\b\w+://[^\s/:@]*:[^\s/@]+@"  # a password in a URL
    r"|\bauthorization\b[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token)\s+(?=\S*\d)[\w.~+/=-]{8,}"
    r"|(?:password|passwd|pwd|secret|api[_ -]?key|token)\b[\"']?\s*[:=]\s*[\"']?(?=\S*\d)[^\s\"']{8,}",
    re.IGNORECASE,
)


def has_secret(text: str) -> bool:
    """Whether something in a text has the form of a secret; what has no known form is not recognised.

    >>> has_secret("Fix my .env file: DB_PASSWORD=Sup3rS3cret99")
    True
    >>> has_secret("How do I reset my password?")
    False
    """
    if _MORE.search(text):
        return True
    # Betterleaks skips a line with "betterleaks:allow", and C strings end at a NUL.
    plain = text.replace(":allow", " allow").replace("\0", " ").encode(errors="replace").decode()
    return bool(betterleaks.scan_string(plain))
