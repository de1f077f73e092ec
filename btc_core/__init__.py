"""The domain of the project, in layers that import only downwards.

From below: `names`, `errors`, `clock`, `settings` and their like · `market` · `exchanges` · `features` · `models` ·
`tables` · `stores` · `registry` · `days`. ARCHITECTURE.md says what each holds. Nothing here imports a program.
"""
