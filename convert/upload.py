"""Puts a converted model on the Hugging Face Hub."""

from pathlib import Path

from voxmlx.errors import OutputError

__all__ = ["check_token", "upload"]


def check_token() -> None:
    """Raises OutputError when nobody is logged in to the Hub."""
    from huggingface_hub import get_token

    if not get_token():
        raise OutputError(
            "no token for the Hugging Face Hub; run `hf auth login`, or set HF_TOKEN, "
            "before --upload"
        )


def upload(directory: Path, repo_id: str) -> str:
    """Create `repo_id` if need be and upload the directory; returns its address.

    Raises OutputError; the directory stays as it is, and the upload can be repeated.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        address = api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=directory,
            commit_message="Upload a model converted by voxmlx",
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise OutputError(
            f"uploading {directory} to {repo_id} failed: {reason}; the model is whole, "
            f"so `hf upload {repo_id} {directory}` tries again"
        ) from None
    return str(address)
