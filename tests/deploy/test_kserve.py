"""The KServe manifests, against the types of KServe's own package and Kubernetes' schemas."""

import copy
import importlib.resources
import json
import re
from typing import Any

import jsonschema
import pytest

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.manifest import Manifest
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.deploy.kserve_schema import FOLDER, ROOT
from tests.deploy.manifests import KSERVE, environment, read, settings_of, shutdown_s

SERVICES = {path.stem: read(path) for path in sorted(KSERVE.glob("*.yaml"))}
_KUBERNETES = "kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"
_NAMES = {
    "ResourceQuantity": "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "K8sIoApiAppsV1DeploymentStrategy": "io.k8s.api.apps.v1.DeploymentStrategy",
    "K8sIoApiAutoscalingV2HorizontalPodAutoscalerBehavior": (
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior"
    ),
}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    """KServe's types, whose references to Kubernetes' types lead to those."""
    text = (FOLDER / "kserve-0.21.0.json").read_text()
    definitions = importlib.resources.files("kubernetes_validate").joinpath(_KUBERNETES).read_text()
    kubernetes = json.loads(re.sub(r'"\$ref": "[^"#]*#', '"$ref": "#', definitions))["$defs"]

    def place(match: re.Match[str]) -> str:
        short = match[1].removeprefix("V1")
        candidates = (
            _NAMES.get(match[1], ""),
            f"io.k8s.api.core.v1.{short}",
            f"io.k8s.apimachinery.pkg.apis.meta.v1.{short}",
        )
        return '"#/$defs/' + next(name for name in candidates if name in kubernetes) + '"'

    own = json.loads(re.sub(r'"kubernetes:(\w+)"', place, text))
    return jsonschema.Draft202012Validator({"$defs": {**kubernetes, **own}, "$ref": f"#/$defs/{ROOT}"})


def faults(validator: jsonschema.Draft202012Validator, service: Any) -> list[str]:
    return [error.message for error in validator.iter_errors(service)]


@pytest.mark.parametrize("name", SERVICES)
def test_kserve_knows_every_field(validator: jsonschema.Draft202012Validator, name: str) -> None:
    service = SERVICES[name]
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert faults(validator, service) == []


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("gateway", ["spec", "predictor", "minReplica"], 1, "minReplica"),
        ("gateway", ["spec", "predictor", "minReplicas"], "one", "'one' is not of type 'integer'"),
        ("gateway", ["spec", "predictor", "containers", 0, "imagePulPolicy"], "Always", "imagePulPolicy"),
        (
            "gateway",
            ["spec", "predictor", "containers", 0, "ports", 0, "containerPort"],
            "x",
            "'x' is not of",
        ),
        ("triton", ["spec", "predictor", "model", "storageURI"], "pvc://a/b", "storageURI"),
        (
            "triton",
            ["spec", "predictor", "model", "modelFormat"],
            "triton",
            "'triton' is not of type 'object'",
        ),
        ("triton", ["spec"], {}, "'predictor' is a required property"),
    ],
)
def test_a_slip_is_refused(
    validator: jsonschema.Draft202012Validator, name: str, place: list[Any], value: Any, message: str
) -> None:
    service = copy.deepcopy(SERVICES[name])
    inner = service
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert any(message in fault for fault in faults(validator, service))


def test_the_gateway_fits_the_server() -> None:
    predictor = SERVICES["gateway"]["spec"]["predictor"]
    (container,) = predictor["containers"]
    settings = settings_of(environment(container))
    (port,) = container["ports"]
    paths = create_app(Settings()).openapi()["paths"]
    assert port["containerPort"] == settings.port
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == settings.port
        assert container[probe]["httpGet"]["path"] in paths
    assert predictor["containerConcurrency"] == settings.concurrency + settings.queue_size
    assert predictor["timeout"] >= settings.upload_s + settings.deadline_s
    assert settings.drain_s >= settings.upload_s + settings.deadline_s
    assert settings.shutdown_delay_s >= 5
    assert predictor["terminationGracePeriodSeconds"] > shutdown_s(settings)
    assert predictor["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_the_claim_holds_what_the_documented_command_writes() -> None:
    manifest = Manifest.load(DEFAULT_BUNDLE)
    assert f"{manifest.name}/{manifest.version}/..." in (KSERVE / "triton.yaml").read_text()
