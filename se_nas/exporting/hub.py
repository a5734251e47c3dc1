"""An exported folder as a repository of the Hugging Face hub, in the layout of timm's models there.

The token is the hub's own affair: ``HF_TOKEN``, or what ``hf auth login`` has stored. None is asked for or kept here.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from se_nas.errors import ConfigError, SeNasError

_LONGEST = 160
_NOT_ALLOWED = (401, 403)


class Repository:
    """A model repository; made if there is none, so that name, token and network are known to be right.

    Args:
        name: ``OWNER/NAME``, or ``NAME`` of the token's owner.

    Raises:
        ConfigError: the name is not one of the hub's, or there is no token.
        SeNasError: the hub refuses, or does not answer.
    """

    def __init__(self, name: str) -> None:
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ConfigError(f"push-to-hub is {name!r}; give OWNER/NAME, such as me/resnet50-se.") from error
        self._token = get_token()
        if not self._token:
            raise ConfigError(
                "push-to-hub needs a token with write access: set HF_TOKEN, or run `hf auth login` once."
            )
        self._api = HfApi(token=self._token)
        try:
            self.name = self._api.create_repo(name, exist_ok=True).repo_id
        except Exception as error:
            raise self._refused(name, error) from None

    def upload(self, folder: Path) -> str:
        """Commit an exported folder; returns the address of the repository.

        Raises:
            SeNasError: the hub refuses, or does not answer.
        """
        try:
            self._api.upload_folder(
                repo_id=self.name, folder_path=folder, commit_message="Network exported by se-nas"
            )
        except Exception as error:
            raise self._refused(self.name, error, f" The export is in {folder}.") from None
        return f"{self._api.endpoint}/{self.name}"

    def _refused(self, name: str, error: Exception, rest: str = "") -> SeNasError:
        """What a person can do about it, in one sentence without the token."""
        # Whatever library carries the requests has errors of its own; those of the hub have a response.
        response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
        if response is not None and response.status_code in _NOT_ALLOWED:
            reason = f"the hub does not let this token write there ({response.status_code})"
        else:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            text = (lines[0] if lines else "").replace(self._token or "\0", "***").rstrip(".")
            cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
            reason = f"{type(error).__name__}: {cut}" if cut else type(error).__name__
        return SeNasError(f"{name} cannot be pushed to {self._api.endpoint}: {reason}.{rest}")
