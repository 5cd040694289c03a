"""The public checkpoints that the recipes name, by their file names; they are fetched if they are not there.

MD5, the first digits as published; addresses from the same tables:

* MAE: README of its authors' code, https://github.com/facebookresearch/mae at 1e4b9e4.
* MoCo-v3: README of Visual Prompt Tuning, https://github.com/KMnP/vpt at 4410440 (its authors' own README,
  https://github.com/facebookresearch/moco-v3, gives none).
* Supervised: timm's file has no published MD5, so it is not fetched.
"""
import hashlib
import os
import os.path as osp
import re
import shutil
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from mmengine.logging import MMLogger

from mmspt.files import written_atomically


class PublicCheckpoint(NamedTuple):
    """Address of a file and the first digits of its MD5, None if they were not published."""
    url: str
    md5: str | None


PUBLIC_CHECKPOINTS = {
    'mae_pretrain_vit_base.pth': PublicCheckpoint(
        'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth', '8cad7c'),
    'mae_pretrain_vit_large.pth': PublicCheckpoint(
        'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_large.pth', 'b8b06e'),
    'mae_pretrain_vit_huge.pth': PublicCheckpoint(
        'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_huge.pth', '9bdbb0'),
    'linear-vit-b-300ep.pth.tar': PublicCheckpoint(
        'https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/linear-vit-b-300ep.pth.tar', '8f39ce'),
    'vit_base_patch16_224.augreg_in21k.safetensors': PublicCheckpoint(
        'https://huggingface.co/timm/vit_base_patch16_224.augreg_in21k/resolve/main/model.safetensors', None),
}


TIMEOUT = 30.
"""Seconds without an answer after which a download ends."""


def fetch(url: str, md5: str | None = None) -> str:
    """Fetch a file into torch's hub folder, once a machine: the first process does, the others wait for it.

    Its name there begins with a digest of the address: many files are called model.safetensors. A file under its plain
    name, as torch and MMEngine keep it, is taken if its content has the digest that is known.

    Args:
        url (str): Its address.
        md5 (str | None): First digits of its MD5. If None, a name such as ``vit-1a2b3c4d.pth`` tells its SHA-256.

    Raises:
        OSError: It cannot be fetched as a whole, or not written.
        ValueError: Its MD5 begins with other digits than ``md5``; it is removed.
    """
    name = osp.basename(urlsplit(url).path)
    plain = osp.join(torch.hub.get_dir(), 'checkpoints', name)
    path = osp.join(osp.dirname(plain), f'{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}')
    in_name = re.search(r'-([0-9a-f]{8,64})\.', name)
    if not osp.isfile(path) and osp.isfile(plain) and (
            (md5 and digest(plain, 'md5').startswith(md5))
            or (in_name and digest(plain, 'sha256').startswith(in_name[1]))):
        return plain
    if not osp.isfile(path):  # what is there needs no lock: the folder may be read-only
        os.makedirs(osp.dirname(path), exist_ok=True)
        with FileLock(f'{path}.lock'):
            if not osp.isfile(path):
                _download(url, path, md5)
    return path


def _download(url: str, path: str, md5: str | None) -> None:
    try:
        with (urlopen(Request(url, headers={'User-Agent': 'mmspt'}), timeout=TIMEOUT) as source,
              written_atomically(path) as beside, open(beside, 'wb') as file):
            if source.headers.get_content_type() == 'text/html':
                raise OSError("it is a web page: give the file's own address (of Hugging Face with /resolve/ in place "
                              'of /blob/)')
            length = source.headers['Content-Length'] or ''
            MMLogger.get_current_instance().info(f"fetching {url} ({length or 'unknown'} bytes) to '{path}'")
            shutil.copyfileobj(source, file, 2**20)
            file.flush()
            if length.isdigit() and file.tell() != int(length):  # urllib raises nothing
                raise OSError(f'{file.tell()} of {length} bytes came')
            found = digest(beside, 'md5') if md5 else ''
            if md5 and not found.startswith(md5):
                raise ValueError(f'its MD5 must begin with {md5}, but is {found}, so it was removed')
    except HTTPException as error:
        raise OSError(str(error)) from error


def digest(path: str, kind: str) -> str:
    """Return a file's digest of a kind that hashlib knows, as hexadecimal text."""
    digest = hashlib.new(kind)
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def find_checkpoint(filename: str) -> str:
    """Find the file that a local path stands for.

    A missing file with the name of a public checkpoint is that checkpoint in torch's hub folder; it is fetched if it is
    not there either.

    Raises:
        FileNotFoundError: There is none, and none can be fetched; the message says what to put where.
    """
    filename = osp.expanduser(filename)
    if osp.isfile(filename):
        return filename
    name = osp.basename(filename)
    if name not in PUBLIC_CHECKPOINTS:
        raise FileNotFoundError(f"checkpoint '{filename}' is not a file: give the path of an existing file "
                                '(init_cfg.checkpoint, load_from or the command line)')
    url, md5 = PUBLIC_CHECKPOINTS[name]
    in_hub = osp.join(torch.hub.get_dir(), 'checkpoints', name)
    reason = 'without a published hash it is not fetched'
    try:
        if md5 is not None or osp.isfile(in_hub):
            path = in_hub if md5 is None else fetch(url, md5)
            MMLogger.get_current_instance().info(f"checkpoint '{filename}' is not a file: '{path}' takes its place")
            return path
    except (OSError, ValueError) as error:
        reason = f'fetching it failed ({error})'
    known = f' (its MD5 begins with {md5})' if md5 else ''
    raise FileNotFoundError(
        f"checkpoint '{filename}' is not a file, and {reason}: fetch {url}{known} elsewhere and put it at "
        f"'{osp.abspath(filename)}'")
