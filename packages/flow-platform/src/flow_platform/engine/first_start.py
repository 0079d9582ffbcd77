"""What the first start of a platform makes: an organization, a workspace, its rings, and a signing key."""

from __future__ import annotations

import dataclasses
import logging
from datetime import datetime
from typing import Final

from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.isolation import lowest
from flow_platform.domain.release import BUILT_IN_RINGS, Ring
from flow_platform.engine.tokens import new_signing_key
from flow_platform.store.base import SigningKey, Store, Transaction, Workspace

logger = logging.getLogger(__name__)

DEFAULT_NAME: Final = "default"
FIRST_KEY: Final = "first"  # A key id is only a label; that it is the same everywhere makes it unique in a database.


async def ensure_first_tenant(store: Store, clock: Clock, entropy: Entropy = system_entropy) -> Workspace:
    """Makes what is missing of the first tenant and returns its workspace; changes nothing when all is there.

    All in one transaction, which looks before it makes. Of two processes that start together over a database that runs
    transactions side by side, the second one collides with the first one's key: it runs again, and finds all there.
    """
    now = clock.now()
    key = new_signing_key(now)

    def operation(tx: Transaction) -> tuple[Workspace, bool]:
        _ensure_key(tx, key)  # Before all else: this is where two processes collide.
        workspace = tx.tenancy.first_workspace()
        is_new = workspace is None
        if workspace is None:
            workspace = Workspace(new_id(now, entropy), new_id(now, entropy), DEFAULT_NAME)
            tx.tenancy.insert_organization(workspace.org_id, DEFAULT_NAME, now)
            tx.tenancy.insert_workspace(workspace, now)
        ensure_rings(tx, workspace, now, entropy)
        return workspace, is_new

    workspace, is_new = await store.write(operation)
    if is_new:
        logger.info(
            "made the first organization and workspace",
            extra={"org_id": workspace.org_id, "workspace_id": workspace.workspace_id},
        )
    return workspace


def ensure_rings(tx: Transaction, workspace: Workspace, now: datetime, entropy: Entropy) -> None:
    """Makes the built-in rings that a workspace does not have."""
    existing = {ring.name for ring in tx.catalog.list_rings(workspace.org_id, workspace.workspace_id)}
    for name, order, auto_deploy in BUILT_IN_RINGS:
        if name not in existing:
            ring = Ring(new_id(now, entropy), workspace.org_id, workspace.workspace_id, name, order, auto_deploy, now)
            tx.catalog.insert_ring(dataclasses.replace(ring, minimum_isolation=lowest(name)))


def _ensure_key(tx: Transaction, key: SigningKey) -> None:
    existing = tx.tenancy.signing_keys()
    if not existing:
        tx.tenancy.insert_signing_key(dataclasses.replace(key, kid=FIRST_KEY))
    elif all(other.retired_at is not None for other in existing):
        tx.tenancy.insert_signing_key(key)
