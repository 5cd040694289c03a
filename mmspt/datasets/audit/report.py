"""All checks of a data set together."""
from collections.abc import Callable
from typing import Any

from ..lists import find_missing
from .findings import (
    Finding,
    check_duplicates,
    check_labels,
    check_missing,
    check_overlap,
    check_readable,
    check_size,
    same_images,
    summarize,
)
from .pixels import decode_all
from .sources import Source


def check_source(source: Source, decode: bool = True, workers: int | None = None,
                 on_image: Callable[[int, int], object] = lambda done, total: None) -> dict[str, Any]:
    """Run every check on a data set.

    Args:
        source (Source): Its splits, as far as they could be read.
        decode (bool): Decode the images, and compare them by their pixels; else by their paths. Defaults to True.
        workers (int | None): Threads that decode. Defaults to None, the number of cores.
        on_image (Callable): Told how many images of how many are decoded. Defaults to nothing.

    Returns:
        dict[str, Any]: 'name', 'splits' (see :func:`.findings.summarize`) and 'findings', fit for JSON.
    """
    splits = [*source.splits, *([source.union] if source.union else [])]
    paths = list(dict.fromkeys(path for split in splits for path, _ in split.items if path not in source.in_memory))
    missing = set(find_missing(paths))
    there = [path for path in paths if path not in missing]
    done = iter(range(1, len(there) + 1))
    decoded = dict(source.in_memory)
    if decode:
        decoded |= decode_all(there, workers, lambda: on_image(next(done), len(there)))
    keys = {path: image.digest for path, image in decoded.items() if image.digest}
    keys |= {} if decode else {path: path for path in there}
    findings = list(source.findings)
    for split in splits:
        findings += [*check_size(split), *check_labels(split), *check_missing(split, missing, source.remedy),
                     *check_readable(split, decoded), *check_duplicates(split, keys)]
    findings += check_overlap(source.splits, keys, source.repeats)
    names = [split.name for split in source.splits]
    if source.union and decode and 'train' in names and 'val' in names:
        findings += same_images(source.union, [source.splits[names.index(name)] for name in ('train', 'val')], keys)
    rows = [dict(summarize(split, decoded if decode else None, missing), status=_status(split.name, findings))
            for split in splits]
    return dict(name=source.name, splits=rows, findings=[finding._asdict() for finding in findings])


def _status(split: str, findings: list[Finding]) -> str:
    faults = sum(split in finding.split.split('/') and not finding.note for finding in findings)
    return f'{faults} faults' if faults > 1 else '1 fault' if faults else 'ok'
