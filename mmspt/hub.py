"""Checkpoints and packs on the Hugging Face hub, by addresses: hf://ORG/NAME[@REVISION][/FILE] and timm://NAME[@REVISION]."""
import json
import os
import os.path as osp
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.logging import MMLogger

from mmspt.public_checkpoints import digest

SCHEMES = r'(hf|timm)://'
PACK = 'pack.safetensors'
"""What a prompt pack is called that is alone in its repository."""
FILES = ('model.safetensors', 'model.safetensors.index.json', 'open_clip_model.safetensors', 'pytorch_model.bin',
         'open_clip_pytorch_model.bin', PACK)
"""What a repository's weights are called, the first that is there counts."""
BESIDE = ('config.json', 'preprocessor_config.json')
"""What else is fetched, if it is there."""
ADDRESS = re.compile(r'(?:hf://(?P<org>[^/@]+)|timm:/)/(?P<name>[^/@]+)'
                     r'(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<file>.+))?')


class WrongFile(ValueError):
    """A file is not what its publisher says."""


class Place(NamedTuple):
    """A file of a repository; None is one of :data:`FILES`."""
    repository: str
    revision: str | None
    file: str | None


def parse(address: str) -> Place:
    """Read an address.

    Raises:
        ValueError: It is none.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise ValueError(f"an address on the hub must be hf://ORG/NAME[@REVISION][/FILE] or timm://NAME, got "
                         f"'{address}': correct it")
    return Place(f'{found["org"] or "timm"}/{found["name"]}', found['revision'], found['file'])


def is_address(checkpoint: str) -> bool:
    """Whether a text is an address on the hub."""
    return re.match(SCHEMES, checkpoint) is not None


def path_beside(checkpoint: str, name: str) -> str | None:
    """Return the path of a small file that a checkpoint's repository or folder may have; None if it is not at hand."""
    if not is_address(checkpoint):
        return None if '://' in checkpoint else osp.join(osp.dirname(osp.expanduser(checkpoint)), name)
    place = parse(checkpoint)
    errors = _package(checkpoint).errors
    try:
        return _fetch(place, osp.join(osp.dirname(place.file or ''), name))
    except (errors.EntryNotFoundError, errors.HfHubHTTPError, OSError):
        return None  # where it matters, the weights are not at hand either, and their loading says so


def local_path(checkpoint: str, files: Sequence[str] = FILES, beside: Sequence[str] = BESIDE) -> str:
    """Return the path of an address's file in the hub's cache, fetched if it is not there; other names as they are.

    The cache, HF_HUB_OFFLINE and the token are huggingface_hub's. The SHA-256 of a fetched file is compared with what
    the hub publishes. What is :data:`BESIDE` comes along, and the parts of a model in parts.

    Args:
        checkpoint (str): A path or an address.
        files (Sequence[str]): Where the address names no file, the first of these that is there. Defaults to
            :data:`FILES`.
        beside (Sequence[str]): What else is fetched if it is there. Defaults to :data:`BESIDE`.

    Raises:
        ImportError: huggingface_hub is not installed.
        OSError: It cannot be fetched, and is not in the cache.
        ValueError: See :func:`parse`; the file is not what the hub publishes.
    """
    if not is_address(checkpoint):
        return checkpoint
    place = parse(checkpoint)
    errors = _package(checkpoint).errors
    names = (place.file, ) if place.file else tuple(files)
    unknown: Exception | None = None
    try:
        for name in names:
            try:
                path = _fetch(place, name)
            except errors.EntryNotFoundError as error:
                if isinstance(error, errors.LocalEntryNotFoundError) and not _is_known_to_lack(place, name):
                    unknown = error  # offline: another file counts only if it is a backbone's, too
                if name == names[-1]:
                    raise unknown or error from None
                if unknown is not None and names[names.index(name) + 1] == PACK:
                    raise unknown from None
                continue
            if name.endswith('.index.json'):
                with open(path, encoding='utf-8') as file:
                    for part in dict.fromkeys(json.load(file)['weight_map'].values()):
                        _fetch(place, osp.join(osp.dirname(name), part))
            break
        for other in beside if name != PACK else ():
            _fetch_config(place, osp.join(osp.dirname(name), other))
    except WrongFile:
        raise
    except Exception as error:  # of many classes, not all of huggingface_hub's own
        from huggingface_hub import constants
        raise OSError(
            f"'{checkpoint}' cannot be fetched ({_reason(error)}): correct the address, log in if the repository asks "
            f'for it (hf auth login), fetch {" or ".join(name for name in names if name != PACK or len(names) == 1)} '
            f'of {place.repository} elsewhere{", with " + " and ".join(beside) if beside else ""} into one folder and '
            f"name that file, or bring the cache '{constants.HF_HUB_CACHE}' from another machine") from error
    return path


