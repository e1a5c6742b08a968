"""JSON lines with errors that name the file and the line."""

import json
from pathlib import Path
from typing import Any


def parse_json_line(line: str, path: Path, number: int) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        ValueError: the line is not a JSON object; the message names ``path`` and the line ``number``.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{number}: not valid JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(row, dict):
        raise ValueError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
    return row
