"""The site of the documentation: `make docs` builds it into .cache/site, and every warning is an error."""

project = "rods_jax"
copyright = "The authors of rods_jax, Apache-2.0"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "rods_jax"
myst_heading_anchors = 3  # links to headings are checked too
exclude_patterns: list[str] = []
nitpicky = True
