"""What tests read off documents."""

from __future__ import annotations

import re
from pathlib import Path


def blocks(page: Path, kind: str) -> list[str]:
    """Return the code blocks of a page in that language."""
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), flags=re.M | re.S)
