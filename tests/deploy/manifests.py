"""The files for deploying, read; and overlays put together as kustomize does."""

import json
from pathlib import Path
from typing import Any

import yaml

from mtcp_serve.server.service import CLOSING_S
from mtcp_serve.server.settings import Settings

ROOT = Path(__file__).parent.parent.parent
COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "Dockerfile"
KUBERNETES = ROOT / "deploy" / "kubernetes"
KSERVE = ROOT / "deploy" / "kserve"
OVERLAYS = sorted((KUBERNETES / "overlays").iterdir())


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def build(folder: Path) -> list[dict[str, Any]]:
    """The objects of the kustomization in ``folder``: resources, then components with their patches."""
    return _add(folder, [])


def apply(component: Path, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``objects`` with what the component in a folder adds and changes."""
    return _add(component, objects)


def shutdown_s(settings: Settings) -> float:
    """Seconds after which a server with these settings has ended, whatever happens."""
    return settings.shutdown_delay_s + settings.drain_s + 3 * CLOSING_S


def _add(folder: Path, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kustomization = read(folder / "kustomization.yaml")
    for name in kustomization.get("resources", []):
        path = folder / name
        found = _add(path, found) if path.is_dir() else [*found, read(path)]
    for name in kustomization.get("components", []):
        found = _add(folder / name, found)
    for patch in kustomization.get("patches", []):
        target = patch["target"]
        (matched,) = (
            each
            for each in found
            if each["kind"] == target["kind"] and each["metadata"]["name"] == target["name"]
        )
        for operation in yaml.safe_load(patch["patch"]):
            _apply(matched, operation)
    return found


def _apply(document: Any, operation: dict[str, Any]) -> None:
    """One operation of a JSON patch (RFC 6902): add or replace."""
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
    for part in parents:
        document = document[int(part)] if isinstance(document, list) else document[part]
    if isinstance(document, list):
        assert (operation["op"], last) == ("add", "-")
        document.append(operation["value"])
    else:
        assert operation["op"] == "add" or last in document
        document[last] = operation["value"]


def of_kind(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container.get("env", [])}


def settings_of(variables: dict[str, str]) -> Settings:
    """What a server with these variables would run with; a name that it does not know is an error."""
    names = {name.removeprefix("MTCP_").lower(): value for name, value in variables.items()}
    assert all(name.startswith("MTCP_") for name in variables)
    assert set(names) <= set(Settings.model_fields)
    return Settings(**json.loads(json.dumps(names)))
