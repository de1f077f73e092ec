"""The URLs, one module a concern; a new one is a blueprint that `serving.app` lists.

What does not belong here: numbers. A view reads the request, calls one function and answers with one struct.
"""
