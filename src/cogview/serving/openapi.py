"""`/openapi.json`: what the server can be asked for, made of the table that its routes are made of."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import cogview
from cogview.serving.answers import ErrorAnswer
from cogview.serving.guards import is_open
from cogview.serving.messages import ModelFacts
from cogview.serving.operations import Content, Events, File, Form, Json, Operation
from cogview.serving.options import ServerOptions
from cogview.serving.schemas import ImageRequest

_ERRORS = {
    400: "The request is wrong, or cannot be carried out: the message says how, `param` where.",
    401: "The server asks for a key.",
    403: "The server is not known by that name, or the request is another site's page's, or the job another client's.",
    404: "There is no such thing, or no more.",
    405: "That method is not for this address.",
    408: "The request did not arrive in time.",
    413: "The request is too large.",
    415: "The body is of another kind.",
    429: "The queue is full, or too much is being uploaded.",
    500: "The server failed; its log says why.",
    503: "The model is being loaded, or the server ends.",
}
_RETRIED = (429, 503)
_PICTURES = "image/png, image/jpeg, image/webp, image/gif, image/bmp, image/tiff"
_REF = "#/components/schemas/{model}"
_DESCRIPTION = """\
Pictures of texts, as OpenAI's images API has it, and more beside it. Fields that are not named here are let pass.
Errors are objects with a message, a kind, the field that is to blame and a code. A client that leaves cancels what it
asked for under /v1; what is asked for under /api/jobs is kept, and goes on."""


def document(
    operations: Sequence[Operation], options: ServerOptions, facts: ModelFacts | None
) -> dict[str, Any]:
    """Return the description of operations, as OpenAPI 3.1 has it.

    Args:
        operations: all of them.
        options: what is taken from clients.
        facts: what is known of the model; None if it is not loaded yet.
    """
    models = _models(operations)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas = definitions["$defs"]
    for model in models:
        if issubclass(model, ImageRequest):
            _narrow(schemas[model.__name__], options, facts)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = re.sub(r":\w+}", "}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _described(operation, options, schemas)
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "CogView", "version": cogview.__version__, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {f"Error{status}": _error(status) for status in _ERRORS},
        },
    }
    if options.api_keys:
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"key": []}]
    return described


def _models(operations: Sequence[Operation]) -> list[type[BaseModel]]:
    """Return the models of bodies and answers; those of parameters stand where they are used."""
    found: dict[type[BaseModel], None] = {ErrorAnswer: None}
    for operation in operations:
        for content in (*operation.bodies, *(each for all_ in operation.answers.values() for each in all_)):
            if isinstance(content, Json | Form):
                found[content.model] = None
            elif isinstance(content, Events):
                found |= dict.fromkeys(content.models)
    return list(found)


def _narrow(schema: dict[str, Any], options: ServerOptions, facts: ModelFacts | None) -> None:
    """Say of a request for pictures what this server and its model take."""
    fields = schema["properties"]
    fields["prompt"]["maxLength"] = options.max_text_characters
    _integer(fields["n"])["maximum"] = options.max_pictures
    _integer(fields["candidates"])["maximum"] = options.max_candidates
    if facts is not None:
        sizes = [f"{side}x{side}" for side in facts.sizes]
        fields["size"] |= {"anyOf": [{"enum": [*sizes, "auto"]}, {"type": "null"}]}


def _integer(field: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in field["anyOf"] if each["type"] == "integer")
    return found


def _described(operation: Operation, options: ServerOptions, schemas: Mapping[str, Any]) -> dict[str, Any]:
    statuses = {403, 405, 500, *operation.errors}
    if options.api_keys and not is_open(operation.path):
        statuses.add(401)
    if operation.bodies:
        statuses |= {400, 408, 413, 415, 429}
    if operation.query or operation.headers:
        statuses.add(400)
    if operation.path_model:
        statuses.add(404)
    answers = {
        str(status): {
            "description": operation.summary if status < 400 else _ERRORS[status],
            **({"content": _merged([_content(each, schemas) for each in contents])} if contents else {}),
        }
        for status, contents in operation.answers.items()
    }
    errors = {
        str(status): {"$ref": f"#/components/responses/Error{status}"}
        for status in sorted(statuses - set(operation.answers))
    }
    described: dict[str, Any] = {
        "operationId": "_".join([operation.method.lower(), *re.findall(r"\w+", operation.path)]),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation),
        "responses": answers | errors,
    }
    if operation.bodies:
        bodies = _merged([_content(each, schemas) for each in operation.bodies])
        described["requestBody"] = {"required": True, "content": bodies}
    if options.api_keys and is_open(operation.path):
        described["security"] = []
    return described


def _merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def _content(content: Content, schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body by media type."""
    if isinstance(content, File):
        return {media_type: {} for media_type in content.media_types}
    if isinstance(content, Json):
        return {"application/json": {"schema": _ref(content.model)}}
    if isinstance(content, Events):
        return {"text/event-stream": {"schema": _event(content)}}
    return {"multipart/form-data": _form(content, schemas[content.model.__name__])}


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model.__name__)}


def _event(content: Events) -> dict[str, Any]:
    """Return what an event of a stream is: OpenAPI 3.1 leaves open what a schema of a stream is of, tools take this."""
    told = {
        "contentMediaType": "application/json",
        "contentSchema": {"oneOf": [_ref(model) for model in content.models]},
    }
    data = {"type": "string", "anyOf": [told, {"const": "[DONE]"}]}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": data},
    }


def _form(content: Form, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a form: its texts, which have no null, and its files."""
    texts = {name: _without_null(field) for name, field in schema["properties"].items()}
    file = {"type": "string", "format": "binary"}
    files: dict[str, Any] = {}
    for name, text in content.files.items():
        num = content.many.get(name)
        kind = file if num is None else {"type": "array", "items": file, "minItems": 1, "maxItems": num}
        files[name] = {"description": text, **kind}
    required = [name for name in content.files if name not in content.optional]
    form = {
        **schema,
        "properties": {**texts, **files},
        "required": [*schema.get("required", []), *required],
    }
    return {"schema": form, "encoding": {name: {"contentType": _PICTURES} for name in content.files}}


def _without_null(field: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in field.items() if name not in ("anyOf", "default")}
    kinds = [each for each in field.get("anyOf", []) if each != {"type": "null"}]
    return kept | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found = []
    for place, model in (
        ("path", operation.path_model),
        ("query", operation.query),
        ("header", operation.headers),
    ):
        fields = {} if model is None else model.model_json_schema()["properties"]
        for name, field in fields.items():
            schema = _without_null(field)
            description = schema.pop("description")
            found.append(
                {
                    "name": name,
                    "in": place,
                    "required": place == "path",
                    "description": description,
                    "schema": schema,
                }
            )
    return found


def _error(status: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": _ERRORS[status],
        "content": {"application/json": {"schema": _ref(ErrorAnswer)}},
    }
    if status in _RETRIED:
        described["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
        }
    if status == 405:
        described["headers"] = {"Allow": {"description": "Methods.", "schema": {"type": "string"}}}
    return described
