"""Files of the Hugging Face hub, through its own library: its cache, its tokens, its environment variables."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from effnet.data.storage.reasons import reason
from effnet.weights.fetch.download import DownloadError, matches
from effnet.weights.fetch.origin import Origin


def cached(origin: Origin) -> Path | None:
    """The file in the hub's cache on this disk (``HF_HOME``), if it is there; nobody is asked."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(origin.hub, origin.file, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def download(origin: Origin) -> Path:
    """The file, downloaded to the hub's cache. Raises `DownloadError` with a clear reason."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(origin.hub, origin.file))  # without a network: an answer now, not in 20 seconds
        for name in origin.beside:
            with suppress(EntryNotFoundError):
                hf_hub_download(origin.hub, name)
        path = Path(hf_hub_download(origin.hub, origin.file))
    except GatedRepoError as error:
        raise DownloadError(
            f"{origin.hub} asks for an agreement on its page, and for a login (hf auth login)"
        ) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(f"the hub has no repository {origin.hub}, or shows it to a login only", True) from error
    except EntryNotFoundError as error:
        raise DownloadError(f"{origin.hub} has no file {origin.file}", absent=True) from error
    except Exception as error:  # what the library raises has changed with each of its HTTP clients
        raise DownloadError(reason(error)) from error
    if origin.hash and not matches(path, origin.hash):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise DownloadError("what came is not the published file (its hash differs) and is removed")
    return path
