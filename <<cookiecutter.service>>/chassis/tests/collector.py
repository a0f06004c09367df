"""A collector of traces that the tests of traces share."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from chassis.testing.process import wait_until

SOON: dict[str, Any] = {"OTEL_BSP_SCHEDULE_DELAY": 100}
"""Milliseconds between deliveries, so that a test need not wait for them."""


class Collector:
    """A receiver of OTLP over HTTP. `bodies` is what it got, `headers` what came with the last one."""

    def __init__(self, port: int = 0) -> None:
        collector = self
        self.bodies: list[bytes] = []
        self.headers: dict[str, str] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                collector.headers = dict(self.headers)
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> list[dict[str, Any]]:
        """Return the spans so far, with ids as the log writes them."""
        return [
            {
                "name": span.name,
                "kind": span.kind,
                "status": span.status.code,
                "trace_id": span.trace_id.hex(),
                "span_id": span.span_id.hex(),
                "parent": span.parent_span_id.hex(),
                "resource": {each.key: each.value.string_value for each in of_resource.resource.attributes},
                **{each.key: each.value.string_value or each.value.int_value for each in span.attributes},
            }
            for body in list(self.bodies)
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def wait_for(self, trace_id: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the spans of a trace, the server's first, once so many have come."""
        wait_until(lambda: len([span for span in self.spans() if span["trace_id"] == trace_id]) >= count)
        return sorted(
            (span for span in self.spans() if span["trace_id"] == trace_id), key=lambda span: int(span["kind"])
        )
