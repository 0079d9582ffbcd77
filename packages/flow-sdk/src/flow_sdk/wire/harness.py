"""Frames on the inherited socket between a runner and the harness in a container.

A frame is a 5-byte header (big-endian: kind u8, length u32) and a body of UTF-8 JSON. The runner trusts none of it: a
kind out of place, a length over its limit or a body that is not JSON ends the container as a protocol error.

    runner  -> harness   START   {mode, code, entry_point, input, env, ...}   once, the first frame
    harness -> runner    STARTED {}                                           user code is about to be called
    harness -> runner    EVENT   {event_type, event_data, timestamp}          any number, up to Limits.events
    harness -> runner    RESULT  {output, usage, messages, state, error}      once, the last frame
"""

from __future__ import annotations

import enum
import struct
from typing import Final

HEADER: Final = struct.Struct(">BI")


NETWORK_EVENT: Final = "network"
"""Type of the event that each connection of a component's way out leaves."""

PLATFORM_EVENTS: Final = frozenset({NETWORK_EVENT})
"""Types that say what the platform saw: a component cannot put its own word in their place."""


class Frame(enum.IntEnum):
    START = 1
    STARTED = 2
    EVENT = 3
    RESULT = 4


class Mode(enum.StrEnum):
    """What the harness does with the code: run it, or only look at it (publish)."""

    RUN = "run"
    INSPECT = "inspect"
