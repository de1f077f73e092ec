"""The reference of the site, written from the code: `python -m docs.generate`, before the site is built.

A page is a function that reads one part of the code and gives Markdown; `__main__` lists them. They lie in
`docs/reference`, which git ignores. What does not belong here: text a person writes; that is the rest of `docs`.
"""
