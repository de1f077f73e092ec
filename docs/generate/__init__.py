"""Generate the reference pages of the documentation from the code: `python -m docs.generate`.

Each page is a function that reads one part of the code and returns Markdown; `__main__` lists them. The pages are
written to `docs/reference`, which git ignores. Text that a person writes does not belong here: it is in the rest of `docs`.
"""
