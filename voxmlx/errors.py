"""Every exception voxmlx raises on purpose."""

__all__ = [
    "AudioError",
    "CheckpointError",
    "ConfigError",
    "DelayError",
    "DeviceError",
    "HotwordError",
    "KernelError",
    "OutputError",
    "RequestError",
    "ServerError",
    "SessionError",
    "TextError",
    "TokenizerError",
    "VoxmlxError",
]


class VoxmlxError(Exception):
    """Base of the tree. Its message says what was got, expected, and what to do."""


class AudioError(VoxmlxError):
    """Sound that cannot be read or used: wrong type, shape, file, or values."""


class CheckpointError(VoxmlxError):
    """A model directory or Hub id whose files are missing, damaged or unfit."""


class ConfigError(CheckpointError):
    """A `params.json` with an unknown, missing or impossible entry."""


class TokenizerError(CheckpointError):
    """A `tekken.json` that is missing, damaged or of another vocabulary."""


class DelayError(VoxmlxError):
    """A delay the model was not trained for."""


class DeviceError(VoxmlxError):
    """A microphone, or PortAudio, that is not there or cannot be opened."""


class HotwordError(VoxmlxError):
    """Hot words or replacements that cannot be read or used."""


class KernelError(VoxmlxError):
    """A choice of Metal kernels, VOXMLX_KERNELS, that cannot be followed."""


class SessionError(VoxmlxError):
    """A session that cannot be used so: finished, in use, or in a forked child."""


class TextError(VoxmlxError):
    """A text to align that cannot be read, is empty, or cannot be spelled."""


class OutputError(VoxmlxError):
    """A result that cannot be written where the user asked."""


class RequestError(VoxmlxError):
    """A request that the server refuses.

    `code` names the reason for programs, `param` the field, `status` is HTTP's.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "invalid_request",
        param: str | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.status = status


class ServerError(VoxmlxError):
    """A server that cannot be started, or reached.

    `may_return` says that the same request may succeed a while later.
    """

    def __init__(self, message: str, *, may_return: bool = False) -> None:
        super().__init__(message)
        self.may_return = may_return
