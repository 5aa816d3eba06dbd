"""What is answered, for `/openapi.json` and for tests that read real answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cogview.serving.jobs import State
from cogview.serving.schemas import Format

Created = Annotated[int, Field(description="Seconds since 1970.")]
Loss = Annotated[float, Field(description="CapLoss in nats per piece: the lower, the better the text fits.")]
Seed = Annotated[int, Field(description="Draws the picture again.")]


class Answered(BaseModel):
    """Nothing is answered that is not named."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Answered):
    """What is wrong."""

    message: str = Field(description="One line, with what to do.")
    type: str = Field(description="The kind of error, as OpenAI's clients know it.")
    param: str | None = Field(description="The field that is to blame.")
    code: str | None = Field(description="A word for programs.")


class ErrorAnswer(Answered):
    """A request that was not carried out."""

    error: ErrorDetail
    detail: str = Field("", description="The message once more, for clients of Automatic1111's API.")


class Shown(Answered):
    """A picture: exactly one of `b64_json` and `url` is there."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["b64_json"]}, {"required": ["url"]}]}
    )

    b64_json: str = Field("", description="The file in base64.")
    url: str = Field("", description="Where the file is fetched, without a key, for an hour.")

    @model_validator(mode="after")
    def _one_of_both(self) -> "Shown":
        if bool(self.b64_json) == bool(self.url):
            raise ValueError("a picture is given once")
        return self


class Drawn(Shown):
    """A picture that was drawn."""

    revised_prompt: str = Field(description="The text as the model read it.")
    seed: Seed
    caption_loss: Loss | None = Field(
        None, description="CapLoss in nats per piece, if candidates were ranked."
    )


class InputDetails(Answered):
    """What was read."""

    text_tokens: int = Field(ge=0, description="Pieces of the text.")
    image_tokens: int = Field(ge=0, description="Codes of the picture that was given.")


class Usage(Answered):
    """How much was read and drawn, in tokens."""

    input_tokens: int = Field(ge=0, description="Pieces and codes that were read.")
    input_tokens_details: InputDetails
    output_tokens: int = Field(ge=0, description="Codes that were drawn, of all candidates.")
    total_tokens: int = Field(ge=0, description="Both together.")


class Made(Answered):
    """What is said of all pictures of a request."""

    size: str = Field(description="WIDTHxHEIGHT in pixels.")
    output_format: Format
    background: Literal["opaque"]


class ImagesAnswer(Made):
    """Pictures, the best first if they were ranked."""

    created: Created
    data: list[Drawn]
    usage: Usage
    unknown_words: list[str] = Field(
        [], description="Words of the text that the model has never seen; /api/words lists what it knows."
    )
    is_cut: bool = Field(
        False, description="Whether the text is longer than the model reads: its end is left out."
    )
    ignored: list[str] = Field([], description="Fields of the request that change nothing here.")


class UpscaleAnswer(Answered):
    """A larger picture."""

    created: Created
    data: list[Shown] = Field(min_length=1, max_length=1)
    size: str = Field(description="WIDTHxHEIGHT in pixels.")
    output_format: Format


class Caption(Answered):
    """A text that fits a picture."""

    text: str
    caption_loss: Loss


class CaptionsAnswer(Answered):
    """Captions, the best first."""

    created: Created
    data: list[Caption]


class Ranked(Answered):
    """A picture's place."""

    index: int = Field(ge=0, description="Among the pictures that were sent.")
    caption_loss: Loss


class RankAnswer(Answered):
    """Pictures, the one first that the text fits best."""

    created: Created
    data: list[Ranked]


class ModelAnswer(Answered):
    """A model, or a style of it."""

    id: str
    object: Literal["model"]
    created: Created
    owned_by: str
    sizes: list[str] = Field(description="WIDTHxHEIGHT in pixels, in which it draws.")
    default_size: str = Field(description="WIDTHxHEIGHT in pixels.")
    captions: bool = Field(description="Whether it writes captions and ranks.")


class ModelsAnswer(Answered):
    """The model and its styles."""

    object: Literal["list"]
    data: list[ModelAnswer]


class Event(Made):
    """What is said in each event of a stream."""

    created_at: Created
    quality: Literal["auto"]


class PartialImageEvent(Event):
    """A picture that is still drawn."""

    type: Literal["image_generation.partial_image", "image_edit.partial_image"]
    b64_json: str = Field(description="The file in base64; light grey where nothing is drawn yet.")
    partial_image_index: int = Field(ge=0, le=2)


class CompletedEvent(Event, Drawn):
    """A picture that is done."""

    type: Literal["image_generation.completed", "image_edit.completed"]
    usage: Usage


class ErrorEvent(ErrorAnswer):
    """The end of a stream that failed."""

    type: Literal["error"]


class AliveAnswer(Answered):
    """Whether the engine goes on."""

    alive: bool
    silent_seconds: float = Field(ge=0, description="For which the engine has said nothing.")


class ReadyAnswer(Answered):
    """Whether pictures are drawn."""

    ready: bool


