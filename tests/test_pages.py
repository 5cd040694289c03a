"""README and docs: commands that the tools take, files that are there, snippets that parse, and few words.

What the tutorials run is run when the site is built (tests/test_site.py).
"""
import ast
import importlib
import re
import runpy
import shlex
import sys
from glob import glob
from pathlib import Path

import pytest

from mmspt.config import read_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')), *sorted((ROOT / 'docs' / 'tutorials').glob('*.md'))]
FENCE = re.compile(r'^```(\{code-cell\} )?(\w+)\n(.*?)^```', re.MULTILINE | re.DOTALL)
PLAIN = 'benchmarks/plot.py', 'tools/export_backbone.py'
"""Scripts without a function that reads their arguments."""
MAKE = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
EXTRAS = set(re.findall(r"^        '(\w+)':", (ROOT / 'setup.py').read_text(), re.MULTILINE))


def snippets(page, language):
    """Code of the fences of a language; of cells what IPython hands to Python or bash, without their options."""
    for cell, name, code in FENCE.findall(page.read_text(encoding='utf-8')):
        code = re.sub(r'\A---\n.*?^---\n', '', code, flags=re.MULTILINE | re.DOTALL) if cell else code
        magic = re.match(r'%%(\w+).*\n', code)
        if magic:
            name, code = {'bash': 'bash', 'writefile': 'python'}[magic[1]], code[magic.end():]
        if cell and name == 'python':
            shell = '\n'.join(line[1:] for line in code.splitlines() if line.startswith('!'))
            code = shell if language == 'bash' else '\n'.join(x for x in code.splitlines() if not x.startswith('!'))
            name = language if code else name
        if name == language and code.strip() and not (magic and language == 'python' and code.startswith('title:')):
            yield code


def commands():
    """(page, words) of every command line, without comments, pipes and variables that are set before it."""
    for page in PAGES:
        for code in snippets(page, 'bash'):
            for line in code.replace('\\\n', ' ').splitlines():
                for part in re.split(r'\s(?:\||&&)(?:\s|$)', re.sub(r'(^|\s)#.*', '', line)):
                    words = shlex.split(part.replace('$method', 'spt'))
                    while words and re.fullmatch(r'[A-Z_]+=.*', words[0]):
                        words = words[1:]
                    if words:
                        yield page.name, words


COMMANDS = list(dict.fromkeys((page, tuple(words)) for page, words in commands()))


def test_commands_were_found():
    named = {word for _, words in COMMANDS for word in words[:2]}
    assert len(COMMANDS) > 60
    assert {'tools/train.py', 'tools/pack.py', 'tools/benchmark.py', 'tools/dist_train.sh', 'make'} <= named


@pytest.mark.parametrize(('page', 'words'), COMMANDS, ids=[f'{page}, {" ".join(x)[:60]}' for page, x in COMMANDS])
def test_commands_are_such_as_the_tools_take(page, words, monkeypatch):
    """Flags and subcommands exist, and so does what lies in the repository."""
    for word in words:
        if re.match(r'(configs|tools|benchmarks)/', word):
            assert glob(str(ROOT / re.sub('[A-Z]{2,}', '*', word))), word  # METHOD stands for any
    if words[0] == 'make':
        assert {word for word in words[1:] if '=' not in word} <= MAKE
    elif words[:2] == ('pip', 'install'):
        assert set(re.findall(r'\.\[(\w+)\]', ' '.join(words))) <= EXTRAS
    elif words[0] == 'python' and words[1].startswith(('tools/', 'benchmarks/')):
        config = str(ROOT / 'configs/spt/vit-b_mae_cub.py')
        monkeypatch.setattr(sys, 'argv', [config if word == 'CONFIG' else word for word in words[1:]])
        folder, _, name = words[1].partition('/')
        if words[1] not in PLAIN and folder == 'tools':
            runpy.run_path(str(ROOT / words[1]))['parse_args']()
        elif words[1] not in PLAIN:  # some register classes, which can be done once
            importlib.import_module(name.removesuffix('.py')).parse_args()


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.stem)
def test_snippets_parse(page):
    for code in snippets(page, 'python'):
        assert ast.parse(re.sub(r'\{\{.*?\}\}', 'None', code)).body


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.stem)
def test_named_files_are_there(page):
    """Results, configs, tools, tests and modules of the repository."""
    text = page.read_text(encoding='utf-8')
    for path in re.findall(r'`((?:benchmarks|tests|tools|mmspt|configs|requirements)/[\w./*-]+)`', text):
        assert glob(str(ROOT / re.sub('[A-Z]{2,}', '*', path))), f'{page.name}: {path}'


CONFIGS = [code for page in PAGES for code in snippets(page, 'python')
           if "_base_ = 'mmspt::" in code and 'custom_imports' not in code]


@pytest.mark.parametrize('code', CONFIGS, ids=lambda code: re.sub(r'\W+', ' ', code)[:50])
def test_configs_are_whole(code, tmp_path):
    """As a user would save them, in a folder of their own."""
    (tmp_path / 'mine.py').write_text(code)
    assert read_config(str(tmp_path / 'mine.py')).model.backbone.type == 'mmspt.PromptedViT'


def test_words():
    """15,000 in all without what is generated, README 900, results 2,500."""
    counts = {path.stem: len(path.read_text(encoding='utf-8').split()) for path in PAGES}
    assert sum(counts.values()) <= 15_000
    assert counts['README'] <= 900 and counts['results'] <= 2_500
