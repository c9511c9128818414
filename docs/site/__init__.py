"""What the site has and the folder `docs` has not: pages made from the program, the cards and the notebooks.

`python -m docs.site` writes everything that mkdocs.yml names to build/docs; `make docs` then builds build/site from it.
"""
