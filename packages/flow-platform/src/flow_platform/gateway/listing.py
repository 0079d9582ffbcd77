"""The models that a workspace can call, by asking providers for theirs and remembering it for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from flow_platform.domain import errors
from flow_platform.gateway.adapter import Adapter, UpstreamCall
from flow_platform.gateway.ports import Caller, Keys
from flow_platform.gateway.providers import ALIAS, Catalogue, Provider, Target

ASK_SECONDS: Final = 5.0
REMEMBER_SECONDS: Final = 300.0
MAX_REMEMBERED: Final = 2_000
MAX_LISTED: Final = 1_000  # Of one provider.


class Listing:
    def __init__(self, keys: Keys, adapters: Callable[[str], Adapter]) -> None:
        self._keys = keys
        self._adapters = adapters
        self._known: OrderedDict[tuple[str, str, Provider, str], tuple[float, list[str]]] = OrderedDict()

    async def names(self, caller: Caller, ring_id: str | None, catalogue: Catalogue) -> list[str]:
        """Sorted. A provider that does not answer in time is left out: it may still be called by name."""
        lists = await asyncio.gather(*(self._of(caller, ring_id, p, catalogue) for p in catalogue.providers.values()))
        return sorted({f"{ALIAS}/{name}" for name in catalogue.aliases}.union(*lists))

    async def _of(self, caller: Caller, ring_id: str | None, provider: Provider, catalogue: Catalogue) -> list[str]:
        key = await self._keys.key(caller.org_id, caller.workspace_id, ring_id, provider)
        if key is None and provider.key_name:
            return []
        if provider.models and provider.kind != "test":
            return [f"{provider.name}/{model}" for model in provider.models]
        call = UpstreamCall(Target(provider, ""), {}, key, scripts=catalogue.scripts)
        if provider.kind == "test":
            names = await self._adapters(provider.kind).list_models(call)
        else:
            names = await self._asked((caller.org_id, caller.workspace_id, provider, key or ""), call)
        return [f"{provider.name}/{model}" for model in names[:MAX_LISTED]]

    async def _asked(self, identity: tuple[str, str, Provider, str], call: UpstreamCall) -> list[str]:
        now = asyncio.get_running_loop().time()
        at, names = self._known.get(identity, (now - REMEMBER_SECONDS, []))
        if now - at < REMEMBER_SECONDS:
            return names
        try:
            async with asyncio.timeout(ASK_SECONDS):
                names = await self._adapters(call.target.provider.kind).list_models(call)
        except (errors.FlowError, TimeoutError):
            return []
        self._known[identity] = (now, names)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return names
