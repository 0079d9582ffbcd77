"""Text from executions, made harmless for a terminal: it shows what was written, and is never obeyed."""

from __future__ import annotations

import re
from typing import Final

# C0 but for tab and line feed, DEL, C1, the marks that change the direction of text, and what ends a line for some
# programs only. Colours that we set ourselves stay: they change nothing but how what follows looks.
_OBEYED: Final = re.compile(
    "(\x1b\\[[0-9]{1,2}m)|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def inert(text: str) -> str:
    """Replaces each character that a terminal would obey by the escape of its number, which is also JSON's."""
    return _OBEYED.sub(lambda found: found[1] or f"\\u{ord(found[0]):04x}", text)
