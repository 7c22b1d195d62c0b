"""The API's description: valid, whole, and true."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Mount, Route, WebSocketRoute

import voxmlx
from tests.serve.loopback import PATIENCE_S, Loopback, serving
from tests.serve.scripts import served
from tests.serve.test_requests import TRANSCRIPTIONS, wav
from tests.sounds import speech_like
from voxmlx import Checkpoint
from voxmlx.serve import upload_fields
from voxmlx.serve.docs_page import docs_page
from voxmlx.serve.openapi_document import openapi_document
from voxmlx.serve.operations import OPERATIONS, Operation
from voxmlx.serve.upload_fields import FIELDS, FormFields, read_params

DOCUMENT = openapi_document(OPERATIONS, needs_key=True)
FORM = DOCUMENT["paths"][TRANSCRIPTIONS]["post"]["requestBody"]["content"][
    "multipart/form-data"
]["schema"]
ROOMS = [Path(voxmlx.__file__).parent / room for room in ("serve", "web")]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Checkpoint) -> Iterator[Loopback]:
    with serving(tiny_checkpoint, keys=("secret",)) as server:
        yield server


@pytest.fixture
def client(tiny: Loopback) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer secret"}
    with httpx.Client(
        base_url=tiny.http, timeout=PATIENCE_S, headers=headers
    ) as client:
        yield client


@pytest.mark.parametrize("needs_key", [False, True])
def test_the_description_is_valid_openapi_3_1(needs_key: bool) -> None:
    document = openapi_document(OPERATIONS, needs_key=needs_key)
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(json.loads(json.dumps(document))).validate()


def test_a_description_that_is_wrong_would_be_noticed() -> None:
    wrong = json.loads(json.dumps(DOCUMENT))
    wrong["paths"][TRANSCRIPTIONS]["post"]["responses"] = {"200": {}}
    assert list(OpenAPIV31SpecValidator(wrong).iter_errors())


def test_every_route_is_described_and_nothing_else(tiny: Loopback) -> None:
    routes: set[tuple[str, str]] = set()
    for route in tiny.service.routes():
        match route:
            case WebSocketRoute(path=path):
                routes.add((path, "get"))
            case Route(path=path, methods=methods):
                bare = re.sub(r"\{(\w+):\w+\}", r"{\1}", path)
                assert methods is not None
                routes |= {(bare, one.lower()) for one in methods - {"HEAD"}}
            case Mount(path=path):
                routes.add((f"{path}/{{path}}", "get"))
            case _:
                raise AssertionError(route)
    described = {
        (path, method)
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
    }
    assert routes == described
    assert len(described) == len(OPERATIONS)


def test_every_field_that_is_read_is_described_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: set[str] = set()

    class Noted(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            names.add(name)
            return super().__getitem__(name)

    monkeypatch.setattr(upload_fields, "FIELDS", Noted(FIELDS))
    read_params(FormFields({}), served(), "")
    assert names == {name for name, one in FIELDS.items() if one.is_read}
    assert {*FORM["properties"]} == {"file", *FIELDS}
    with pytest.raises(KeyError):
        FormFields({}).text("voice")


def test_values_that_a_field_is_said_to_have_are_taken() -> None:
    for name, one in FIELDS.items():
        for value in one.schema.get("enum", ["x"] if one.is_list else []):
            params = read_params(FormFields({name: [str(value)]}), served(), "")
            assert params.name in FIELDS["response_format"].schema["enum"]


def test_every_status_that_an_error_has_is_described() -> None:
    statuses = {400}  # of a RequestError that says none
    for path in (path for room in ROOMS for path in room.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.keyword(arg="status", value=ast.Constant(value=int(status))):
                    statuses.add(status)
                case _:
                    pass
    described = {
        int(status)
        for methods in DOCUMENT["paths"].values()
        for one in methods.values()
        for status in one["responses"]
    }
    assert statuses <= described
    assert described <= statuses | {101, 200}


def checked(operation: dict[str, Any], answer: httpx.Response) -> None:
    """An answer is of a status, a type and a schema that the description has."""
    described = operation["responses"][str(answer.status_code)]
    kind = answer.headers["content-type"].partition(";")[0]
    content = described["content"]
    schema = (content.get(kind) or content["*/*"])["schema"]
    if kind == "application/json":
        whole = {**DOCUMENT, **schema}
        jsonschema.Draft202012Validator(whole).validate(answer.json())


def addressed(one: Operation) -> str:
    return one.path.replace("{name:path}", "demo").replace("{path:path}", "app.js")


GETS = [one for one in OPERATIONS if one.method == "GET" and not one.is_websocket]


@pytest.mark.parametrize("one", GETS, ids=lambda one: one.path)
def test_answers_are_as_described(client: httpx.Client, one: Operation) -> None:
    path = re.sub(r":\w+\}", "}", one.path)
    operation = DOCUMENT["paths"][path]["get"]
    answer = client.get(addressed(one))
    assert answer.status_code == 200
    checked(operation, answer)
    bare = client.get(addressed(one), headers={"Authorization": ""})
    assert bare.status_code == (200 if one.is_open else 401)
    if not one.is_open:
        checked(operation, bare)


@pytest.mark.parametrize(
    "fields",
    [
        *(
            {"response_format": name}
            for name in FIELDS["response_format"].schema["enum"]
        ),
        {"response_format": "verbose_json", "include": "logprobs"},
        {"timestamp_granularities": "word", "include": "logprobs"},
        {"stream": "true"},
        {"response_format": "doc"},
        {"diarize": "true"},
        {"file_url": "http://127.0.0.1/a.wav"},
        {"file_id": "a"},
        {"delay_ms": "100"},
        {"model": "whisper-1", "language": "fr", "prompt": "?", "temperature": "0.2"},
    ],
    ids=str,
)
def test_transcripts_and_their_errors_are_as_described(
    client: httpx.Client, fields: dict[str, str]
) -> None:
    sound = wav(speech_like(8_000, seed=5))
    files = {"file": ("a.wav", sound)}
    answer = client.post(TRANSCRIPTIONS, data=fields, files=files)
    is_wrong = {*fields} & {"diarize", "file_url", "file_id", "delay_ms"}
    is_wrong |= {*fields.values()} & {"doc"}
    assert answer.status_code == (400 if is_wrong else 200)
    checked(DOCUMENT["paths"][TRANSCRIPTIONS]["post"], answer)


# ------------------------------------------------------------- the page


def test_the_page_shows_all_of_it_and_needs_nothing_from_elsewhere(
    client: httpx.Client,
) -> None:
    answer = client.get("/docs")
    page = answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    for path, methods in DOCUMENT["paths"].items():
        for method, one in methods.items():
            assert f"{method.upper()} {path}" in page
            assert one["summary"] in page.replace("&#x27;", "'")
    for name in FORM["properties"]:
        assert f"<code>{name}</code>" in page
    assert not re.search(r"<script|style=|https?://|onclick", page)
    for link in re.findall(r'(?:href|src)="([^"]+)"', page):
        if not link.startswith("data:"):
            assert client.get(f"/{link}").status_code == 200, link


def test_no_text_of_the_description_becomes_markup() -> None:
    evil = "<b>&\"'"
    one = Operation(evil, "/x", evil, evil, query={evil: evil}, content={evil: {}})
    page = docs_page(openapi_document([one], needs_key=True))
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_drafts_are_described_where_their_messages_are() -> None:
    paths = DOCUMENT["paths"]
    vllm_and_openai = paths["/v1/realtime"]["get"]["description"]
    assert vllm_and_openai.count("`draft_delay_ms`") == 2
    assert "`conversation.item.input_audio_transcription.draft`" in vllm_and_openai
    mistral = paths["/v1/audio/transcriptions/realtime"]["get"]["description"]
    assert "`transcription.draft`" in mistral
