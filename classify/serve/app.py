"""The web application: one model, its endpoints, and the page to drop an image on."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from classify.bundle import PACKAGES
from classify.serve.metrics import Metrics
from classify.serve.model import Model
from classify.serve.page import POLICY, page
from classify.serve.requests import Limits, Refused, Room, Take, listed, uploads
from extract.errors import OffshelfError
from extract.images import MAX_BYTES, MAX_PIXELS
from extract.sources import Held
from extract.store.index import versions

OTHER = "other"
"""Stands in the counts for all paths that there are not: anybody can make up more of them."""

Read = Callable[[Request, Limits, Take], Awaitable[list[Held]]]


def make_app(model: Model, name: str, limits: Limits, hosts: Sequence[str]) -> FastAPI:
    """Make the application of a model that is open; `name` is what the run is called.

    Requests that name another host than `hosts` are refused; "*" lets all in.
    """
    # No pages of FastAPI's own: they load scripts from elsewhere.
    app, metrics = FastAPI(title="offshelf", docs_url=None, redoc_url=None, openapi_url=None), Metrics()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    _add_answers(app, model, limits, metrics)
    _add_state(app, model, name, limits, metrics)

    @app.middleware("http")
    async def count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        known = request.scope.get("route")
        metrics.request(known.path if known else OTHER, response.status_code)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    _add_errors(app)
    return app


def _add_errors(app: FastAPI) -> None:
    """Have every error look alike: {"error": {"type", "what", "where", "remedy"}}, as the commands have it."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return _error(error.code, _refusal(error.what))

    @app.exception_handler(HTTPException)
    async def not_there(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, _refusal(str(error.detail)))

    @app.exception_handler(RequestValidationError)
    async def odd(_: Request, error: RequestValidationError) -> Response:
        first: Any = error.errors()[0]
        return _error(400, _refusal(f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))

    @app.exception_handler(OffshelfError)
    async def failed(_: Request, error: OffshelfError) -> Response:
        return _error(503, error.as_dict())


def _add_answers(app: FastAPI, model: Model, limits: Limits, metrics: Metrics) -> None:
    room = Room(limits.held_bytes)

    async def answer(request: Request, read: Read, top: int) -> Response:
        with room.share() as take:
            images = await read(request, limits, take)
            if model.waiting + len(images) > limits.waiting:
                raise Refused(503, f"busy: {model.waiting} images wait already; try again")
            began = time.perf_counter()
            answers = await asyncio.wrap_future(model.ask(images, top))
        statuses = [each["status"] for each in answers]
        metrics.answered(statuses, time.perf_counter() - began)
        return JSONResponse({"answers": answers}, 200 if "ok" in statuses else 422)

    @app.post("/predict")
    async def predict(request: Request, top: int = Query(5, ge=1)) -> Response:
        return await answer(request, uploads, top)

    @app.post("/predict/batch")
    async def predict_batch(request: Request, top: int = Query(5, ge=1)) -> Response:
        return await answer(request, listed, top)


def _add_state(app: FastAPI, model: Model, name: str, limits: Limits, metrics: Metrics) -> None:
    shown, told = page(name, model.bundle.classes, limits), about(model, name, limits)

    @app.get("/", response_class=HTMLResponse)
    async def root() -> Response:
        return HTMLResponse(shown, headers={"Content-Security-Policy": POLICY})

    @app.get("/info")
    async def info() -> Response:
        return JSONResponse(told)

    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok" if model.alive else "ended"}, 200 if model.alive else 503)

    @app.get("/metrics")
    async def counts() -> Response:
        return PlainTextResponse(metrics.text(model.waiting), media_type="text/plain; version=0.0.4")


def about(model: Model, name: str, limits: Limits) -> dict[str, Any]:
    """Say what answers, and what a request may hold."""
    bundle = model.bundle
    return {
        "run": name,
        "model": bundle.recipe.model,
        "layers": list(bundle.layers),
        "head": bundle.head,
        "task": bundle.task,
        "classes": bundle.classes,
        "features_key": bundle.recipe.key,
        "recipe_versions": bundle.versions,
        "versions": versions(PACKAGES),
        "limits": {
            "images": limits.images,
            "request_bytes": limits.request_bytes,
            "image_bytes": MAX_BYTES,
            "image_pixels": MAX_PIXELS,
        },
    }


def _refusal(what: str) -> dict[str, str]:
    return OffshelfError(what).as_dict() | {"type": "Refused"}


def _error(code: int, error: dict[str, str]) -> Response:
    return JSONResponse({"error": error}, code, headers={"Retry-After": "1"} if code == 503 else None)
