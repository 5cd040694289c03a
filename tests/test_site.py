"""The built site as its readers meet it; `make test-docs` builds it first, with warnings as errors."""
import json
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / 'docs' / '_build' / 'html'
pytestmark = pytest.mark.docs
CHROMIUM = os.environ.get('MMSPT_BROWSER') or next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
         '--disable-component-update', '--disable-background-networking', '--host-resolver-rules=MAP * ~NOTFOUND',
         '--allow-file-access-from-files', '--virtual-time-budget=600000']
WIDTHS = 390, 1280
"""Pixels of a phone and of a desktop."""
EXPECTED = dict(many_gpus='processes: 2, batch size: 16.*exit code 75.*resumed epoch',
                methods_and_rates='<table.*SPT-Deep.*±.*</table>', own_method=r'\[12\].*accuracy/top1',
                share_and_serve=r'whole, and tuned on.*4_900.png yours \d',
                what_prompts_do='accuracy/top1', your_photographs='SPT-Deep.*100 images')
"""What the output of each tutorial must hold."""
PROBE = """
<pre id="probe"></pre>
<script>
const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parse = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const over = (top, below) => [0, 1, 2].map(i => top[i] * (top[3] ?? 1) + below[i] * (1 - (top[3] ?? 1)));
const back = (element, view) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) {
    const colour = parse(view.getComputedStyle(at).backgroundColor);
    layers.push(colour);
    if ((colour[3] ?? 1) === 1) break;
  }
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
};
const look = (view, page, width, theme) => {
  const found = [], root = view.document;
  if (root.documentElement.scrollWidth > width) found.push(`${root.documentElement.scrollWidth} pixels wide`);
  for (const image of root.querySelectorAll('main img, article img, .bd-article img')) {
    if (!image.complete || !image.naturalWidth) found.push(`no image: ${image.getAttribute('src')}`);
    if (!(image.alt || '').trim()) found.push(`no text for ${image.getAttribute('src')}`);
  }
  const walker = root.createTreeWalker(root.body, NodeFilter.SHOW_TEXT), seen = new Set();
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement, style = view.getComputedStyle(element);
    if (!node.data.trim() || seen.has(element) || !element.checkVisibility({opacityProperty: true,
        visibilityProperty: true}) || ['SCRIPT', 'STYLE', 'TITLE', 'NOSCRIPT'].includes(element.tagName)) continue;
    seen.add(element);
    const behind = back(element, view), ink = over(parse(style.color), behind);
    const [high, low] = [light(ink), light(behind)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(2)} of '${node.data.trim().slice(0, 30)}' (${theme}, `
      + `${element.tagName}.${element.className})`);
  }
  return found.map(text => `${page}, ${width}: ${text}`);
};
const visit = (page, width) => new Promise(done => {
  const frame = document.createElement('iframe');
  frame.style = `border: 0; width: ${width}px; height: 900px`;
  frame.onload = () => setTimeout(() => {
    const found = [], view = frame.contentWindow;
    for (const theme of ['light', 'dark']) {
      view.document.body.dataset.theme = theme;
      found.push(...look(view, page, width, theme));
    }
    frame.remove();
    done(found);
  }, 300);
  frame.src = page;
  document.body.append(frame);
});
window.onload = async () => {
  const found = [];
  for (const page of PAGES) for (const width of WIDTHS) found.push(...await visit(page, width));
  document.getElementById('probe').innerText = JSON.stringify(found);
};
</script>
"""


class Page(HTMLParser):
    """Links, pictures and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.ids, self.sources = [], set(), []
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids |= {attributes.get('id'), attributes.get('name')} - {None}
        if tag == 'a' and attributes.get('href'):
            self.links.append(attributes['href'])
        self.sources += [attributes[key] for key in ('src', 'href') if tag in ('img', 'script', 'link')
                         and attributes.get(key)]


@pytest.fixture(scope='module')
def pages():
    if not SITE.is_dir():
        pytest.skip('needs the built site: make test-docs')
    return {path: Page(path) for path in sorted(SITE.rglob('*.html'))}


def test_every_internal_link_leads_somewhere(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links + page.sources:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target.suffix == '.html' and anchor not in pages[target].ids):
                broken.append(f'{path.relative_to(SITE)}: {link}')
    assert broken == []


def test_reading_needs_no_network(pages):
    """Style, scripts and pictures are files of the site."""
    assert [(str(path), source) for path, page in pages.items() for source in page.sources
            if urlsplit(source).netloc] == []


def test_search_finds_pages(pages):
    assert SITE / 'search.html' in pages
    index = (SITE / 'searchindex.js').read_text()
    assert all(f'"{name}"' in index for name in ('tutorials/your_photographs', 'checkpoints', 'reference/tools'))


def test_every_flag_is_in_the_reference(pages):
    """Every tool once, and every subcommand once."""
    ids = list(pages[SITE / 'reference' / 'tools.html'].ids)
    assert {'tools-train-py', 'analyze-nmi', 'benchmark-worker', 'pack-export', 'tools-dist-train-sh'} <= set(ids)
    assert not [name for name in ids if re.fullmatch(r'id\d+', name)]  # a heading that is there twice


def test_tutorials_ran(pages):
    """Their outputs are in the pages: accuracies, pictures, answers."""
    texts = {path.stem: path.read_text() for path in pages if path.parent.name == 'tutorials'}
    assert texts.keys() == EXPECTED.keys()
    for name, text in texts.items():
        assert re.search(r'class="cell_output', text), name
        assert 'Traceback' not in text, name
        assert re.search(EXPECTED[name], text, re.DOTALL), name
    assert len(re.findall(r'<img alt="[^"]{20,}"', texts['what_prompts_do'])) == 3


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium (.ci/run installs it); MMSPT_BROWSER names another')
def test_in_a_browser(pages, tmp_path):
    """Nothing sticks out, every picture loads and has a text, text stands out from its background; light and dark."""
    api = SITE / 'reference' / 'api'
    chosen = [path for path in pages if path.parent != api] + [path for path in pages if path.parent == api][::20]
    names = [path.as_uri() for path in chosen if path.name not in ('genindex.html', 'py-modindex.html')]
    harness = tmp_path / 'harness.html'
    script = PROBE.replace('of PAGES', f'of {json.dumps(names)}').replace('of WIDTHS', f'of {list(WIDTHS)}')
    harness.write_text(f'<!doctype html><meta charset="utf-8"><body>{script}</body>')
    done = subprocess.run([CHROMIUM, *FLAGS, f'--user-data-dir={tmp_path / "profile"}', '--window-size=1400,1000',
                           '--dump-dom', harness.as_uri()], capture_output=True, text=True, timeout=500, check=True)
    found = json.loads(unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert found == []

