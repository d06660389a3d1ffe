"""Reports: sections compute typed data, one a file; renderers make page, Markdown, terminal, CSV and JSON of it."""
