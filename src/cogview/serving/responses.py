"""Models of response bodies, for `/openapi.json` and for tests of real answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cogview.serving.jobs import State
from cogview.serving.schemas import Format

Created = Annotated[int, Field(description="Seconds since 1970.")]
Loss = Annotated[float, Field(description="CapLoss in nats per piece: lower means a better fit.")]
Seed = Annotated[int, Field(description="Reproduces the picture.")]


class ResponseModel(BaseModel):
    """Model without undeclared fields."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(ResponseModel):
    """Error of a request."""

    message: str = Field(description="One line: what was wrong and what to do.")
    type: str = Field(description="Error type of OpenAI's API.")
    param: str | None = Field(description="Name of the invalid field.")
    code: str | None = Field(description="Error code for programs.")


class ErrorAnswer(ResponseModel):
    """Answer to a failed request."""

    error: ErrorDetail
    detail: str = Field("", description="The same message, for clients of Automatic1111's API.")


class ImageData(ResponseModel):
    """Picture as exactly one of `b64_json` and `url`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["b64_json"]}, {"required": ["url"]}]}
    )

    b64_json: str = Field("", description="The file in base64.")
    url: str = Field("", description="Url of the file, valid for an hour without a key.")

    @model_validator(mode="after")
    def _one_of_both(self) -> "ImageData":
        if bool(self.b64_json) == bool(self.url):
            raise ValueError("exactly one of b64_json and url is needed")
        return self


class DrawnImage(ImageData):
    """Generated picture."""

    revised_prompt: str = Field(description="The prompt as the model read it.")
    seed: Seed
    caption_loss: Loss | None = Field(
        None, description="CapLoss in nats per piece, if candidates were ranked."
    )


class InputDetails(ResponseModel):
    """Input tokens by kind."""

    text_tokens: int = Field(ge=0, description="Pieces of the text.")
    image_tokens: int = Field(ge=0, description="Codes of the input picture.")


class Usage(ResponseModel):
    """Token counts."""

    input_tokens: int = Field(ge=0, description="Pieces and codes of the input.")
    input_tokens_details: InputDetails
    output_tokens: int = Field(ge=0, description="Codes drawn, of all candidates.")
    total_tokens: int = Field(ge=0, description="Sum of both.")


class OutputFields(ResponseModel):
    """Fields that all pictures of a request share."""

    size: str = Field(description="WIDTHxHEIGHT in pixels.")
    output_format: Format
    background: Literal["opaque"]


class ImagesAnswer(OutputFields):
    """Pictures, best first if ranked."""

    created: Created
    data: list[DrawnImage]
    usage: Usage
    unknown_words: list[str] = Field(
        [],
        description="Words of the prompt that the model never saw in training; /api/words lists the known.",
    )
    is_cut: bool = Field(False, description="Whether the prompt was too long and its end was cut off.")
    ignored: list[str] = Field([], description="Fields of the request that had no effect.")


class UpscaleAnswer(ResponseModel):
    """Upscaled picture."""

    created: Created
    data: list[ImageData] = Field(min_length=1, max_length=1)
    size: str = Field(description="WIDTHxHEIGHT in pixels.")
    output_format: Format


class Caption(ResponseModel):
    """Caption of a picture."""

    text: str
    caption_loss: Loss


class CaptionsAnswer(ResponseModel):
    """Captions, best first."""

    created: Created
    data: list[Caption]


class Ranked(ResponseModel):
    """Ranked picture."""

    index: int = Field(ge=0, description="Index among the pictures of the request.")
    caption_loss: Loss


class RankAnswer(ResponseModel):
    """Ranked pictures, best first."""

    created: Created
    data: list[Ranked]


class ModelAnswer(ResponseModel):
    """Model or style."""

    id: str
    object: Literal["model"]
    created: Created
    owned_by: str
    sizes: list[str] = Field(description="Supported sizes, WIDTHxHEIGHT in pixels.")
    default_size: str = Field(description="WIDTHxHEIGHT in pixels.")
    captions: bool = Field(description="Whether it can caption and rank.")


class ModelsAnswer(ResponseModel):
    """The model and its styles."""

    object: Literal["list"]
    data: list[ModelAnswer]


class Event(OutputFields):
    """Fields that all events share."""

    created_at: Created
    quality: Literal["auto"]


class PartialImageEvent(Event):
    """Preview of an unfinished picture."""

    type: Literal["image_generation.partial_image", "image_edit.partial_image"]
    b64_json: str = Field(description="The file in base64; light grey where no code is drawn yet.")
    partial_image_index: int = Field(ge=0, le=2)


class CompletedEvent(Event, DrawnImage):
    """Finished picture."""

    type: Literal["image_generation.completed", "image_edit.completed"]
    usage: Usage


class ErrorEvent(ErrorAnswer):
    """Last event of a failed stream."""

    type: Literal["error"]


class AliveAnswer(ResponseModel):
    """Liveness of the engines."""

    alive: bool
    silent_seconds: float = Field(ge=0, description="Seconds since an engine's last message.")


class ReadyAnswer(ResponseModel):
    """Readiness of the server."""

    ready: bool


class FactsAnswer(ResponseModel):
    """Properties of the model, and limits of the server."""

    name: str
    sizes: list[int] = Field(description="Supported sizes, in pixels a side.")
    size_pixels: int = Field(description="Default size, in pixels a side.")
    grid: list[int] = Field(min_length=2, max_length=2, description="Rows and columns of codes.")
    guidance: float = Field(description="Default guidance.")
    top_p: float = Field(description="Default top-p.")
    max_batch: int = Field(description="Pictures drawn at once.")
    styles: list[str] = Field(description="Names of style adapters.")
    captioners: list[str] = Field(description="Names of adapters that caption and rank.")
    upscalers: list[str] = Field(description="Names of adapters that upscale.")
    words: list[str] = Field(description="Words of its training captions, most frequent first.")
    suggestions: dict[str, list[str]] = Field(description="Example prompts, by language.")
    num_parameters: int = Field(description="Parameters of the transformer.")
    device: str = Field(description="Device on which it runs.")
    max_pictures: int = Field(description="Most pictures of a request.")
    max_candidates: int = Field(description="Most candidates of a request.")


class KnownName(ResponseModel):
    """Names of something that the model can draw."""

    english: list[str] = Field(min_length=1, description="English names, the usual one first.")
    chinese: list[str] = Field(min_length=1, description="Chinese names, the usual one first.")


class KnownColour(KnownName):
    """Colour that the model can draw."""

    of: list[Literal["grounds", "things"]] = Field(description="What can have this colour.")


class WordsAnswer(ResponseModel):
    """The model's vocabulary by category."""

    things: list[KnownName] = Field(description="Most frequent first.")
    colours: list[KnownColour]
    sizes: list[KnownName] = Field(description="Sizes of things.")
    numbers: list[KnownName] = Field(description="Numbers of equal things.")
    places: list[KnownName] = Field(description="Positions of one thing relative to another.")
    styles: list[KnownName] = Field(description="Styles of pictures.")
    adapters: dict[str, list[str]] = Field(
        description="Words known only with an adapter, by the adapter's name."
    )
    words: list[str] = Field(description="Most frequent words of a model that was trained on other data.")
    num_words: int = Field(ge=0, description="Size of the vocabulary; 0 if unknown.")
    num_left_out: int = Field(ge=0, description="Rarer words that are not listed.")


