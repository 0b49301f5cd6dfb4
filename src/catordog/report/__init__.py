"""Reports of results: text for the terminal, self-contained HTML pages, figures, CSV and JSON."""
