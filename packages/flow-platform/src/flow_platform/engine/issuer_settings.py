"""Which outside issuers of tokens are trusted, and what their claims mean here. A file of the operator's, in TOML."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Self, cast
from urllib.parse import urlsplit

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from flow_platform.domain import errors
from flow_platform.domain.principal import Role
from flow_platform.domain.roles import is_role_name

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones only: with the others, whoever can verify can also sign."""

DEFAULT_ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
MAX_ISSUERS: Final = 20
MAX_RULES: Final = 200
_USERS: Final = tuple(role.value for role in Role if role not in (Role.EXECUTION, Role.CUSTOM))


def is_safe_url(url: str) -> bool:
    """Whether keys may be fetched from there: over TLS, or from this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not host or parts.username or parts.password or parts.fragment:
            return False
        return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(value: str) -> str:
    if not is_safe_url(value):
        raise ValueError("expected a URL with https://; http:// only to this machine")
    return value


def _algorithm(value: str) -> str:
    if value not in ALGORITHMS:
        raise ValueError("expected one of " + ", ".join(ALGORITHMS))
    return value


Url = Annotated[str, AfterValidator(_url)]
Id = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")]


class Rule(BaseModel):
    """Who has this value in this claim (in a list of values, too) has that role. The first that fits decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: Annotated[str, Field(min_length=1, max_length=200)]
    value: str | bool
    role: str
    org_id: Id
    workspace_id: Id | None = None

    @model_validator(mode="after")
    def _is_a_role(self) -> Self:
        if self.role in _USERS:
            return self
        if not is_role_name(self.role) or self.workspace_id is None:
            raise ValueError("expected one of " + ", ".join(_USERS) + ", or a custom role and its workspace_id")
        return self

    def fits(self, claims: dict[str, Any]) -> bool:
        found: Any = claims.get(self.claim)
        values = cast("list[Any]", found) if isinstance(found, list) else [found]
        return any(type(each) is type(self.value) and each == self.value for each in values)


class LoginSettings(BaseModel):
    """How people sign in at an issuer with a browser.

    Attributes:
        redirect_url: `https://HOST/login/NAME/callback`, as it is registered at the issuer.
        client_secret_file: Without one the client is a public one: PKCE alone proves who asks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: Annotated[str, Field(min_length=1, max_length=500)]
    client_secret_file: Path | None = None
    redirect_url: Url
    scopes: tuple[Annotated[str, Field(pattern=r"^[!-~]{1,200}$")], ...] = ("openid", "profile", "email")
    session_hours: Annotated[float, Field(ge=0.1, le=24)] = 8.0

    def secret(self) -> str:
        """Raises SettingsError when its file cannot be read, or is empty."""
        if self.client_secret_file is None:
            return ""
        try:
            text = self.client_secret_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise errors.SettingsError(f"{self.client_secret_file}: expected the client's secret: {error}") from error
        if not text:
            raise errors.SettingsError(f"{self.client_secret_file}: expected the client's secret, not an empty file")
        return text


class IssuerSettings(BaseModel):
    """One issuer. Its keys are found by discovery, unless it is said where they are.

    Attributes:
        name: Before the subject in all records, so that nobody there is taken for somebody here.
        subject_claim: What people are called by; `sub` never changes, `email` is easier to read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,30}$")]
    issuer: Url
    audience: Annotated[str, Field(min_length=1, max_length=500)]
    jwks_url: Url | None = None
    jwks_file: Path | None = None
    algorithms: Annotated[tuple[Annotated[str, AfterValidator(_algorithm)], ...], Field(min_length=1)] = (
        DEFAULT_ALGORITHMS
    )
    subject_claim: Annotated[str, Field(min_length=1, max_length=200)] = "sub"
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=MAX_RULES)]
    login: LoginSettings | None = None

    @model_validator(mode="after")
    def _keys_from_one_place(self) -> Self:
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("expected jwks_url or jwks_file, not both")
        return self

    @model_validator(mode="after")
    def _comes_back_here(self) -> Self:
        if self.login is not None and urlsplit(self.login.redirect_url).path != f"/login/{self.name}/callback":
            raise ValueError(f"login.redirect_url: expected a URL with the path /login/{self.name}/callback")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    issuers: Annotated[tuple[IssuerSettings, ...], Field(max_length=MAX_ISSUERS)]


def read_issuers(path: Path | None) -> tuple[IssuerSettings, ...]:
    """The issuers of the file; none without one.

    Raises:
        SettingsError: It cannot be read, or says something that has no meaning. With all problems.
    """
    if path is None:
        return ()
    try:
        found = _File.model_validate(tomllib.loads(path.read_text())).issuers
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise errors.SettingsError(f"{path}: expected a TOML file: {error}") from error
    except pydantic.ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise errors.SettingsError("\n".join(lines)) from error
    for what in ("name", "issuer"):
        values = [getattr(each, what) for each in found]
        if len(set(values)) < len(values):
            raise errors.SettingsError(f"{path}: two issuers have the same {what}")
    origins = {urlsplit(each.login.redirect_url)[:2] for each in found if each.login is not None}
    if len(origins) > 1:
        raise errors.SettingsError(f"{path}: login.redirect_url: expected the same scheme and host for all issuers")
    return found
