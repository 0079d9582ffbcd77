"""When a request to a provider is tried again, and after which pause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_TRIES: Final = 3  # Of one model; a chain tries the next one then.


@dataclass(frozen=True)
class RetryRule:
    """Exponential, with jitter over its upper half, so that callers that failed together do not come back together.

    Attributes:
        patience_seconds: The longest pause that a provider may ask for when there is no other model to try.
        impatience_seconds: The same when there is one.
    """

    max_tries: int = MAX_TRIES
    initial_seconds: float = 0.5
    maximum_seconds: float = 8.0
    patience_seconds: float = 30.0
    impatience_seconds: float = 2.0

    def pause(self, trial: int, asked: float | None, *, has_other: bool, random: Callable[[], float]) -> float | None:
        """Seconds until the next try; None: no further one.

        Args:
            trial: That failed, from 1.
            asked: What the provider asked for; obeyed, or there is no next try.
            random: From 0 to 1.
        """
        if trial >= self.max_tries:
            return None
        if asked is not None:
            patience = self.impatience_seconds if has_other else self.patience_seconds
            return asked if asked <= patience else None
        longest = min(self.maximum_seconds, self.initial_seconds * 2 ** (trial - 1))
        return longest * (0.5 + random() / 2)
