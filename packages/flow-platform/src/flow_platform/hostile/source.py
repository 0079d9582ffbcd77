"""Reads the source of a component from `inside/`: one text, as components are published."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "inside"
_NOT_FOR_COMPONENTS: Final = ("from __future__ import", "from flow_platform.hostile.inside.trying import")


def tools() -> str:
    """What stands before each of them."""
    return _text("trying")


@functools.cache
def source_of(name: str) -> str:
    """The component `inside/{name}.py`, with the tools that it imports."""
    return tools() + _text(name)


def _text(name: str) -> str:
    lines = (_FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith(_NOT_FOR_COMPONENTS)) + "\n"
