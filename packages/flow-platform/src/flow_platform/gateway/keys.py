"""Where keys of providers come from: secrets of the workspace, then the platform's environment."""

from __future__ import annotations

from collections.abc import Mapping

from flow_platform.gateway.ports import Secrets
from flow_platform.gateway.providers import Provider


class SecretKeys:
    """Implements `Keys`: the workspace's secret of that name, else the variable of that name of the operator.

    The latter is only for providers that the operator configured: see `Keys.key`.

    Args:
        secrets: None: there are none on this platform.
        environment: Of the server process.
    """

    def __init__(self, secrets: Secrets | None, environment: Mapping[str, str]) -> None:
        self._secrets = secrets
        self._environment = environment

    async def key(self, org_id: str, workspace_id: str, ring_id: str | None, provider: Provider) -> str | None:
        if not provider.key_name:
            return None
        if self._secrets is not None:
            found = await self._secrets.reveal(org_id, workspace_id, ring_id, provider.key_name)
            if found:
                return found
        return self._environment.get(provider.key_name) or None if provider.is_platform else None
