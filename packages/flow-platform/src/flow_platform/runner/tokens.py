"""The credentials of executions as a runner believes them: it has the public keys, which the engine tells it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.domain.credential import digest_of_keys, parse_key_set, parse_token

logger = logging.getLogger(__name__)


class ExecutionTokens:
    """Verifies tokens that containers present at the gateway."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[str, Ed25519PublicKey] = {}
        self.digest = ""
        """Of the keys that are known, for the engine to see whether there are others."""

    def learn(self, key_set: Mapping[str, Any]) -> None:
        """Takes these keys from now on, and no others."""
        keys = parse_key_set(key_set)
        if not keys:
            logger.warning("the engine told no keys of tokens: renewed ones are refused at the gateway")
        self._keys, self.digest = keys, digest_of_keys(key_set)

    def is_of(self, token: str, execution_id: str, lease_epoch: int) -> bool:
        """Whether a token is genuine, in force, and for that attempt of that execution."""
        try:
            credential = parse_token(token, self._keys)
            credential.check_times(self._clock.now())
        except errors.Unauthenticated:
            return False
        principal = credential.principal
        return principal.execution_id == execution_id and principal.lease_epoch == lease_epoch
