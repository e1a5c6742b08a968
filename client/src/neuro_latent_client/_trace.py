"""The trace that a call belongs to."""

import sys


def current_traceparent() -> str | None:
    """The W3C ``traceparent`` of OpenTelemetry's current context; None where nobody uses OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:  # then no span can have been started
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")
