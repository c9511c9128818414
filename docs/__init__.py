"""The documentation. The pages are Markdown; `docs.site` makes those that the program, cards and notebooks give."""
