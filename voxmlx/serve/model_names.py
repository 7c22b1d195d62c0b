"""Names of models that a client may send: the server's own, and those of services.

Clients that were written for OpenAI or Mistral often cannot send another name than
their service's. So those names stand for the model that is here. Any other name is a
mistake, or asks for another model: an error says so.
"""

import re
from collections.abc import Collection

from voxmlx.config import BASE_MODEL
from voxmlx.errors import RequestError
from voxmlx.serve.json_object import MAX_TEXT_CHARS

__all__ = ["check_model", "read_model_name"]

# Speech to text at OpenAI and at Mistral, dated versions included; and the model itself
# by its name on the Hub, which clients of vLLM send. No name of what is not done here:
# speakers are not told apart, and nothing is spoken.
_SERVICES = re.compile(
    r"whisper-1"
    r"|gpt-(?![\w.-]*diarize)(?=[\w.-]*(transcribe|whisper|realtime))[\w.-]+"
    r"|voxtral-mini-(?![\w.-]*tts)[\w.-]+"
    rf"|{re.escape(BASE_MODEL)}"
)


def check_model(
    name: str | None, served: Collection[str], param: str = "model"
) -> None:
    """Raise RequestError (404) for a name that is not `served`, nor a service's.

    None is of a client that names no model.
    """
    if name is None or name in served or _SERVICES.fullmatch(name):
        return
    shown = " or ".join(repr(one) for one in served)
    raise RequestError(
        f"the model {name[:80]!r} is not served, {shown} is; send that name, or none",
        code="model_not_found",
        param=param,
        status=404,
    )


def read_model_name(text: str) -> str:
    """Return a name that clients can send. Raises ValueError for any other."""
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError(
            f"{text!r} is no name: it is empty, begins or ends with white space, or has "
            "a control character"
        )
    if len(text) > MAX_TEXT_CHARS:
        raise ValueError(
            f"a name of {len(text)} characters, expected at most {MAX_TEXT_CHARS}"
        )
    return text
