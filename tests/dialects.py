"""One config in each of the dialects that MMEngine reads."""
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry

from mmspt import registry as registries

DIALECTS = ('pure.py', 'dumped.py', 'job.yaml', 'job.json')


class _Class:
    """Prints as the name of a class; ours as another, since MMPretrain may have one of the same name."""

    def __init__(self, found):
        ours = found.__module__.startswith('mmspt.')
        self.name = f'Our{found.__name__}' if ours else found.__name__
        self.line = f'from {found.__module__} import {found.__name__}' + (f' as {self.name}' if ours else '')

    def __repr__(self):
        return self.name


def _find(name):
    """The class that MMEngine builds for a name where MMPretrain's scope is the default."""
    for registry in vars(registries).values():
        if not isinstance(registry, Registry):
            continue
        found = (registry if name.startswith('mmspt.') else registry.parent).get(name)
        if found is not None:
            return found
    raise KeyError(name)


def write_dialect(config, path):
    """Write a config of names as ``path``, whose name is one of DIALECTS; return ``path`` as text."""
    cfg, lines = Config.fromfile(config), set()
    if path.name == 'dumped.py':  # of classes: their import paths
        cfg = Config.fromfile(write_dialect(config, path.with_name('pure.py')))
    if path.name != 'pure.py':
        cfg.dump(str(path))
        return str(path)

    def classes(value, key=None):
        if isinstance(value, dict):
            return {inner: classes(part, inner) for inner, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(map(classes, value))
        if key not in ('type', 'constructor'):
            return value
        found = _Class(_find(value))
        lines.add(found.line)
        return found

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        content = classes(cfg.to_dict())
    path.write_text('\n'.join([*sorted(lines), *(f'{key} = {value!r}' for key, value in content.items())]) + '\n')
    return str(path)
