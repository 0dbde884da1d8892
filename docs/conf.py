"""Settings of Sphinx for the book; `mmel.study.report.book` gathers its pages and adds what differs between reports."""

project = "MMEL study"
extensions = ["myst_nb", "sphinx-mathjax-offline"]

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
# papermill executed the notebooks before.
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_code_prompt_show = "Code"
nb_code_prompt_hide = "Code"
# Widgets would come from the network, and the book is read without one.
nb_ipywidgets_js = {}

html_theme = "sphinx_book_theme"
html_theme_options = {
    "footer_content_items": ["extra-footer"],
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "primary_sidebar_end": [],
}
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_js_files = ["custom.js"]