def upload(place: Place, files: Mapping[str, bytes], message: str, private: bool = False) -> str:
    """Put files into a repository in one commit; make the repository if it is not there.

    Args:
        place (Place): The repository, and its branch.
        files (Mapping[str, bytes]): Name -> content.
        message (str): The commit's.
        private (bool): Whether a new repository is. Defaults to False.

    Returns:
        str: Address of the commit.

    Raises:
        ImportError: huggingface_hub is not installed.
        OSError: The hub cannot be reached, or takes no files from here.
    """
    hub = _package(f'hf://{place.repository}')
    try:
        api = hub.HfApi()
        api.create_repo(place.repository, private=private, exist_ok=True)
        if place.revision:
            api.create_branch(place.repository, branch=place.revision, exist_ok=True)
        content = [hub.CommitOperationAdd(name, value) for name, value in files.items()]
        return api.create_commit(place.repository, content, commit_message=message, revision=place.revision).commit_url
    except Exception as error:  # of many classes, not all of huggingface_hub's own
        remedy = 'unset HF_HUB_OFFLINE' if isinstance(error, hub.errors.OfflineModeIsEnabled) else (
            'log in with a token that may write there (hf auth login), and name a repository of your own')
        raise OSError(f"'hf://{place.repository}' takes no files ({_reason(error)}): {remedy}") from error


def _reason(error: Exception) -> str:
    """Return an error's class and the first line of its text."""
    return f'{type(error).__name__}: {([*str(error).splitlines(), ""])[0]:.200}'


def _package(address: str) -> Any:
    """Return huggingface_hub, or say how to get it."""
    try:
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(f"'{address}' needs the package huggingface_hub ({error}): pip install 'mmspt[hub]'"
                          ) from error
    return huggingface_hub


def _fetch_config(place: Place, name: str) -> None:
    """Fetch one of :data:`BESIDE`, which a repository need not have."""
    from huggingface_hub import errors
    if _is_known_to_lack(place, name):
        return
    try:
        _fetch(place, name)
    except errors.LocalEntryNotFoundError:
        MMLogger.get_current_instance().warning(
            f'{name} of {place.repository} is not in the cache and cannot be fetched: if the repository has it, heads, '
            'eps, activation and normalization may be others than it says')
    except errors.EntryNotFoundError:
        pass


def _is_known_to_lack(place: Place, name: str) -> bool:
    """Whether the cache knows that a repository does not have a file."""
    from huggingface_hub import _CACHED_NO_EXIST, constants, try_to_load_from_cache
    known = try_to_load_from_cache(place.repository, name, constants.HF_HUB_CACHE, place.revision)
    return known is _CACHED_NO_EXIST


def _fetch(place: Place, name: str) -> str:
    """Return the path of a file in the cache."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    known = try_to_load_from_cache(place.repository, name, constants.HF_HUB_CACHE, place.revision)
    path = hf_hub_download(place.repository, name, revision=place.revision, cache_dir=constants.HF_HUB_CACHE)
    # a link to a file that is named after its SHA-256, if it is a large one; that may be a link, too, named otherwise
    published = osp.basename(os.readlink(path)) if osp.islink(path) else ''
    if known != path and re.fullmatch('[0-9a-f]{64}', published):
        found = digest(path, 'sha256')
        if found != published:
            raise WrongFile(f"the SHA-256 of '{name}' of {place.repository} must be {published}, but is {found}: "
                            f"remove '{osp.realpath(path)}', and fetch it again")
        MMLogger.get_current_instance().info(f'fetched {name} of {place.repository} to {path}')
    return path
