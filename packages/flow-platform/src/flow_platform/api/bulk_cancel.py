"""What a request to cancel many executions says, and what it is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator

from flow_platform.store.base import ExecutionFilter
from flow_sdk.wire.status import Status

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,255}$")]
ComponentName = Annotated[
    str,
    Field(pattern=r"^([a-z_-]{1,32}/)?[A-Za-z0-9._:-]{1,255}$", description="An id, a slug, or `kind/slug`."),
]
RingName = Annotated[Id, Field(description="An id or a name.")]


class CancelFilter(BaseModel):
    """All that is named must fit. Strict, because what is not understood here would cancel too much."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["queued", "running", "waiting"] | None = None
    component_id: ComponentName | None = None
    ring_id: RingName | None = None
    parent_id: Id | None = Field(None, description="Only those that this execution started itself.")

    @field_validator("*", mode="before")
    @classmethod
    def _says_something(cls, value: Any) -> Any:
        if value is None:  # A variable that a script left empty must not widen the filter.
            raise ValueError("must not be null: leave the field out to cancel whatever its value is")
        return value

    def where(self) -> ExecutionFilter:
        status = Status(self.status) if self.status else None
        return ExecutionFilter(status, self.component_id, self.ring_id, self.parent_id)


class BulkCancelBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    filter: CancelFilter = Field(description="An empty one means every unfinished execution of the workspace.")
    dry_run: StrictBool = Field(False, description="Only say which they are.")


class BulkCancelDocument(BaseModel):
    matched: int
    execution_ids: list[str]
    dry_run: bool
    truncated: bool = Field(description="There are more than one call cancels: ask again.")
