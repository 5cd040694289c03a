"""MMPretrain's data set of class folders or list files, in which nothing is passed over without a word."""
import os.path as osp
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.fileio import get_file_backend
from mmengine.logging import MMLogger
from mmpretrain.datasets import CustomDataset as MMPretrainCustomDataset

from mmspt.registry import DATASETS

from .class_names import composed, number_folders, quote
from .lists import DataError, read_items

EXTENSIONS = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.webp', '.bmp', '.tif', '.tiff', '.jp2', '.pbm', '.pgm',
              '.ppm', '.pnm')
"""Endings of the images that Pillow and OpenCV read in every version that is supported."""


def scan_folders(root: str, is_image: Callable[[str], bool]) -> tuple[list[str], dict[str, list[str]], str]:
    """Look for images in class folders.

    Args:
        root (str): The folder of the class folders.
        is_image (Callable): Whether a file's name is that of an image.

    Returns:
        tuple: The folders that are not hidden; for those with images, their images in order; what was left out, as
        text.
    """
    backend = get_file_backend(root, enable_singleton=True)

    def entries(folder: str, **kwargs: bool) -> list[str]:
        return sorted(backend.list_dir_or_file(backend.join_path(root, folder), **kwargs))

    found = entries('', list_file=False)
    folders = [folder for folder in found if not folder.startswith('.')]
    images: dict[str, list[str]] = {}
    others = Counter('beside the class folders' for file in entries('', list_dir=False) if is_image(file))
    for folder in folders:
        files = entries(folder, list_dir=False, recursive=True)
        shown = [file for file in files if not any(part.startswith('.') for part in Path(file).parts)]
        images[folder] = [file for file in shown if is_image(file)]
        others.update(osp.splitext(file)[1] or 'without ending' for file in shown if not is_image(file))
        others.update(['in hidden folders'] * (len(files) - len(shown)))
    empty, hidden = [name for name in folders if not images[name]], [name for name in found if name.startswith('.')]
    parts = [f'folders without images {quote(empty)}'] * bool(empty)
    parts += [f'hidden folders {quote(hidden)}'] * bool(hidden)
    if others:
        counts = ', '.join(f'{count:,} {kind}' for kind, count in others.items())
        parts.append(f'files: {counts} (extensions=[...] names the endings to read)')
    return folders, {folder: images[folder] for folder in folders if images[folder]}, '; '.join(parts)


@DATASETS.register_module()
class CustomDataset(MMPretrainCustomDataset):
    """MMPretrain's data set of the same name, with labels that follow names and lists that are checked by line.

    Class folders: hidden files and folders, class folders without images and files of other endings are left out, and
    one warning says which. ``metainfo.classes`` numbers the folders of these names (case, spaces, - and _ do not
    count); if none of its names is a folder's, they are display names of the folders in the order of these.
    ``mmspt.ClassNamesHook`` numbers validation and test sets as the training set, so these may lack classes.

    List files: see :func:`mmspt.datasets.lists.read_items`.

    Args:
        **kwargs: Those of MMPretrain. ``extensions`` defaults to :data:`EXTENSIONS`.

    Raises:
        DataError: No image, class folders and ``metainfo.classes`` that do not fit, or a line that cannot be read.
    """
    _labels: Sequence[int] = ()  # what a label of the files has become

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{'extensions': EXTENSIONS, **kwargs})

    def load_data_list(self) -> list[dict]:
        """Read list file or folders."""
        if not self.ann_file or not self.with_label:
            return super().load_data_list()
        join = get_file_backend(self.img_prefix, enable_singleton=True).join_path
        return [dict(img_path=join(self.img_prefix, path), gt_label=label)
                for path, label in read_items(self.ann_file)]

    def _find_samples(self) -> list:
        if not self.with_label:
            return super()._find_samples()
        folders, images, left_out = scan_folders(self.img_prefix, self.is_valid_file)
        if not images:
            raise DataError(f"class folders must hold images, but those in '{self.img_prefix}' do not (left out: "
                            f'{left_out or "nothing"}): correct data_root and data_prefix, or name the endings in '
                            'extensions')
        if left_out:
            MMLogger.get_current_instance().warning(f"Left out of '{self.img_prefix}': {left_out}")
        self.folder_to_idx = self._number(folders, list(images))
        return [(f'{folder}/{file}', self.folder_to_idx[folder]) for folder in images for file in images[folder]]

    def _number(self, visible: list[str], kept: list[str]) -> dict[str, int]:
        """Number the class folders."""
        names = self.CLASSES
        if names is None:
            self._metainfo['classes'] = names = tuple(kept)
        labels = number_folders(kept, names)
        if labels is None:
            shown = next((folders for folders in (visible, kept) if len(folders) == len(names)), None)
            if shown is None:
                raise DataError(f"metainfo.classes must name the class folders in '{self.img_prefix}', or be as many, "
                                f'but {quote(composed(names))} are {len(names)} and {quote(kept)} are {len(kept)}: '
                                'list the names of the folders, in any order')
            labels = {folder: label for label, folder in enumerate(shown)}
        return labels

    def number_anew(self, names: Sequence[Any]) -> bool:
        """Let the labels of class folders follow another list of names; return False if it lacks one of them."""
        places = {name: label for label, name in enumerate(composed(names))}
        own = composed(self.metainfo['classes'])
        if self.ann_file or not set(own) <= set(places):
            return False
        labels = [places[name] for name in own]
        self._labels = [labels[label] for label in self._labels] if self._labels else labels
        self.folder_to_idx = {folder: labels[label] for folder, label in self.folder_to_idx.items()}
        return True

    def get_data_info(self, idx: int) -> dict:
        """Return an image's path and label."""
        info = super().get_data_info(idx)
        if self._labels:
            info['gt_label'] = self._labels[info['gt_label']]
        return info
