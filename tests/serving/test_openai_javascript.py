"""OpenAI's JavaScript client against a server as users start it.

npm installs it into pytest's temporary folder; without Node.js, or what npm needs, the tests are skipped.
COGVIEW_OPENAI_JS="6.49.0 latest" takes other versions.
"""

import json
import os
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from live import LiveServer

VERSIONS = os.environ.get("COGVIEW_OPENAI_JS", "6.49.0 7.59.0").split()


@pytest.fixture(scope="module", params=VERSIONS)
def told(
    request: pytest.FixtureRequest, server: LiveServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Return what the client was answered."""
    folder = tmp_path_factory.mktemp("node")
    _install(f"openai@{request.param}", folder)
    script = Path(__file__).parent / "openai_client.mjs"
    done = subprocess.run(
        ["node", script, server.url, folder], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _install(package: str, folder: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    (folder / "package.json").write_text('{"private": true}')
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--fetch-retries=0"]
    command = ["npm", "install", *options, "--fetch-timeout=20000", package]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm took too long for {package}")
    if done.returncode:
        pytest.skip(f"npm has no {package}: {done.stderr.strip().splitlines()[-1:]}")


@pytest.mark.slow
def test_pictures_are_drawn(told: dict[str, Any]) -> None:
    drawn = told["drawn"]
    assert [set(each) for each in drawn["data"]] == [{"b64_json", "revised_prompt", "seed"}] * 2
    assert [each["seed"] for each in drawn["data"]] == [7, 8]
    assert all(b64decode(each["b64_json"])[8:12] == b"WEBP" for each in drawn["data"])
    assert drawn["usage"]["output_tokens"] == 2 * 16 * 16
    assert drawn["size"] == "128x128"


def test_a_url_is_fetched(told: dict[str, Any]) -> None:
    assert told["fetched"] == {"status": 200, "type": "image/png"}


def test_a_stream_ends_with_the_picture(told: dict[str, Any]) -> None:
    *partial, last = told["events"]
    assert [each["type"] for each in partial] == ["image_generation.partial_image"] * len(partial)
    assert len(partial) <= 1
    assert last["type"] == "image_generation.completed"
    assert last["seed"] == 7
    assert min(each["b64_json"] for each in told["events"]) > 0


def test_a_picture_is_varied(told: dict[str, Any]) -> None:
    assert len(told["edited"]["data"]) == 2


def test_models_are_listed(told: dict[str, Any]) -> None:
    assert told["models"][0]["id"] == "cogview-bundled"


def test_errors_are_of_their_classes(told: dict[str, Any]) -> None:
    refused = {"name": "BadRequestError", "status": 400, "type": "invalid_request_error", "has_id": True}
    assert told["transparent"] == refused | {"param": "background", "code": "invalid_value"}
    assert told["size"] == refused | {"param": "size", "code": "invalid_value"}
    assert told["missing"]["name"] == "NotFoundError"
    assert told["missing"]["code"] == "model_not_found"
    assert told["timedOut"]["name"] == "APIConnectionTimeoutError"
    assert told["aborted"]["name"] == "APIUserAbortError"
