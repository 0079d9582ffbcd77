"""Providers of models, and how `provider/model` and aliases find them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from flow_platform.domain import errors

ProviderKind = Literal["openai", "anthropic", "test"]

MAX_CHAIN: Final = 8  # Models that one call may try.
ALIAS: Final = "alias"
TEST: Final = "test"
RESERVED: Final = frozenset({ALIAS, TEST})
MODEL: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}/[\x21-\x7e]{1,200}")


@dataclass(frozen=True)
class Provider:
    """Where models are called.

    Attributes:
        kind: Which protocol it speaks.
        base_url: Without a slash at the end.
        key_name: Of the secret with its API key; empty: it takes none.
        models: To list; empty: the provider is asked.
        stream_usage: Whether `stream_options.include_usage` may be asked of it. Some refuse what they don't know.
        idle_seconds: The longest silence, before the first byte and between two.
        is_platform: Configured by the operator. One that a workspace configured reaches public addresses only, and
            never gets a key of the platform's environment.
    """

    name: str
    kind: ProviderKind
    base_url: str = ""
    key_name: str = ""
    models: tuple[str, ...] = ()
    stream_usage: bool = True
    idle_seconds: float = 120.0
    is_platform: bool = True


BUILT_IN: Final[Mapping[str, Provider]] = {
    provider.name: provider
    for provider in (
        Provider(TEST, "test", models=("echo", "script", "embedding")),
        Provider("openai", "openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        Provider("anthropic", "anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
        Provider("google", "openai", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
        # Mistral tells usage unasked, and refuses the option with 422.
        Provider("mistral", "openai", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", stream_usage=False),
        Provider("openrouter", "openai", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    )
}
"""There without configuration, and usable as soon as there is a key."""

LOCAL: Final[Mapping[str, Provider]] = {
    provider.name: provider
    for provider in (
        Provider("ollama", "openai", "http://127.0.0.1:11434/v1"),
        Provider("vllm", "openai", "http://127.0.0.1:8000/v1"),
    )
}
"""Defaults for those of the operator's own machine: they take no key, so only naming them switches them on."""


@dataclass(frozen=True)
class Target:
    """One model to call."""

    provider: Provider
    model: str

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"


@dataclass(frozen=True)
class Limit:
    """Per minute, and at once; None: as many as one likes."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True)
class LimitRule:
    """A limit of one workspace for the models that a pattern fits: `*`, `provider/*` or `provider/model`."""

    scope: Literal["platform", "workspace"]
    pattern: str
    limit: Limit

    def fits(self, model: str) -> bool:
        return model == self.pattern or (self.pattern.endswith("*") and model.startswith(self.pattern[:-1]))


@dataclass(frozen=True)
class Catalogue:
    """What one workspace may call: the platform's configuration with the workspace's own over it."""

    providers: Mapping[str, Provider]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    limits: tuple[LimitRule, ...] = ()
    scripts: Mapping[str, object] = field(default_factory=dict[str, object])

    def chain(self, models: list[str]) -> list[Target]:
        """The models to try, in order, each once.

        Raises:
            NotFound: `model_not_found`, with what is configured.
            InvalidInput: Too many.
        """
        names = list(dict.fromkeys(name for model in models for name in self._expanded(model)))
        if len(names) > MAX_CHAIN:
            raise errors.InvalidInput(f"models {names!r} are {len(names)} to try: expected at most {MAX_CHAIN}")
        return [self._target(name) for name in names]

    def _expanded(self, model: str) -> tuple[str, ...]:
        prefix, _, name = model.partition("/")
        if prefix != ALIAS:
            return (model,)
        if name not in self.aliases:
            raise self._unknown(model)
        return self.aliases[name]

    def _target(self, model: str) -> Target:
        prefix, _, name = model.partition("/")
        provider = self.providers.get(prefix)
        if provider is None or not MODEL.fullmatch(model):
            raise self._unknown(model)
        if provider.kind == "test" and name not in provider.models and name not in self.scripts:
            raise self._unknown(model)
        return Target(provider, name)

    def _unknown(self, model: str) -> errors.NotFound:
        known = ", ".join(sorted(self.providers))
        aliases = ", ".join(f"{ALIAS}/{name}" for name in sorted(self.aliases)) or "none"
        scripts = sorted({*self.providers[TEST].models, *self.scripts})
        return errors.NotFound(
            f"model {model[:100]!r} is not known: expected 'provider/model'; providers: {known}; aliases: {aliases}; "
            f"models of 'test': {', '.join(scripts)}",
            code="model_not_found",
        )
