"""What is read off the code at each build: the flags of every tool, what every recipe's header says, and formulas."""
import contextlib
import html
import io
import os
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from docutils import nodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = re.compile(r'\{([\w,-]+)\}\s+\.\.\.|^    (\w+)(?:\s{2,}|$)', re.MULTILINE)
"""The subcommands in a help: all in the usage, or one a line."""
WRAPPED = 95
"""Characters of a comment's line that is not the last of its sentence."""
INTERNAL = {'metafiles', 'dist_run'}
"""Tools for whoever changes recipes, or for other tools."""


def show_help(tool: Path, *command: str) -> str:
    """Return what a tool prints for --help, as in a terminal of 100 columns."""
    text = io.StringIO()
    environment = dict(COLUMNS='100', NO_COLOR='1')
    with (patch.object(sys, 'argv', [f'tools/{tool.name}', *command, '--help']), patch.dict(os.environ, environment),
          contextlib.redirect_stdout(text), contextlib.suppress(SystemExit)):
        runpy.run_path(str(tool), run_name='__main__')
    if not text.getvalue().startswith('usage:'):
        raise RuntimeError(f'{tool.name} {" ".join(command)} --help printed no usage')
    return text.getvalue().strip()


def about(tool: Path) -> str:
    """Return the first comment of a shell script."""
    lines = tool.read_text(encoding='utf-8').splitlines()[1:]
    comment = [line.lstrip('# ') for line in lines[:lines.index(next(x for x in lines if not x.startswith('#')))]]
    return ' '.join(comment)


def tools_page() -> Iterator[str]:
    """Yield the page of the tools."""
    yield '# Command-line tools\n\nWhat each tool prints for `--help`.'
    for tool in sorted((ROOT / 'tools').iterdir()):
        if tool.stem in INTERNAL or tool.suffix not in ('.py', '.sh'):
            continue
        yield f'## tools/{tool.name}'
        if tool.suffix == '.sh':
            yield f'`tools/{tool.name}`: {about(tool)}.'
            continue
        usage = show_help(tool)
        yield f'```text\n{usage}\n```'
        found = dict.fromkeys(
            command for several, one in COMMANDS.findall(usage) for command in (several or one).split(','))
        for command in {'benchmark': ['worker']}.get(tool.stem, found):
            yield f'### {tool.stem} {command}\n\n```text\n{show_help(tool, command)}\n```'


def header(config: Path) -> list[str]:
    """Return the comment at the top of a config, without the command."""
    lines = []
    for line in config.read_text(encoding='utf-8').splitlines():
        if not line.startswith('#'):
            break
        lines.append(line.lstrip('# '))
    return [line for line in lines if not re.match(r'(python tools|tools)/|python ', line)]


def configs_page() -> Iterator[str]:
    """Yield the page of the recipes."""
    yield '# Recipes\n\nEvery recipe, and what the comment at its top says: results, and where its rates come from.'
    folders = sorted(path for path in (ROOT / 'configs').iterdir() if path.is_dir() and path.name != '_base_')
    for folder in folders:
        yield f'## configs/{folder.name}'
        rows = ['| recipe | its header |', '| --- | --- |']
        for config in sorted((*folder.glob('*.py'), *folder.glob('*.yaml'))):
            text = ''.join(f'{line} ' if len(line) > WRAPPED else f'{line}; ' for line in header(config)).rstrip('; ')
            text = re.sub(r'([|<*])', r'\\\1', text)
            rows.append(f'| `{config.name}` | {text} |')
        yield '\n'.join(rows)


def write_pages(app: Sphinx) -> None:
    """Write the pages that differ from what is there."""
    folder = Path(app.srcdir, 'reference')
    folder.mkdir(exist_ok=True)
    for name, parts in (('tools', tools_page()), ('configs', configs_page())):
        path, text = folder / f'{name}.md', '\n\n'.join(parts) + '\n'
        if not path.exists() or path.read_text(encoding='utf-8') != text:
            path.write_text(text, encoding='utf-8')


def write_formula(translator: Any, node: nodes.Element) -> None:
    """Show a formula of a docstring as it is written: MathJax would need a network."""
    tag = 'pre' if isinstance(node, nodes.math_block) else 'code'
    translator.body.append(f'<{tag} class="formula">{html.escape(node.astext())}</{tag}>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict:
    """Register the extension."""
    app.add_html_math_renderer('as_written', (write_formula, None), (write_formula, None))
    app.connect('config-inited', lambda app, _: write_pages(app))
    return dict(parallel_read_safe=True, parallel_write_safe=True)
