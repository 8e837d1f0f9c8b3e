"""/openapi.json and /docs: the description of the API, and a page of it that needs no script and no network."""

from html import escape
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, Response

from eyeline import __version__
from eyeline.core.types import Result
from eyeline.gateway.cameras import CameraReport
from eyeline.gateway.export import EXPORTS
from eyeline.gateway.params import MAX_DEADLINE, MAX_WAIT
from eyeline.gateway.replies import reply
from eyeline.gateway.upload import PATH

_QUERY = {
    "camera": ("string", "a configured camera; its site and pipeline are taken"),
    "site": ("string", "a configured site"),
    "pipeline": ("string", "a configured pipeline; none: the default one"),
    "captured_at": ("string", "RFC 3339; none: the time of reception"),
    "ref": ("string", "your own word for it: order, serial, pallet"),
    "lane": ("string", "live or bulk"),
    "wait": ("number", f"seconds to wait for the result, up to {MAX_WAIT:g}"),
    "deadline": ("number", f"seconds after which it need not be looked at, up to {MAX_DEADLINE:g}"),
}
#: What is answered as something else than JSON.
_FILES = tuple(dict.fromkeys(made.media_type.partition(";")[0] for made in EXPORTS.values()))
_NOT_JSON = {
    "/metrics": ("text/plain",),
    "/v1/events": ("text/event-stream",),
    "/v1/results/export": _FILES,
    "/v1/exports/{id}/file": _FILES,
    "/v1/results/{id}/image": ("image/jpeg",),
    "/v1/results/{id}/evidence": ("application/zip",),
    "/v1/items/{key}/evidence": ("application/zip",),
}
_PROBLEM = {
    "description": "Problem JSON (RFC 9457)",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "code"],
                "properties": {
                    **{name: {"type": "string"} for name in ("type", "title", "detail", "code")},
                    "status": {"type": "integer"},
                },
            }
        }
    },
}
_STYLE = (
    "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}code{background:#eee;padding:0 .3em}"
)


def routes() -> APIRouter:
    """The routes of the description."""
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json")
    async def openapi(request: Request) -> Response:
        return reply(request.app.openapi())

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
        return HTMLResponse(page(request.app.openapi()), headers=headers)

    return router


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, the bare upload route and our structs included."""
    described: dict[str, Any] = get_openapi(title="Eyeline", version=__version__, routes=app.routes)
    (_, report), components = msgspec.json.schema_components(
        [Result, CameraReport], ref_template="#/components/schemas/{name}"
    )
    components |= described.setdefault("components", {}).get("schemas", {})
    described["components"]["schemas"] = components
    described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    described["security"] = [{"key": []}]
    described["paths"][PATH] = {"post": _upload()}
    status = described["paths"]["/v1/cameras/{name}/status"]["put"]
    status["requestBody"] = {"required": True, "content": {"application/json": {"schema": report}}}
    result = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Result"}}}}
    described["paths"]["/v1/results/{id}"]["get"]["responses"]["200"].update(result)
    for path, kinds in _NOT_JSON.items():
        described["paths"][path]["get"]["responses"]["200"]["content"] = {kind: {} for kind in kinds}
    for path in described["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # the framework's own; ours are all of one kind
            operation["responses"].setdefault("default", _PROBLEM)
    components.pop("HTTPValidationError", None)
    components.pop("ValidationError", None)
    return described


def _upload() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    link = {"type": "object", "properties": {"url": {"type": "string"}, "image": {"type": "string"}}}
    parts = {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
    query = [
        {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": kind}}
        for name, (kind, text) in _QUERY.items()
    ]
    key = {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string"}}
    return {
        "tags": ["images"],
        "summary": "Send images: bytes, multipart, or JSON with a url or base64; meta.* in the query is kept",
        "parameters": [*query, key],
        "requestBody": {
            "required": True,
            "content": {
                "image/*": binary,
                "multipart/form-data": {"schema": parts},
                "application/json": {"schema": link},
            },
        },
        "responses": {
            "200": {"description": "The result, known already or within `wait`"},
            "202": {"description": "Kept; the job's id and links"},
            "429": {"description": "Full; come back after Retry-After"},
        },
    }


def page(described: dict[str, Any]) -> str:
    """The document as a page."""
    sections = [
        _operation(method, path, operation)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>Eyeline API</title><style>{_STYLE}</style>"
    note = '<p>Send <code>Authorization: Bearer eyl_live_…</code>. Machine-readable: <a href="/openapi.json">openapi.json</a>'
    return f"{head}<h1>Eyeline {escape(__version__)}</h1>{note}{''.join(sections)}</html>"


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<li><code>{escape(each['name'])}</code> {escape(each.get('description', ''))}"
        for each in operation.get("parameters", ())
    )
    title = f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
    return f"{title}<p>{escape(operation.get('summary', ''))}<ul>{rows}</ul>"
