"""Paths as this application has them, wherever another one has mounted it or a proxy shows it."""

from typing import Final

from starlette.types import Scope

STATIC: Final = ("/web/", "/static-offline-docs/")
"""Folders of static files, those of the page and of the API docs: caches may keep them, they need no key."""


def path_of(scope: Scope) -> str:
    """The path of a request without the root path, as the routes see it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if path == root or path.startswith(f"{root}/") else path
