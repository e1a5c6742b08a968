"""Whether a text holds a secret: a key, a token, a password. Needs the extra ``secrets``.

The forms of services' keys are those of detect-secrets; :data:`_MORE` adds what people write into prompts, and forms
that it does not know yet.
"""

import re
from functools import cache
from typing import Any, Final

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector

_NO_SECRET: Final = frozenset({"Public IP (ipv4)"})
"""What detect-secrets looks for besides secrets."""

_NAME: Final = (
    r"(?:secret|token|pwd|pass(?:word|wd|phrase)?"
    r"|(?:secret|private|access|account|api|shared|signing|encryption)[_. -]?(?:access[_. -]?)?key)"
)
_MORE: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY"  # also without the key itself
    r"|\bsk-(?=[\w-]{0,64}\d)[\w-]{20,}|\bsk_(?:live|test)_\w{16,}|\bdapi[0-9a-f]{32}|\bAIza[\w-]{35}"
    r"|\b(?:hf|npm)_(?=\w{0,64}\d)\w{30,}|\b(?:gh[pousr]|github_pat)_\w{20,}"
    r"|\b[a-z][a-z0-9+]{0,20}://(?:[^\s/:@]{0,64}:[^\s/@]{1,128}|(?=[\w-]{0,64}\d)[\w-]{20,128})@"  # in a URL
    r"|\bauthorization\b[\"']?\s{0,9}[:=]\s{0,9}[\"']?(?:bearer|basic|token)\s{1,9}(?=\S{0,64}\d)[\w.~+/=-]{8,}"
    # NAME=value: letters and a digit, no variable, placeholder, pattern or call
    rf"|{_NAME}(?:_\w{{0,20}})?[\"']?\s{{0,9}}[:=]\s{{0,9}}"
    r"(?:(?P<quote>[\"'])(?=[^\s\"']{0,64}\d)(?=[^\s\"']{0,64}[a-z])[^\s\"'$\[{<][^\s\"']{7,}(?P=quote)"
    r"|(?![a-z_]\w{0,64}\.[a-z_])(?=[^\s\"']{0,64}\d)(?=[^\s\"']{0,64}[a-z])[^\s\"'$\[{<(][^\s\"'()]{7,})",
    re.IGNORECASE,
)
_WINDOW, _OVERLAP = 4096, 512
"""Characters that are looked at together: the time some forms need grows with the square of it."""


@cache
def _detectors() -> tuple[Any, ...]:
    found: dict[str, Any] = get_mapping_from_secret_type_to_class()
    return tuple(
        detector()
        for name, detector in sorted(found.items())
        if name not in _NO_SECRET and issubclass(detector, RegexBasedDetector)
    )


def has_secret(text: str) -> bool:
    """Whether something in a text has the form of a secret; what has no known form is not recognised.

    >>> has_secret("Fix my .env file: DB_PASSWORD=Sup3rS3cret99")
    True
    >>> has_secret("How do I reset my password?")
    False
    """
    windows = (text[start : start + _WINDOW] for start in range(0, max(1, len(text)), _WINDOW - _OVERLAP))
    return any(
        _MORE.search(window) or any(True for detector in _detectors() for _ in detector.analyze_string(window))
        for window in windows
    )
