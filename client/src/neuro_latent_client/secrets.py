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

_MORE: Final = re.compile(
    r"\bsk-[\w-]{20,}|\bsk_(?:live|test)_\w{16,}|\bdapi[0-9a-f]{32}|\bAIza[\w-]{35}|\b(?:hf|npm)_\w{30,}"
    r"|\b(?:gh[pousr]|github_pat)_\w{20,}"
    r"|\b\w+://[^\s/:@]*:[^\s/@]+@"  # a password in a URL
    r"|\bauthorization\b[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token)\s+(?=\S*\d)[\w.~+/=-]{8,}"
    r"|(?:password|passwd|pwd|secret|api[_ -]?key|token)\b[\"']?\s*[:=]\s*[\"']?(?=[^\s\"'()]*\d)[^\s\"'()]{8,}",
    re.IGNORECASE,
)


@cache
def _forms() -> tuple[re.Pattern[str], ...]:
    detectors: dict[str, Any] = get_mapping_from_secret_type_to_class()
    return (
        _MORE,
        *(
            form
            for name, detector in sorted(detectors.items())
            if name not in _NO_SECRET and issubclass(detector, RegexBasedDetector)
            for form in detector().denylist
        ),
    )


def has_secret(text: str) -> bool:
    """Whether something in a text has the form of a secret; what has no known form is not recognised.

    >>> has_secret("Fix my .env file: DB_PASSWORD=Sup3rS3cret99")
    True
    >>> has_secret("How do I reset my password?")
    False
    """
    return any(form.search(text) for form in _forms())
