"""The site's settings; `make docs` builds it into docs/_build/html."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'docs' / '_ext')]

from mmspt.version import __version__ as release  # noqa: E402

project, author = 'mmspt', 'the mmspt developers'
extensions = ['myst_nb', 'sphinx.ext.apidoc', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon',
              'sphinx_copybutton', 'generated', 'published']
exclude_patterns = ['_build']

html_theme = 'furo'
html_math_renderer = 'as_written'
html_title = f'mmspt {release}'
html_theme_options = dict(sidebar_hide_name=False)
pygments_style, pygments_dark_style = 'a11y-high-contrast-light', 'a11y-high-contrast-dark'

myst_heading_anchors = 4
myst_enable_extensions = ['colon_fence']
nb_execution_mode = 'cache'
nb_execution_timeout = 1800
nb_execution_raise_on_error = True
nb_render_markdown_format = 'gfm'
nb_merge_streams = True
nb_execution_show_tb = True

apidoc_modules = [dict(path=str(ROOT / 'mmspt'), destination='reference/api', separate_modules=True,
                       module_first=True, max_depth=2)]
autodoc_default_options = {'members': True, 'show-inheritance': True, 'ignore-module-all': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
napoleon_numpy_docstring = False
napoleon_use_param = napoleon_use_rtype = False  # types are words here, of which several classes may have the name
napoleon_use_ivar = True  # an attribute is described once, by its own docstring or by the class's
