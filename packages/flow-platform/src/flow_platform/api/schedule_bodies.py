"""The bodies of the routes of schedules."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from flow_platform.api.instants import instant
from flow_platform.domain.cron import MAX_LENGTH
from flow_platform.domain.schedule import Overlap
from flow_platform.engine.schedules import NewSchedule
from flow_sdk.wire.status import Kind

MAX_NAME: Final = 200
_MOST_SECONDS: Final = 1e9  # What a timedelta takes, by far; the schedule's own bounds are checked with it.


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("expected printable characters")
    return value


Text = Annotated[str, AfterValidator(_printable)]
Reference = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")]
Expression = Annotated[Text, Field(max_length=MAX_LENGTH)]
Seconds = Annotated[float, Field(ge=0, le=_MOST_SECONDS)]
Instant = Annotated[datetime, BeforeValidator(instant)]
_OverlapWord = Annotated[Overlap, Field(strict=False)]


class ScheduleBody(BaseModel):
    """Starts a component again and again: at the times of `cron` in `time_zone`, or every `interval_seconds`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    component_id: Reference = Field(description="Id or slug of the component.")
    kind: Annotated[Kind, Field(strict=False)] | None = Field(None, description="When several kinds have the slug.")
    ring_id: Reference | None = Field(None, description="Id or name; the ring of lowest order when absent.")
    name: Annotated[Text, Field(max_length=MAX_NAME)] = ""
    cron: Expression | None = Field(None, description="Five fields, or a name such as `@daily`.")
    interval_seconds: Seconds | None = None
    time_zone: Annotated[Text, Field(max_length=64)] = Field("UTC", description="An IANA name, for `cron`.")
    input_data: Any = Field(None, description="The input; of a code block an object of keyword arguments.")
    config: dict[str, Any] = Field(default_factory=dict[str, Any])
    timeout_seconds: Seconds | None = None
    overlap: _OverlapWord = Overlap.SKIP
    catch_up_seconds: Seconds = 600
    paused: bool = False
    starts_at: Instant | None = None
    ends_at: Instant | None = None

    def new(self) -> NewSchedule:
        return NewSchedule(
            component=self.component_id,
            kind=self.kind,
            ring=self.ring_id,
            name=self.name,
            cron=self.cron,
            interval=_duration(self.interval_seconds),
            time_zone=self.time_zone,
            input_data=self.input_data,
            config=self.config,
            timeout_seconds=self.timeout_seconds,
            overlap=self.overlap,
            catch_up=timedelta(seconds=self.catch_up_seconds),
            is_paused=self.paused,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
        )


class ScheduleChange(BaseModel):
    """What is to be changed; absent fields stay as they are."""

    model_config = ConfigDict(extra="forbid", strict=True)

    # The defaults are never used: only what was sent is looked at.
    ring_id: Reference = ""
    name: Annotated[Text, Field(max_length=MAX_NAME)] = ""
    cron: Expression | None = None
    interval_seconds: Seconds | None = None
    time_zone: Annotated[Text, Field(max_length=64)] = "UTC"
    input_data: Any = None
    config: dict[str, Any] = Field(default_factory=dict[str, Any])
    timeout_seconds: Seconds | None = None
    overlap: _OverlapWord = Overlap.SKIP
    catch_up_seconds: Seconds = 600
    paused: bool = False
    starts_at: Instant | None = None
    ends_at: Instant | None = None

    def changes(self) -> dict[str, Any]:
        """By the names of `NewSchedule`."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        for name, its_name in (("ring_id", "ring"), ("paused", "is_paused")):
            if name in given:
                given[its_name] = given.pop(name)
        for name, its_name in (("interval_seconds", "interval"), ("catch_up_seconds", "catch_up")):
            if name in given:
                given[its_name] = _duration(given.pop(name))
        return given


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
