"""Table of all HTTP operations, from which routes and `/openapi.json` are built."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from cogview.serving.a1111_api import FIXED_LISTS, A1111Api
from cogview.serving.a1111_forms import ImageToImageRequest, PictureInfoRequest, TextToImageRequest
from cogview.serving.draw_requests import MEDIA_TYPES
from cogview.serving.images_api import MAX_RANKED, ImagesApi
from cogview.serving.operations import Content, Events, File, Form, Handler, Json, Operation
from cogview.serving.page_api import PageApi
from cogview.serving.responses import (
    A1111Images,
    A1111PictureInfo,
    A1111Progress,
    AcceptedEvent,
    AliveAnswer,
    CaptionsAnswer,
    CompletedEvent,
    EndEvent,
    ErrorEvent,
    FactsAnswer,
    ImagesAnswer,
    JobAnswer,
    JobsAnswer,
    ModelAnswer,
    ModelsAnswer,
    PartialImageEvent,
    PictureEvent,
    PreviewEvent,
    QueuedEvent,
    RankAnswer,
    ReadyAnswer,
    UpscaleAnswer,
    WordsAnswer,
)
from cogview.serving.schemas import (
    CaptionRequest,
    ClientHeader,
    EditRequest,
    EventsHeaders,
    FilePath,
    GenerationRequest,
    HistoryQuery,
    JobPath,
    ModelPath,
    PicturePath,
    ProgressQuery,
    RankRequest,
    ShownQuery,
    UpscaleRequest,
)

_IMAGES = (Json(ImagesAnswer), Events((PartialImageEvent, CompletedEvent, ErrorEvent)))
_JOB_EVENTS = Events((AcceptedEvent, QueuedEvent, PreviewEvent, PictureEvent, EndEvent))
_JOB = (Json(JobAnswer),)
_ANY = File(("application/json",))
_A1111_IMAGES = Json(A1111Images)
_PICTURE = {"image": "The picture."}
_EDIT = Form(
    model=EditRequest,
    files=_PICTURE | {"mask": "Part to inpaint: transparent, or else white. Same shape as the picture."},
    optional=("mask",),
)
_RANK = Form(model=RankRequest, files={"image": f"Up to {MAX_RANKED} pictures."}, many={"image": MAX_RANKED})


def operation_table(
    *,
    images: ImagesApi,
    a1111: A1111Api,
    page: PageApi | None,
    livez: Handler,
    readyz: Handler,
    metrics_text: Handler,
    openapi: Handler,
) -> list[Operation]:
    """Return all operations.

    Args:
        images: handlers of the images API.
        a1111: handlers of Automatic1111's API.
        page: handlers of the page's API, if jobs are stored.
        livez: handler of the liveness check.
        readyz: handler of the readiness check.
        metrics_text: handler of `/metrics`.
        openapi: handler of `/openapi.json`.
    """
    return [
        *_image_operations(images),
        *_a1111_operations(a1111),
        *([] if page is None else _job_operations(page)),
        _server_operation("/livez", livez, {status: [Json(AliveAnswer)] for status in (200, 503)}),
        _server_operation("/readyz", readyz, {status: [Json(ReadyAnswer)] for status in (200, 503)}),
        _server_operation("/metrics", metrics_text, {200: [File(("text/plain",))]}),
        _server_operation("/openapi.json", openapi, {200: [File(("application/json",))]}),
    ]


def _image_operations(api: ImagesApi) -> list[Operation]:
    def post(path: str, handler: Handler, body: Json | Form, *answer: Content) -> Operation:
        return Operation(
            method="POST",
            path=path,
            handler=handler,
            tag="images",
            bodies=(body,),
            answers={200: answer},
            query=ShownQuery,
            headers=ClientHeader,
            errors=(404, 429, 503) if _IMAGES[0] in answer else (429, 503),  # 404: unknown style
        )

    return [
        post("/v1/images/generations", api.generations, Json(GenerationRequest), *_IMAGES),
        post("/v1/images/edits", api.edits, _EDIT, *_IMAGES),
        post(
            "/v1/images/upscale",
            api.upscale,
            Form(model=UpscaleRequest, files=_PICTURE),
            Json(UpscaleAnswer),
        ),
        post(
            "/v1/images/captions",
            api.captions,
            Form(model=CaptionRequest, files=_PICTURE),
            Json(CaptionsAnswer),
        ),
        post("/v1/images/rank", api.rank, _RANK, Json(RankAnswer)),
        Operation(
            method="GET",
            path="/v1/models",
            handler=api.models,
            tag="images",
            answers={200: [Json(ModelsAnswer)]},
            errors=(503,),
        ),
        Operation(
            method="GET",
            path="/v1/models/{name:path}",
            handler=api.model,
            tag="images",
            path_model=ModelPath,
            answers={200: [Json(ModelAnswer)]},
            errors=(503,),
        ),
        Operation(
            method="GET",
            path="/files/{name}",
            handler=api.file,
            tag="images",
            path_model=FilePath,
            answers={200: [File(tuple(MEDIA_TYPES.values()))]},
        ),
    ]


def _a1111_operations(api: A1111Api) -> list[Operation]:
    def get(name: str, handler: Handler, *, query: type[BaseModel] | None = None) -> Operation:
        return Operation(
            method="GET",
            path=f"/sdapi/v1/{name}",
            handler=handler,
            tag="Automatic1111's",
            query=query,
            answers={200: [Json(A1111Progress) if name == "progress" else _ANY]},
            errors=(503,),
        )

    def post(name: str, handler: Handler, answer: Content = _ANY, *bodies: Json) -> Operation:
        return Operation(
            method="POST",
            path=f"/sdapi/v1/{name}",
            handler=handler,
            tag="Automatic1111's",
            bodies=bodies,
            answers={200: [answer]},
            errors=(404, 429, 503) if answer == _A1111_IMAGES else (),
        )

    return [
        get("options", api.options),
        get("sd-models", api.models),
        get("loras", api.loras),
        get("progress", api.progress, query=ProgressQuery),
        *(get(name, api.fixed_list) for name in FIXED_LISTS),
        post("options", api.accept),
        post("refresh-checkpoints", api.accept),
        post("refresh-loras", api.accept),
        post("interrupt", api.interrupt),
        post("skip", api.interrupt),
        post("txt2img", api.text_to_image, _A1111_IMAGES, Json(TextToImageRequest)),
        post("img2img", api.image_to_image, _A1111_IMAGES, Json(ImageToImageRequest)),
        post("png-info", api.picture_info, Json(A1111PictureInfo), Json(PictureInfoRequest)),
    ]


def _job_operations(api: PageApi) -> list[Operation]:
    return [
        Operation(
            method="GET",
            path="/api/facts",
            handler=api.facts,
            tag="jobs",
            answers={200: [Json(FactsAnswer)]},
            errors=(503,),
        ),
        Operation(
            method="GET",
            path="/api/words",
            handler=api.words,
            tag="jobs",
            answers={200: [Json(WordsAnswer)]},
            errors=(503,),
        ),
        Operation(
            method="POST",
            path="/api/jobs",
            handler=api.begin,
            tag="jobs",
            bodies=(Json(GenerationRequest), _EDIT),
            headers=ClientHeader,
            answers={201: _JOB},
            errors=(404, 429, 503),
        ),
        Operation(
            method="GET",
            path="/api/jobs",
            handler=api.history,
            tag="jobs",
            query=HistoryQuery,
            headers=ClientHeader,
            answers={200: [Json(JobsAnswer)]},
            errors=(503,),
        ),
        Operation(
            method="GET",
            path="/api/jobs/{id}",
            handler=api.job,
            tag="jobs",
            path_model=JobPath,
            answers={200: _JOB},
            errors=(503,),
        ),
        Operation(
            method="DELETE",
            path="/api/jobs/{id}",
            handler=api.delete,
            tag="jobs",
            path_model=JobPath,
            headers=ClientHeader,
            answers={204: []},
        ),
        Operation(
            method="POST",
            path="/api/jobs/{id}/stop",
            handler=api.stop,
            tag="jobs",
            path_model=JobPath,
            headers=ClientHeader,
            answers={200: _JOB},
            errors=(503,),
        ),
        Operation(
            method="GET",
            path="/api/jobs/{id}/events",
            handler=api.events,
            tag="jobs",
            path_model=JobPath,
            headers=EventsHeaders,
            answers={200: [_JOB_EVENTS]},
        ),
        Operation(
            method="GET",
            path="/pictures/{id}/{place}.png",
            handler=api.picture,
            tag="jobs",
            path_model=PicturePath,
            answers={200: [File(("image/png",))]},
        ),
    ]


def _server_operation(path: str, handler: Handler, answers: Mapping[int, Sequence[Content]]) -> Operation:
    return Operation(method="GET", path=path, handler=handler, tag="server", answers=answers)
