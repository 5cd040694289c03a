"""tools/analyze.py as a user calls it, and its page in a real browser."""
import csv
import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from helpers import tool

CHROMIUM = os.environ.get('MMSPT_BROWSER') or next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
# no connection is tried, and none would get anywhere
FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-component-update', '--disable-background-networking', '--disable-sync',
         '--host-resolver-rules=MAP * ~NOTFOUND']
PROBE = """
<pre id="probe"></pre>
<script>
window.onload = () => {
  const figures = [...document.querySelectorAll('figure')].map(figure => {
    const image = figure.querySelector('img'), box = image.getBoundingClientRect();
    return {id: figure.id, title: figure.querySelector('strong').innerText, pixels: image.naturalWidth,
            complete: image.complete, width: box.width, height: box.height,
            ratio: image.naturalWidth / image.naturalHeight,
            caption: figure.querySelector('figcaption').innerText.length};
  });
  const entries = performance.getEntriesByType('resource').map(entry => entry.name);
  const fetched = entries.filter(name => !name.startsWith('data:'));
  const links = [...document.querySelectorAll('nav a')].map(a => document.querySelector(a.hash) !== null);
  document.getElementById('probe').innerText = JSON.stringify({figures, fetched, links,
    wide: document.documentElement.scrollWidth, window: window.innerWidth});
};
</script>
"""


def written(out, *names):
    """Every name as PNG, SVG and CSV, each whole; nothing half-written beside them."""
    for name in names:
        assert Image.open(out / f'{name}.png').size[0] > 500
        assert ElementTree.parse(out / f'{name}.svg').getroot().tag.endswith('svg')
        assert len((out / f'{name}.csv').read_text().splitlines()) > 1
    assert not list(out.rglob('*.tmp'))


@pytest.mark.parametrize('command, names', [
    (['curves', '{spt}', '{spt_seed1}', '{linear}'], ['curves']),
    (['prototypes', '{spt}', '--layers', '1', '4', '--count', '3', '--num-images', '9'],
     ['prototypes_layer_01', 'prototypes_layer_04']),
    (['attention', '{vpt}', '{image}', '{other}', 'val:1', '--direction', 'read', '--layers', '2'],
     ['attention_000_read', 'attention_000_read_2', 'attention_val_1_read']),
    (['tokens', '{shallow}', '--method', 'tsne'], ['tokens_tsne']),
])
def test_each_command_writes_its_pictures(runs, tmp_path, command, names):
    """Images of one name do not replace each other."""
    image, other = (runs.job.data / 'images' / f'class_{i}' / '000.png' for i in (0, 1))
    out, places = tmp_path / 'out', dict(vars(runs), image=image, other=other)
    output = tool('analyze.py', *(part.format(**places) for part in command), '--out', out)
    assert sorted(path.stem for path in out.glob('*.png')) == names
    written(out, *names)
    assert all(str(path) in output for path in out.iterdir())
    assert len({path.read_text() for path in out.glob('*.csv')}) == len(names)


def test_a_folder_of_runs_and_the_default_place(runs, tmp_path):
    for name in ('spt', 'vpt'):
        shutil.copytree(getattr(runs, name), tmp_path / 'runs' / name)
    tool('analyze.py', 'nmi', tmp_path / 'runs')
    written(tmp_path / 'runs' / 'analysis', 'nmi')
    rows = csv.DictReader((tmp_path / 'runs' / 'analysis' / 'nmi.csv').read_text().splitlines())
    assert {row['folder'] for row in rows} == {str(tmp_path / 'runs' / name) for name in ('spt', 'vpt')}
    tool('analyze.py', 'drift', tmp_path / 'runs' / 'spt')
    written(tmp_path / 'runs' / 'spt' / 'analysis', 'drift')


@pytest.mark.parametrize('command, message', [
    (['drift', '{root}'], 'holds none: name the --work-dir of python tools/train.py'),
    (['drift', '{spt}', '--device', 'warp'], 'leave it out'),
    (['attention', '{spt}', '{root}/broken.png'], 'broken.png'),
    (['drift', '{spt}', '--checkpoint', '{root}/absent.pth'], 'absent.pth'),
])
def test_bad_input_is_one_clear_line(runs, tmp_path, command, message):
    (tmp_path / 'broken.png').write_bytes(b'no image')
    output = tool('analyze.py', *(part.format(root=tmp_path, **vars(runs)) for part in command), '--out',
                  tmp_path / 'out', fails=True)
    assert message in output
    assert 'Traceback' not in output


@pytest.fixture(scope='module')
def report(runs, tmp_path_factory):
    """The report of three runs, one of them without prompts, in a folder of its own."""
    out = tmp_path_factory.mktemp('report')
    tool('analyze.py', 'report', runs.spt, runs.spt_seed1, runs.linear, '--out', out)
    return out


def test_the_report_holds_results_settings_and_environment(report, runs):
    page = (report / 'report.html').read_text()
    for text in (runs.spt, runs.linear, 'model.backbone.num_prompts', 'PyTorch', 'one of 2 seeds', 'test accuracy'):
        assert text in unescape(page)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    written(report, 'nmi', 'curves')
    written(report / 'spt-deep-5-prompts', 'drift', 'tokens_pca', *(f'prototypes_layer_0{i}' for i in (1, 2, 4)))


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium (.ci/run installs it); MMSPT_BROWSER names another')
@pytest.mark.parametrize('width', [1280, 500])
def test_the_report_in_a_browser_shows_every_figure(report, tmp_path, width):
    """Every image is loaded and visible, every link leads somewhere, nothing is fetched, nothing sticks out."""
    page = (report / 'report.html').read_text()
    probed = tmp_path / 'report.html'
    probed.write_text(page.replace('</body>', f'{PROBE}</body>'))
    done = subprocess.run([CHROMIUM, *FLAGS, f'--user-data-dir={tmp_path / "profile"}', f'--window-size={width},900',
                           '--dump-dom', probed.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    seen = json.loads(unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    drawn = [str(path.relative_to(report)) for path in Path(report).rglob('*.png')]
    assert len(seen['figures']) == len(drawn) == 2 + 7  # drift, 3 prototypes, tokens, 2 images
    for figure in seen['figures']:
        assert figure['complete'] and figure['pixels'] > 500, figure
        assert 200 < figure['width'] <= seen['window'], figure
        assert figure['width'] / figure['height'] == pytest.approx(figure['ratio'], rel=0.02), figure
        assert figure['title'] and figure['caption'] > 50, figure
    assert seen['links'] and all(seen['links'])
    assert seen['fetched'] == []
    assert seen['wide'] <= seen['window']
