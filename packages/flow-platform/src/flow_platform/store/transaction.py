"""A transaction as operations see it: the tables over one connection."""

from __future__ import annotations

from flow_platform.store import base
from flow_platform.store.api_key_table import ApiKeyTable
from flow_platform.store.api_keys import ApiKeyRows
from flow_platform.store.audit import AuditRows
from flow_platform.store.audit_table import AuditTable
from flow_platform.store.budgets import BudgetRows
from flow_platform.store.catalog import CatalogRows
from flow_platform.store.checkpoint_table import CheckpointTable
from flow_platform.store.checkpoints import CheckpointRows
from flow_platform.store.connection import Connection
from flow_platform.store.credential_table import CredentialTable
from flow_platform.store.credentials import CredentialRows
from flow_platform.store.executions import ExecutionRows
from flow_platform.store.ledger import LedgerRows
from flow_platform.store.ledger_table import BudgetTable, LedgerTable
from flow_platform.store.mcp_server_table import McpServerTable
from flow_platform.store.mcp_servers import McpServerRows
from flow_platform.store.model_table import ModelTable
from flow_platform.store.models import ModelRows
from flow_platform.store.part_table import PartTable
from flow_platform.store.parts import PartRows
from flow_platform.store.policies import PolicyRows
from flow_platform.store.policy_cache import PolicyCache
from flow_platform.store.policy_table import PolicyTable
from flow_platform.store.rollout_port import RolloutTable
from flow_platform.store.rollouts import RolloutRows
from flow_platform.store.runner_table import RunnerTable
from flow_platform.store.runners import RunnerRows
from flow_platform.store.schedule_table import ScheduleTable
from flow_platform.store.schedules import ScheduleRows
from flow_platform.store.secret_table import SecretTable
from flow_platform.store.secrets import SecretRows
from flow_platform.store.service_table import ServiceTable
from flow_platform.store.services import ServiceRows
from flow_platform.store.session_table import SessionTable
from flow_platform.store.sessions import SessionRows
from flow_platform.store.tenancy import TenancyRows
from flow_platform.store.version_cache import VersionCache


class SqlTransaction:
    def __init__(self, connection: Connection, policies: PolicyCache, versions: VersionCache) -> None:
        self.executions: base.ExecutionTable = ExecutionRows(connection)
        self.checkpoints: CheckpointTable = CheckpointRows(connection)
        self.catalog: base.CatalogTable = CatalogRows(connection, versions)
        self.rollouts: RolloutTable = RolloutRows(connection)
        self.tenancy: base.TenancyTable = TenancyRows(connection)
        self.runners: RunnerTable = RunnerRows(connection)
        self.schedules: ScheduleTable = ScheduleRows(connection)
        self.secrets: SecretTable = SecretRows(connection)
        self.api_keys: ApiKeyTable = ApiKeyRows(connection)
        self.credentials: CredentialTable = CredentialRows(connection)
        self.audit: AuditTable = AuditRows(connection)
        self.policies: PolicyTable = PolicyRows(connection, policies)
        self.models: ModelTable = ModelRows(connection)
        self.parts: PartTable = PartRows(connection)
        self.sessions: SessionTable = SessionRows(connection)
        self.services: ServiceTable = ServiceRows(connection)
        self.mcp_servers: McpServerTable = McpServerRows(connection)
        self.ledger: LedgerTable = LedgerRows(connection)
        self.budgets: BudgetTable = BudgetRows(connection)