class FactsAnswer(Answered):
    """What the model can do."""

    name: str
    sizes: list[int] = Field(description="In which it draws, in pixels a side.")
    size_pixels: int = Field(description="The size by default, in pixels a side.")
    grid: list[int] = Field(min_length=2, max_length=2, description="Rows and columns of codes.")
    guidance: float = Field(description="By default.")
    top_p: float = Field(description="By default.")
    max_batch: int = Field(description="Pictures drawn at once.")
    styles: list[str] = Field(description="Adapters that draw.")
    captioners: list[str] = Field(description="Adapters that caption and rank.")
    upscalers: list[str] = Field(description="Adapters that upscale.")
    words: list[str] = Field(description="That it has learnt, the most frequent first.")
    suggestions: dict[str, list[str]] = Field(description="Sentences that it can draw, by language.")
    num_parameters: int = Field(description="Of the transformer.")
    device: str = Field(description="Where it is computed.")
    max_pictures: int = Field(description="Of a request.")
    max_candidates: int = Field(description="Of a request.")


class KnownName(Answered):
    """Something that the model can be asked for."""

    english: list[str] = Field(min_length=1, description="How it is called, the usual name first.")
    chinese: list[str] = Field(min_length=1, description="The same.")


class KnownColour(KnownName):
    """A colour that the model can be asked for."""

    of: list[Literal["grounds", "things"]] = Field(description="What can have it.")


class WordsAnswer(Answered):
    """What the model can be asked for, as far as the words say that it has learnt."""

    things: list[KnownName] = Field(description="The commonest first.")
    colours: list[KnownColour]
    sizes: list[KnownName] = Field(description="Of things.")
    numbers: list[KnownName] = Field(description="Of things of one kind.")
    places: list[KnownName] = Field(description="Of a thing, seen from another.")
    styles: list[KnownName] = Field(description="Of pictures.")
    adapters: dict[str, list[str]] = Field(
        description="Words that it knows by an adapter alone, by its name."
    )
    words: list[str] = Field(
        description="The most frequent ones, if it is of another world than the default data's."
    )
    num_words: int = Field(ge=0, description="That it has learnt; 0 if they are not known.")
    num_left_out: int = Field(ge=0, description="Rarer words that it has met, too.")


class JobPicture(Answered):
    """A picture of a job."""

    place: int = Field(ge=0, description="Among the pictures of the job.")
    seed: Seed
    url: str = Field(description="Path of the file.")
    facts: dict[str, Any] = Field(description="Text, seed and settings: what the file says of itself.")


class JobAnswer(Answered):
    """A job of the page."""

    id: str = Field(description="That nobody can guess.")
    number: str = Field(description="By which jobs are ordered, in decimal digits.")
    created: float = Field(description="Seconds since 1970.")
    text: str
    state: State
    message: str = Field(description="Why it was refused or failed.")
    seed: int = Field(description="Of the first candidate.")
    n: int = Field(description="Pictures that are kept.")
    candidates: int = Field(description="Pictures that are drawn.")
    settings: dict[str, Any] = Field(description="How it is drawn.")
    is_edit: bool = Field(description="Whether a part of a picture is drawn anew.")
    accepted: dict[str, Any] = Field(description="What was told of the text when it was looked at.")
    pictures: list[JobPicture] = Field(description="That are done.")


class JobsAnswer(Answered):
    """Jobs of whoever asks, the newest first."""

    data: list[JobAnswer]


class AcceptedEvent(Answered):
    """A job was looked at."""

    type: Literal["accepted"]
    text: str = Field(description="As the model reads it.")
    unknown_words: list[str] = Field(
        description="That the model has never seen; /api/words lists what it knows."
    )
    is_cut: bool = Field(description="Whether the text is longer than the model reads.")
    num_pieces: int = Field(description="Of the text.")
    num_codes: int = Field(description="That are to be drawn.")


class QueuedEvent(Answered):
    """A job waits."""

    type: Literal["queued"]
    position: int = Field(ge=0, description="Jobs that begin before it.")
    seconds: float | None = Field(description="Until it is done, as far as can be foretold.")


class PreviewEvent(Answered):
    """A picture that is still drawn."""

    type: Literal["preview"]
    candidate: int = Field(ge=0, description="Its place among the seeds.")
    seed: Seed
    share: float = Field(ge=0, le=1, description="Of its codes that are drawn.")
    image: str = Field(description="A data url.")


class PictureEvent(JobPicture):
    """A picture that is done."""

    type: Literal["picture"]


class EndEvent(Answered):
    """The last event of a job."""

    type: Literal["done", "refused", "failed", "cancelled"]
    message: str = Field(description="Why it was refused or failed.")


class A1111Images(Answered):
    """Pictures, as Automatic1111 gives them."""

    images: list[str] = Field(description="Files in base64.")
    parameters: dict[str, Any] = Field(description="Fields as they were read.")
    info: str = Field(description="JSON: seeds, texts, size, and names of fields that were let pass.")


class A1111State(Answered):
    """How far the first unfinished request of a client is."""

    skipped: bool
    interrupted: bool
    job: str
    job_count: int = Field(ge=0, description="Requests of the client.")
    job_timestamp: str
    job_no: int
    sampling_step: int = Field(ge=0, le=100, description="Per cent of the codes.")
    sampling_steps: int


class A1111Progress(Answered):
    """How far the first unfinished request of a client is."""

    progress: float = Field(ge=0, le=1, description="Share of the codes that is drawn.")
    eta_relative: float = Field(description="Seconds until it is done.")
    state: A1111State
    current_image: str | None = Field(description="A preview in base64.")
    textinfo: str | None = Field(description="How many wait before it.")


class A1111PictureInfo(Answered):
    """What a picture's file says."""

    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]
