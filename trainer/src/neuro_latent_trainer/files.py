"""Files that are there whole or not at all."""

import os
from pathlib import Path


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a file beside, bring it to the disk, and rename it; what fails leaves the old file and nothing else.

    Raises:
        OSError: it cannot be written; the error names it.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
