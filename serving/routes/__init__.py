"""The paths of the API, one module for each concern. `serving.app` lists their blueprints.

What does not belong here: numbers. A view reads the request, calls one function and answers with one struct.
"""
