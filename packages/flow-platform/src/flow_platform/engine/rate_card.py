"""The operator's rate card: a file in TOML or JSON, read when a server starts."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from flow_platform.domain import errors
from flow_platform.domain.ledger import MAX_RATE, RateCard

Rate = Annotated[int, Field(ge=0, le=MAX_RATE)]
Event = Literal["test", "workflow", "agent_run", "mcp_session"]


class RateCardDocument(BaseModel):
    """What is left out is as in the card that ships. A card with other prices has another version."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    cpu_second: Rate = RateCard.cpu_second
    memory_gib_second: Rate = RateCard.memory_gib_second
    discounts: dict[Event, Annotated[int, Field(ge=0, le=100)]] | None = None


def read_rate_card(path: Path | None) -> RateCard:
    """Without a file: the card that ships.

    Raises:
        SettingsError: All problems together.
    """
    if path is None:
        return RateCard()
    try:
        text = path.read_text()
        value = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        document = RateCardDocument.model_validate(value)
    except pydantic.ValidationError as error:
        problems = [f"{path}: {'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_url=False)]
        raise errors.SettingsError("\n".join(problems)) from error
    except (OSError, ValueError) as error:
        raise errors.SettingsError(f"{path}: expected a rate card in TOML or JSON: {error}") from error
    if document.version == RateCard.version:
        raise errors.SettingsError(f"{path}: version {document.version!r} is the card that ships: expected another")
    discounts = RateCard().discounts if document.discounts is None else {**document.discounts}
    return RateCard(document.version, document.cpu_second, document.memory_gib_second, discounts)
