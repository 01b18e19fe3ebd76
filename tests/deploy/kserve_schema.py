"""``python -m tests.deploy.kserve_schema kserve-0.21.0-py3-none-any.whl``: the schema that the tests use.

KServe's Python package (Apache-2.0) holds a class for every type of its API, generated from KServe's OpenAPI
document. This reads names, types and required fields out of the wheel without importing it, and writes those
that an InferenceService reaches to ``kserve-VERSION.json`` as JSON Schema. Kubernetes' own types are left as
references, to be found in kubernetes-validate's schemas; a type that the package has no class for, such as
Knative's in the status, may be anything.
"""

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

FOLDER = Path(__file__).parent
ROOT = "V1beta1InferenceService"
_PLAIN = {
    "bool": {"type": "boolean"},
    "datetime": {"type": "string"},
    "float": {"type": "number"},
    "int": {"type": "integer"},
    "object": {},
    "str": {"type": "string"},
}
_REQUIRED = re.compile(r"client_side_validation and (\w+) is None")


def convert(wheel: Path) -> dict[str, Any]:
    """The definitions by KServe's names."""
    classes = {}
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"kserve/models/[a-z]\w+\.py", name):
                text = archive.read(name).decode()
                for node in ast.parse(text).body:
                    if isinstance(node, ast.ClassDef):
                        classes[node.name] = _class(node, text)
    found: dict[str, Any] = {}
    waiting = [ROOT]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = classes[name] if name == ROOT else classes.get(name, {})
            waiting += re.findall(r'"#/\$defs/(\w+)"', json.dumps(found[name]))
    return {name: found[name] for name in sorted(found)}


def _class(node: ast.ClassDef, text: str) -> dict[str, Any]:
    tables = {
        each.targets[0].id: ast.literal_eval(each.value)
        for each in node.body
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
    }
    types, names = tables["openapi_types"], tables["attribute_map"]
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {names[key]: _type(types[key]) for key in types},
    }
    if required := sorted(names[key] for key in set(_REQUIRED.findall(text))):
        schema["required"] = required
    return schema


def _type(name: str) -> dict[str, Any]:
    if match := re.fullmatch(r"list\[(.+)\]", name):
        return {"type": "array", "items": _type(match[1])}
    if match := re.fullmatch(r"dict\(str, (.+)\)", name):
        return {"type": "object", "additionalProperties": _type(match[1])}
    if name in _PLAIN:
        return _PLAIN[name]
    if name.startswith("Knative"):
        return {}
    return {"$ref": f"#/$defs/{name}" if re.match("V1(alpha|beta)", name) else f"kubernetes:{name}"}


if __name__ == "__main__":
    wheel = Path(sys.argv[1])
    target = FOLDER / f"kserve-{wheel.name.split('-')[1]}.json"
    target.write_text(json.dumps(convert(wheel), indent=1) + "\n")
