"""Paths as this application has them, wherever another one has mounted it or a proxy shows it."""

from starlette.types import Scope


def path_of(scope: Scope) -> str:
    """The path of a request without the root path, as the routes see it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if path == root or path.startswith(f"{root}/") else path
