"""Upload to the Hugging Face hub."""

import tempfile
from pathlib import Path
from typing import TypedDict

import torch

from cogview.models.folder import save_pretrained
from cogview.models.pretrained import PretrainedModel


class HubArguments(TypedDict, total=False):
    """Options of an upload.

    Args:
        commit_message: "Upload a CogView model" by default.
        private: whether a new repository is private; the owner's default if None.
        token: of the account; the logged-in one by default.
        branch: to upload to; the main branch by default.
        create_pr: upload as a pull request instead.
        dtype: of the transformer's weights; unchanged by default.
    """

    commit_message: str
    private: bool | None
    token: str | None
    branch: str | None
    create_pr: bool | None
    dtype: torch.dtype | None


def push_to_hub(
    model: PretrainedModel,
    repo_id: str,
    *,
    commit_message: str = "Upload a CogView model",
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Upload a model, and return the URL of the commit; arguments are those of `HubArguments`."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_pretrained(model, folder, dtype)  # first, so that a refusal leaves no empty repository
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=branch,
            create_pr=create_pr,
        )
    return str(commit.commit_url)
