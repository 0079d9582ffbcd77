"""The configuration of the model gateway: the operator's file, and the document that a workspace keeps.

Both have the same shape; prices are the operator's alone. A workspace adds providers, aliases, limits and scripts, or
puts its own in the place of the platform's; limits of both hold.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import urlsplit

import pydantic
from pydantic import BaseModel, ConfigDict, Field, field_validator

from flow_platform.domain import errors
from flow_platform.domain.model_call import Price, PriceTable
from flow_platform.gateway.providers import (
    ALIAS,
    BUILT_IN,
    LOCAL,
    MAX_CHAIN,
    MODEL,
    RESERVED,
    Catalogue,
    Limit,
    LimitRule,
    Provider,
)
from flow_platform.gateway.script import Script

MAX_DOCUMENT_BYTES: Final = 256 << 10  # Of a workspace; scripts are the large part.
MAX_REMEMBERED: Final = 256

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Pattern = Annotated[str, Field(pattern=r"^(\*|[a-z0-9][a-z0-9_-]{0,62}/[\x21-\x7e]{1,200})$")]
PerMinute = Annotated[int, Field(ge=1, le=1_000_000_000)]


class ProviderDocument(BaseModel):
    """One provider. What is left out comes from the built-in one of that name."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    kind: Literal["openai", "anthropic"] | None = None
    base_url: str | None = None
    key: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,127})?$")] | None = None
    models: Annotated[list[Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]], Field(max_length=200)] = []
    stream_usage: bool | None = None
    idle_seconds: Annotated[float, Field(gt=0, le=600)] = 120.0

    @field_validator("base_url")
    @classmethod
    def _is_base_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("expected a URL such as 'https://models.example.org/v1'")
        if parts.username or parts.password:
            raise ValueError("expected a URL without credentials: the key is a secret")
        return value.rstrip("/")


