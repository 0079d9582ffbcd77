"""Names of environment variables that users may set: of rings' variables and of secrets."""

from __future__ import annotations

import re
from typing import Final

RESERVED_VARIABLES: Final = frozenset(
    {
        "PLATFORM_API_URL",
        "PLATFORM_API_TIMEOUT",
        "AUTH_TOKEN",
        "ORG_ID",
        "WORKSPACE_ID",
        "EXECUTION_ID",
        "NATS_URL",
        "PARENT_BILLING_TXN_ID",
        "LIFECYCLE_EVENT",
        "DEPLOYMENT_ID",
        "RING_ID",
        "ATTEMPT",
    }
)
"""Set by the platform in each container (the client contract, section 4); a ring or a secret may not replace them."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def check_variable(name: str) -> str:
    """Returns the name of an environment variable that a user may set.

    Raises:
        ValueError: Not such a name, or one that the platform sets itself.
    """
    if not _VARIABLE.fullmatch(name):
        raise ValueError("expected a name of letters, digits and '_', not beginning with a digit")
    if name in RESERVED_VARIABLES:
        raise ValueError("expected another name: the platform sets this one in each container")
    return name
