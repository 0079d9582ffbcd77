"""The documents as the tests of this folder read them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *ROOT.glob("examples/*/README.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(language: str, *paths: Path) -> list[tuple[str, str]]:
    """(where, code) of every block of that language, in all documents or those named."""
    return [
        (f"{path.relative_to(ROOT)}#{number}", code)
        for path in paths or DOCUMENTS
        for number, (found, code) in enumerate(_FENCE.findall(path.read_text()), 1)
        if found == language
    ]


def without_blocks(text: str) -> str:
    return _FENCE.sub("", text)


def section(name: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    return read(name).split(f"\n## {heading}\n")[1].split("\n## ")[0]
