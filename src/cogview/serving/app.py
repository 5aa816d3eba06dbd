"""ASGI application: routes and middleware."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Scope

from cogview.serving.a1111_api import A1111Api
from cogview.serving.http import ApiError
from cogview.serving.images_api import ImagesApi
from cogview.serving.job_store import JobStore
from cogview.serving.jobs import Jobs
from cogview.serving.metrics import Metrics
from cogview.serving.middleware import GuardMiddleware
from cogview.serving.openapi import document
from cogview.serving.operation_table import operation_table
from cogview.serving.operations import routes_of
from cogview.serving.options import ServerOptions
from cogview.serving.page_api import PageApi
from cogview.serving.page_files import PageFiles
from cogview.serving.state import ServerState
from cogview.serving.temporary_files import TemporaryFiles

MAX_SILENT_SECONDS = 150.0


def application(options: ServerOptions, jobs: Jobs) -> ASGIApp:
    """Build the web application.

    Args:
        options: limits for clients.
        jobs: started and closed with the application.
    """
    state = ServerState(
        options=options,
        jobs=jobs,
        files=TemporaryFiles(options.url_seconds, options.max_url_bytes),
    )

    metrics = Metrics(jobs)
    page = None if options.data is None else PageApi(state, JobStore(options.data, options.max_stored_jobs))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        jobs.start()
        if page is not None:
            await page.resume_unfinished()
        yield
        if page is not None:
            await page.close()
        await jobs.close()

    async def livez(request: Request) -> Response:
        """Report whether any engine is alive; links restart those that hang."""
        silent = min(link.silent_seconds for link in jobs.links)
        is_alive = silent < MAX_SILENT_SECONDS
        return JSONResponse({"alive": is_alive, "silent_seconds": round(silent, 1)}, 200 if is_alive else 503)

    async def readyz(request: Request) -> Response:
        """Report whether the server takes jobs."""
        is_ready = jobs.is_ready and not jobs.is_draining
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def metrics_text(request: Request) -> Response:
        """Return metrics in Prometheus' format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(request: Request) -> Response:
        """Describe this API in OpenAPI 3.1."""
        facts = next((link.facts for link in jobs.links if link.facts is not None), None)
        return JSONResponse(document(operations, options, facts))

    operations = operation_table(
        images=ImagesApi(state),
        a1111=A1111Api(state),
        page=page,
        livez=livez,
        readyz=readyz,
        metrics_text=metrics_text,
        openapi=openapi,
    )
    middleware = []
    if options.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=options.cors_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
            )
        )
    routes = [
        *routes_of(operations),
        *([] if page is None else PageFiles().routes()),
    ]
    patterns = {route.endpoint: route.path for route in routes}
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={ApiError: _wire_error, HTTPException: _http_error},  # type: ignore[dict-item]
        lifespan=lifespan,
    )

    app.router.redirect_slashes = False  # with a redirect some clients drop body or key

    def answered(scope: Scope, status: int, seconds: float) -> None:
        route = patterns.get(scope["endpoint"], "none") if "endpoint" in scope else "none"
        metrics.answered(route, scope["method"] if route != "none" else "any", status, seconds)

    return GuardMiddleware(app, options, answered)


async def _wire_error(request: Request, error: ApiError) -> Response:
    return error.response(request.url.path)


async def _http_error(request: Request, error: HTTPException) -> Response:
    messages = {
        404: "there is nothing here; see /openapi.json",
        405: "this address does not allow that method",
    }
    response = ApiError(
        error.status_code, messages.get(error.status_code, error.detail), code=f"http_{error.status_code}"
    ).response(request.url.path)
    response.headers.update(error.headers or {})
    return response