class LimitDocument(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    tokens_per_minute: PerMinute | None = None
    concurrent: Annotated[int, Field(ge=1, le=100_000)] | None = None


class ModelSettings(BaseModel):
    """What a workspace configures."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    providers: Annotated[dict[Name, ProviderDocument], Field(max_length=50)] = {}
    aliases: Annotated[
        dict[Name, Annotated[list[str], Field(min_length=1, max_length=MAX_CHAIN)]], Field(max_length=200)
    ] = {}
    limits: Annotated[dict[Pattern, LimitDocument], Field(max_length=200)] = {}
    scripts: Annotated[dict[Name, Script], Field(max_length=200)] = {}

    @field_validator("providers")
    @classmethod
    def _no_reserved_names(cls, value: dict[str, ProviderDocument]) -> dict[str, ProviderDocument]:
        for name in value:
            if name in RESERVED:
                raise ValueError(f"provider {name!r} is built in: expected another name")
            if name not in BUILT_IN and name not in LOCAL and value[name].base_url is None:
                raise ValueError(f"provider {name!r} has no base_url")
        return value

    @field_validator("aliases")
    @classmethod
    def _models_of_aliases(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, models in value.items():
            for model in models:
                if not MODEL.fullmatch(model) or model.startswith(f"{ALIAS}/"):
                    raise ValueError(f"alias {name!r} names {model!r}: expected 'provider/model'")
        return value


class WorkspaceModelSettings(ModelSettings):
    """The same, within what a tenant may: its providers are reached over TLS, at public addresses."""

    @field_validator("providers")
    @classmethod
    def _public_over_tls(cls, value: dict[str, ProviderDocument]) -> dict[str, ProviderDocument]:
        for name, document in value.items():
            base_url = document.base_url or (BUILT_IN[name].base_url if name in BUILT_IN else "")
            parts = urlsplit(base_url)
            if parts.scheme != "https" or not _may_be_public(parts.hostname or ""):
                raise ValueError(
                    f"provider {name!r} has base_url {base_url!r}: expected https:// and a public address; "
                    "others are the operator's to configure"
                )
        return value


class PriceDocument(BaseModel):
    """Credits per million tokens."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    prompt: Annotated[Decimal, Field(ge=0, le=1_000_000)]
    completion: Annotated[Decimal, Field(ge=0, le=1_000_000)] = Decimal(0)
    cached: Annotated[Decimal, Field(ge=0, le=1_000_000)] | None = None


class PriceTableDocument(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    version: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,64}$")] = "none"
    models: dict[Pattern, PriceDocument] = {}


class PlatformModels(ModelSettings):
    """What the operator configures, for all workspaces."""

    prices: PriceTableDocument = PriceTableDocument()

    def price_table(self) -> PriceTable:
        prices = {
            name: Price(price.prompt, price.completion, price.cached) for name, price in self.prices.models.items()
        }
        return PriceTable(self.prices.version, prices)


def read_platform_models(path: Path | None) -> PlatformModels:
    """The operator's file, TOML or JSON; without one: what is built in.

    Raises:
        SettingsError: All problems together.
    """
    if path is None:
        return PlatformModels()
    try:
        text = path.read_text()
        value = json.loads(text) if path.suffix == ".json" else tomllib.loads(text, parse_float=Decimal)
        for name, script in _scripts(value).items():
            if isinstance(script, str):  # A file beside this one.
                value["scripts"][name] = json.loads((path.parent / script).read_text())
        return PlatformModels.model_validate(value)
    except pydantic.ValidationError as error:
        problems = [f"{path}: {'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_url=False)]
        raise errors.SettingsError("\n".join(problems)) from error
    except (OSError, ValueError) as error:
        raise errors.SettingsError(f"{path}: expected the models' configuration in TOML or JSON: {error}") from error


class Catalogues:
    """The catalogue of each workspace, remembered by the text of its document."""

    def __init__(self, platform: PlatformModels) -> None:
        self._platform = platform
        self._of = functools.lru_cache(MAX_REMEMBERED)(self._make)

    def of(self, document: str | None) -> Catalogue:
        """Args:
        document: As the store has it; None: the workspace configured nothing.
        """
        return self._of(document)

    def _make(self, document: str | None) -> Catalogue:
        platform = self._platform
        own = WorkspaceModelSettings() if document is None else WorkspaceModelSettings.model_validate_json(document)
        providers = dict(BUILT_IN)
        providers |= {name: _provider(name, given, is_platform=True) for name, given in platform.providers.items()}
        providers |= {name: _provider(name, given, is_platform=False) for name, given in own.providers.items()}
        aliases = {name: tuple(models) for name, models in (platform.aliases | own.aliases).items()}
        scoped = (("platform", platform.limits), ("workspace", own.limits))
        limits = tuple(
            LimitRule(cast("Any", scope), pattern, Limit(**limit.model_dump()))
            for scope, limits in scoped
            for pattern, limit in limits.items()
        )
        return Catalogue(providers, aliases, limits, dict(platform.scripts | own.scripts))


def _provider(name: str, given: ProviderDocument, *, is_platform: bool) -> Provider:
    known = BUILT_IN.get(name) or LOCAL.get(name) or Provider(name, "openai", key_name=_key_name(name))
    return Provider(
        name,
        given.kind or known.kind,
        given.base_url or known.base_url,
        known.key_name if given.key is None else given.key,
        tuple(given.models),
        known.stream_usage if given.stream_usage is None else given.stream_usage,
        given.idle_seconds,
        is_platform,
    )


def _key_name(provider: str) -> str:
    return provider.upper().replace("-", "_") + "_API_KEY"


def _scripts(value: dict[str, Any]) -> dict[str, Any]:
    scripts = value.get("scripts")
    return cast("dict[str, Any]", scripts) if isinstance(scripts, dict) else {}


def _may_be_public(host: str) -> bool:
    """False for what surely is not; a name is looked at again when it is resolved."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal"))
