"""Where traces go, and of which requests."""

from __future__ import annotations

from pydantic import Field, HttpUrl, TypeAdapter, field_validator

from serve.settings.record import Setting

_URL = TypeAdapter(HttpUrl)


class TraceSettings(Setting):
    """OpenTelemetry traces; off without an endpoint."""

    endpoint: str | None = Field(
        default=None, description="OTLP over HTTP, such as http://collector:4318/v1/traces; null: no traces"
    )
    ratio: float = Field(
        default=0.01, ge=0, le=1, description="Share of requests whose client has not decided by traceparent"
    )
    service: str = Field(default="sluicegate", min_length=1, description="service.name of all processes")
    every_s: float = Field(default=1.0, gt=0, description="Spans are sent at least this often")

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None:
            _URL.validate_python(value)
        return value
