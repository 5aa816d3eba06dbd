"""OpenAPI 3.1 description of the server, built from the table of operations."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import cogview
from cogview.serving.messages import ModelFacts
from cogview.serving.middleware import is_open
from cogview.serving.operations import Content, Events, File, Form, Json, Operation
from cogview.serving.options import ServerOptions
from cogview.serving.responses import ErrorAnswer
from cogview.serving.schemas import Sampling

_ERRORS = {
    400: "The request is invalid: the message says why, `param` names the field.",
    401: "An API key is needed.",
    403: "The host name or origin is not allowed, or the job is another client's.",
    404: "There is no such resource, or it has expired.",
    405: "The address does not allow that method.",
    408: "The request did not arrive in time.",
    413: "The request is too large.",
    415: "The body has the wrong media type.",
    429: "The queue is full, or too much is being uploaded.",
    500: "The server failed; its log says why.",
    503: "The model is being loaded, or the server is shutting down.",
}
_RETRIED = (429, 503)
_PICTURES = "image/png, image/jpeg, image/webp, image/gif, image/bmp, image/tiff"
_REF = "#/components/schemas/{model}"
_DESCRIPTION = """\
OpenAI's images API, plus upscaling, captions, ranking and stored jobs. Unknown fields are ignored. Errors have a
message, a type, the invalid field and a code. Requests under /v1 are cancelled when the client disconnects; jobs under
/api/jobs are stored and go on."""


def document(
    operations: Sequence[Operation], options: ServerOptions, facts: ModelFacts | None
) -> dict[str, Any]:
    """Build the description.

    Args:
        operations: all operations.
        options: limits for clients.
        facts: properties of the model; None while it loads.
    """
    models = _models(operations)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas = definitions["$defs"]
    for model in models:
        if issubclass(model, Sampling):
            _apply_limits(schemas[model.__name__], options, facts)
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
    """Return the schemas of bodies and answers; those of parameters are written inline."""
    models: dict[type[BaseModel], None] = {ErrorAnswer: None}
    for operation in operations:
        for content in (*operation.bodies, *(each for all_ in operation.answers.values() for each in all_)):
            if isinstance(content, Json | Form):
                models[content.model] = None
            elif isinstance(content, Events):
                models |= dict.fromkeys(content.models)
    return list(models)


def _apply_limits(schema: dict[str, Any], options: ServerOptions, facts: ModelFacts | None) -> None:
    """Add the limits of this server and its model to a schema."""
    fields = schema["properties"]
    fields["prompt"]["maxLength"] = options.max_text_characters
    for name, most in (
        ("n", options.max_pictures),
        ("batch_size", options.max_pictures),
        ("n_iter", options.max_pictures),
        ("candidates", options.max_candidates),
    ):
        if name in fields:
            _integer(fields[name])["maximum"] = most
    if facts is not None and "size" in fields:
        sizes = [f"{side}x{side}" for side in facts.sizes]
        fields["size"] |= {"anyOf": [{"enum": [*sizes, "auto"]}, {"type": "null"}]}


def _integer(field: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = next(each for each in field["anyOf"] if each["type"] == "integer")
    return schema


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
    """Describe a body by media type."""
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
    """Describe an event of a stream: OpenAPI 3.1 does not define this, but tools expect it."""
    payload = {
        "contentMediaType": "application/json",
        "contentSchema": {"oneOf": [_ref(model) for model in content.models]},
    }
    data = {"type": "string", "anyOf": [payload, {"const": "[DONE]"}]}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": data},
    }


def _form(content: Form, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a form: text fields, which cannot be null, and files."""
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
    schema = {name: value for name, value in field.items() if name not in ("anyOf", "default")}
    kinds = [each for each in field.get("anyOf", []) if each != {"type": "null"}]
    return schema | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters = []
    for place, model in (
        ("path", operation.path_model),
        ("query", operation.query),
        ("header", operation.headers),
    ):
        fields = {} if model is None else model.model_json_schema()["properties"]
        for name, field in fields.items():
            schema = _without_null(field)
            description = schema.pop("description")
            parameters.append(
                {
                    "name": name,
                    "in": place,
                    "required": place == "path",
                    "description": description,
                    "schema": schema,
                }
            )
    return parameters


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