class JobPicture(ResponseModel):
    """Picture of a job."""

    place: int = Field(ge=0, description="Index among the pictures of the job.")
    seed: Seed
    url: str = Field(description="Path of the file.")
    facts: dict[str, Any] = Field(description="Metadata of the file: text, seed and settings.")


class JobAnswer(ResponseModel):
    """Job of the page."""

    id: str = Field(description="Unguessable id.")
    number: str = Field(description="Orders jobs; in decimal digits.")
    created: float = Field(description="Seconds since 1970.")
    text: str
    state: State
    message: str = Field(description="Why it was refused or failed.")
    seed: int = Field(description="Seed of the first candidate.")
    n: int = Field(description="Number of pictures to keep.")
    candidates: int = Field(description="Number of pictures to draw.")
    settings: dict[str, Any] = Field(description="Sampling settings.")
    is_edit: bool = Field(description="Whether it inpaints a picture.")
    accepted: dict[str, Any] = Field(description="Data of its accepted event, without the type.")
    pictures: list[JobPicture] = Field(description="Finished pictures.")


class JobsAnswer(ResponseModel):
    """Jobs of the client, newest first."""

    data: list[JobAnswer]


class AcceptedEvent(ResponseModel):
    """A job was checked and will run."""

    type: Literal["accepted"]
    text: str = Field(description="The prompt as the model reads it.")
    unknown_words: list[str] = Field(
        description="Words that the model never saw in training; /api/words lists the known."
    )
    is_cut: bool = Field(description="Whether the prompt was too long and its end was cut off.")
    num_pieces: int = Field(description="Pieces of the prompt.")
    num_codes: int = Field(description="Codes to draw.")


class QueuedEvent(ResponseModel):
    """A job's place in the queue."""

    type: Literal["queued"]
    position: int = Field(ge=0, description="Jobs before it.")
    seconds: float | None = Field(description="Estimated time until it is done.")


class PreviewEvent(ResponseModel):
    """Preview of an unfinished picture."""

    type: Literal["preview"]
    candidate: int = Field(ge=0, description="Index of its seed.")
    seed: Seed
    share: float = Field(ge=0, le=1, description="Share of its codes that are drawn.")
    image: str = Field(description="A data url.")


class PictureEvent(JobPicture):
    """Finished picture."""

    type: Literal["picture"]


class EndEvent(ResponseModel):
    """Last event of a job."""

    type: Literal["done", "refused", "failed", "cancelled"]
    message: str = Field(description="Why it was refused or failed.")


class A1111Images(ResponseModel):
    """Pictures, in Automatic1111's format."""

    images: list[str] = Field(description="Files in base64.")
    parameters: dict[str, Any] = Field(description="Fields of the request.")
    info: str = Field(description="JSON: seeds, texts, size, and names of ignored fields.")


class A1111State(ResponseModel):
    """State of the client's first unfinished request."""

    skipped: bool
    interrupted: bool
    job: str
    job_count: int = Field(ge=0, description="Open requests of the client.")
    job_timestamp: str
    job_no: int
    sampling_step: int = Field(ge=0, le=100, description="Per cent of the codes.")
    sampling_steps: int


class A1111Progress(ResponseModel):
    """Progress of the client's first unfinished request."""

    progress: float = Field(ge=0, le=1, description="Share of the codes that are drawn.")
    eta_relative: float = Field(description="Estimated seconds until it is done.")
    state: A1111State
    current_image: str | None = Field(description="A preview in base64.")
    textinfo: str | None = Field(description="Its position in the queue.")


class A1111PictureInfo(ResponseModel):
    """Metadata of a picture file."""

    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]
