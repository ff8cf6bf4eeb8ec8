"""The site: tutorials that the build executes, and a reference generated from the docstrings."""

import logging
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import tinygrad_rnn as tg  # noqa: E402 - the path comes first

project = "tinygrad_rnn"
author = "the tinygrad_rnn authors"
version = release = tg.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
    "accessible",
    "downloads",
    "excerpts",
    "mathml",
    "offline",
    "pages",
    "reference",
]
extensions += ["exercises"] * (HERE / "_ext" / "exercises.py").exists()
exclude_patterns = ["README.md", "_build", "_measured", "_templates", "exercises"]

# -- tutorials: every build executes every page; an error, a warning or output on stderr fails it.
# The pages import this working tree and run with one thread: `-j 2` runs two at the same time.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "warn"
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(HERE / "_ext"), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ["PYTHONWARNINGS"] = "error::UserWarning,error::RuntimeWarning"
ipython = tempfile.TemporaryDirectory()  # without the user's start-up files and history
(Path(ipython.name) / "profile_default").mkdir()
kernel = Path(ipython.name) / "profile_default" / "ipython_kernel_config.py"
kernel.write_text("get_config().IPKernelApp.log_level = 'ERROR'\n")
os.environ["IPYTHONDIR"] = ipython.name
for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
logging.getLogger("traitlets").setLevel("WARNING")  # a11y_pygments prints the root's level INFO
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# -- reference: a name in single backticks is a link if it resolves; an explicit role must resolve
nitpicky = True
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", ".*")]
autodoc_typehints = "none"  # the docstrings give the types, in words
autodoc_preserve_defaults = True
autosummary_generate = False  # the extension `reference` writes the pages
numpydoc_show_class_members = False  # and lists the members
numpydoc_xref_param_type = False
add_module_names = False
toc_object_entries_show_parents = "hide"

# -- downloads: the notebooks install the library from the wheel at this address, such as
# https://example.org/docs; without one, from the wheel in their own folder
site_address = os.environ.get("SITE_ADDRESS", "")

# -- looks
html_theme = "furo"
html_title = "tinygrad_rnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
templates_path = ["_templates"]
html_show_search_summary = False  # search.js shows excerpts, also from file://
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = html_show_copyright = False
html_theme_options = {"light_css_variables": {"color-code-background": "#f3f4f6"}}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "monokai"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def spread(app, env, names):
    """Read every eighth page, then the next ones: `-j 2` reads pages in large parts.

    The tutorials, whose execution takes most of the time, would else be one part.
    """
    names[:] = [name for first in range(8) for name in names[first::8]]


def setup(app):
    """Connect the order of the pages."""
    app.connect("env-before-read-docs", spread)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
