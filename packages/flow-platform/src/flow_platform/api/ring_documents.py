"""Rings and deployments as clients see them."""

from __future__ import annotations

from flow_platform.domain.release import Deployment, DeploymentState, Ring, RollbackRule
from flow_platform.engine.rollouts import APPROVAL_WITHIN, SHARE_WITHIN
from flow_sdk.wire.execution import WaitingOn
from flow_sdk.wire.management import DeploymentDocument, RingDocument, RollbackDocument


def ring_document(ring: Ring, *, with_env: bool) -> RingDocument:
    return RingDocument(
        id=ring.id,
        name=ring.name,
        order=ring.order,
        auto_deploy=ring.auto_deploy,
        env=ring.env if with_env else {},
        created_at=ring.created_at,
        requires_approval=ring.requires_approval,
        rollback=_rollback_document(ring.rollback) if ring.rollback else None,
        minimum_isolation=ring.minimum_isolation,
    )


def deployment_document(deployment: Deployment) -> DeploymentDocument:
    return DeploymentDocument(
        deployment_id=deployment.id,
        component_id=deployment.component_id,
        version=deployment.version,
        ring_id=deployment.ring_id,
        state=deployment.state.value,
        created_at=deployment.created_at,
        activated_at=deployment.activated_at,
        digest=deployment.digest,
        share=deployment.share,
        previous_id=deployment.previous_id,
        promoted_from_id=deployment.promoted_from_id,
        set_id=deployment.set_id,
        requested_by=deployment.requested_by,
        approved_by=deployment.approved_by,
        is_restored=deployment.is_restored,
        smoke_execution_id=deployment.smoke_execution_id,
        reason=deployment.reason,
        waiting_on=_waiting_on(deployment),
    )


def _rollback_document(rule: RollbackRule) -> RollbackDocument:
    return RollbackDocument(
        failure_rate=rule.failure_rate,
        minimum_count=rule.minimum_count,
        window_seconds=rule.window.total_seconds(),
        watch_seconds=rule.watch.total_seconds(),
    )


def _waiting_on(deployment: Deployment) -> WaitingOn | None:
    match deployment.state:
        case DeploymentState.QUEUED:
            until = deployment.created_at + APPROVAL_WITHIN
            return WaitingOn(reason="approval", until=until, message="Waits for an approval")
        case DeploymentState.VALIDATING if deployment.share:
            until = deployment.created_at + SHARE_WITHIN
            message = f"Takes {deployment.share} % of new executions until its share is raised to 100"
            return WaitingOn(reason="share", until=until, message=message)
        case DeploymentState.BUILDING | DeploymentState.DEPLOYING | DeploymentState.VALIDATING:
            message = f"Waits for its smoke run {deployment.smoke_execution_id}"
            if deployment.set_id:
                message += " and those of its set"
            return WaitingOn(reason="smoke_run", message=message)
        case DeploymentState.ROLLING_BACK:
            return WaitingOn(reason="executions", message="Waits for the executions that still run on it")
        case _:
            return None
