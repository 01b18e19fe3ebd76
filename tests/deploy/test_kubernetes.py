"""The Kubernetes manifests: accepted by Kubernetes' schemas, and fitting each other, the image, the code."""

import copy
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from mtcp_serve.errors import RequestError
from mtcp_serve.server.app import create_app
from mtcp_serve.server.metrics import Metrics
from mtcp_serve.server.settings import Settings
from tests.deploy.manifests import (
    KUBERNETES,
    OVERLAYS,
    apply,
    build,
    environment,
    of_kind,
    read,
    settings_of,
    shutdown_s,
)
from tests.needs import needs_command

VERSIONS = ("1.30", "1.37")
NAMES = [path.name for path in OVERLAYS]
OPTIONAL = KUBERNETES / "components" / "traces"
"""A component of no overlay; people add it to their own."""
OPERATORS = {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}
"""Types of operators, whose schemas no package has."""
KEYS = {"apiVersion", "kind", "resources", "components", "patches"}


@pytest.fixture(params=OVERLAYS, ids=NAMES)
def overlay(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def objects(overlay: Path) -> list[dict[str, Any]]:
    return build(overlay)


def gateway(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (container,) = of_kind(objects, "Deployment", "mtcp-serve")["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_accept_them(objects: list[dict[str, Any]], version: str) -> None:
    assert len(objects) >= 5
    for each in objects:
        if each["apiVersion"] not in OPERATORS:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("kind", ["Deployment", "Service", "HorizontalPodAutoscaler", "NetworkPolicy"])
def test_the_schemas_refuse_a_slip(kind: str) -> None:
    good = of_kind(build(OVERLAYS[0]), kind, "mtcp-serve")
    misspelt = copy.deepcopy(good)
    misspelt["spec"]["replcias"] = 2
    with pytest.raises(kubernetes_validate.ValidationError, match="replcias"):
        kubernetes_validate.validate(misspelt, VERSIONS[0], strict=True)
    mistyped = {**good, "metadata": {"name": 5}}
    with pytest.raises(kubernetes_validate.ValidationError, match="5 is not"):
        kubernetes_validate.validate(mistyped, VERSIONS[0], strict=True)


@needs_command("kubectl", "kubernetes.io says how to install it")
def test_kustomize_builds_the_same(overlay: Path, objects: list[dict[str, Any]]) -> None:
    done = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, check=True)

    def key(each: dict[str, Any]) -> tuple[str, str]:
        return each["kind"], each["metadata"]["name"]

    assert sorted(yaml.safe_load_all(done.stdout), key=key) == sorted(objects, key=key)


def test_every_file_is_of_some_use() -> None:
    used = set()
    for path in KUBERNETES.rglob("kustomization.yaml"):
        kustomization = read(path)
        assert set(kustomization) <= KEYS
        for name in (*kustomization.get("resources", []), *kustomization.get("components", [])):
            target = (path.parent / name).resolve()
            used.add(target / "kustomization.yaml" if target.is_dir() else target)
    files = {path.resolve() for path in KUBERNETES.rglob("*.yaml")}
    assert used <= files
    assert files - used == {path.resolve() / "kustomization.yaml" for path in (*OVERLAYS, OPTIONAL)}


def test_ports_and_labels_fit(objects: list[dict[str, Any]]) -> None:
    """A service, policy, budget or scaler that selects nothing is accepted by every schema."""
    deployments: dict[str, Any] = {
        each["metadata"]["name"]: each for each in objects if each["kind"] == "Deployment"
    }
    pods: dict[str, Any] = {name: each["spec"]["template"] for name, each in deployments.items()}
    ports = {
        name: {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        for name, pod in pods.items()
    }
    for name, each in deployments.items():
        assert each["spec"]["selector"]["matchLabels"].items() <= pods[name]["metadata"]["labels"].items()
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert pods[name]["spec"]["containers"][0][probe]["httpGet"]["port"] in ports[name]

    def selected(labels: dict[str, str]) -> str:
        (found,) = (str(name) for name in pods if labels.items() <= pods[name]["metadata"]["labels"].items())
        return found

    for each in objects:
        spec = each["spec"]
        if each["kind"] == "Service":
            name = selected(spec["selector"])
            assert {port["targetPort"] for port in spec["ports"]} <= set(ports[name])
        elif each["kind"] == "ServiceMonitor":
            service = of_kind(objects, "Service", "mtcp-serve")
            labels = service["metadata"]["labels"]
            assert spec["selector"]["matchLabels"].items() <= labels.items()
            others = [one for one in objects if one["kind"] == "Service" and one is not service]
            assert not [
                one
                for one in others
                if spec["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
            ]
            assert {each["port"] for each in spec["endpoints"]} <= {
                port["name"] for port in service["spec"]["ports"]
            }
        elif each["kind"] == "ScaledObject":
            assert spec["scaleTargetRef"]["name"] in deployments
            assert "replicas" not in deployments[spec["scaleTargetRef"]["name"]]["spec"]
        elif each["kind"] == "PodDisruptionBudget":
            assert selected(spec["selector"]["matchLabels"]) == "mtcp-serve"
        elif each["kind"] == "NetworkPolicy":
            name = selected(spec["podSelector"]["matchLabels"])
            assert name == each["metadata"]["name"]
            assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= set(ports[name])
        elif each["kind"] == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] in deployments
            assert "replicas" not in deployments[spec["scaleTargetRef"]["name"]]["spec"]


def test_the_gateway_runs_with_these_settings(objects: list[dict[str, Any]]) -> None:
    settings = settings_of(environment(gateway(objects)))
    pod = of_kind(objects, "Deployment", "mtcp-serve")["spec"]["template"]["spec"]
    assert settings.drain_s >= settings.upload_s + settings.deadline_s
    assert pod["terminationGracePeriodSeconds"] > shutdown_s(settings)
    assert settings.shutdown_delay_s >= 5  # what endpoints lag behind
    ports = {port["name"]: port["containerPort"] for port in gateway(objects)["ports"]}
    assert (ports["http"], ports["grpc"]) == (settings.port, settings.grpc_port)
    scalers = [each for each in objects if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert len(scalers) == 1  # two would fight
    if scalers[0]["kind"] == "ScaledObject":
        (trigger,) = scalers[0]["spec"]["triggers"]
        assert int(trigger["metadata"]["threshold"]) == settings.concurrency
    assert settings.intra_op_threads == int(gateway(objects)["resources"]["requests"]["cpu"])
    assert gateway(objects)["ports"][0]["containerPort"] == Settings.model_fields["port"].default
    assert settings.api_keys_file is not None
    (mount,) = gateway(objects)["volumeMounts"]
    assert settings.api_keys_file.is_relative_to(mount["mountPath"])
    for address in settings.triton:
        service = of_kind(objects, "Service", address.partition(":")[0])
        assert [str(port["port"]) for port in service["spec"]["ports"]] == [address.partition(":")[2]]


def test_alerts_and_scalers_ask_for_metrics_that_exist() -> None:
    """A misspelt name would never fire."""
    known = set(Metrics().registry._names_to_collectors)
    codes = {each.code for each in subclasses(RequestError)}
    asked = 0
    for each in build(KUBERNETES / "overlays" / "gpu"):
        expressions = []
        if each["kind"] == "PrometheusRule":
            rules = [rule for group in each["spec"]["groups"] for rule in group["rules"]]
            expressions = [rule["expr"] for rule in rules]
            assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
        elif each["kind"] == "ScaledObject":
            expressions = [trigger["metadata"]["query"] for trigger in each["spec"]["triggers"]]
        for expression in expressions:
            names = set(re.findall(r"\bmtcp_\w+", expression))
            assert names
            assert names <= known
            for value in re.findall(r'code=~?"([^"]+)"', expression):
                assert set(value.split("|")) <= codes
            assert expression.count("(") == expression.count(")")
            asked += 1
    assert asked >= 6


def subclasses(kind: type[RequestError]) -> set[type[RequestError]]:
    return {each for sub in kind.__subclasses__() for each in {sub, *subclasses(sub)}}


def test_traces_may_leave_the_pod() -> None:
    objects = apply(OPTIONAL, build(OVERLAYS[0]))
    given = environment(gateway(objects))
    endpoint = urlsplit(given.pop("OTEL_EXPORTER_OTLP_ENDPOINT"))
    assert settings_of(given).traces
    egress = of_kind(objects, "NetworkPolicy", "mtcp-serve")["spec"]["egress"]
    assert endpoint.port in [port["port"] for rule in egress for port in rule["ports"]]
    assert {"port": 53, "protocol": "UDP"} in [port for rule in egress for port in rule["ports"]]


def test_the_probes_ask_what_the_server_answers(objects: list[dict[str, Any]]) -> None:
    paths = create_app(Settings()).openapi()["paths"]
    for each in objects:
        if each["kind"] == "Deployment":
            (container,) = each["spec"]["template"]["spec"]["containers"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["httpGet"]["path"] in paths  # Triton's are the protocol's, as ours
    annotations = of_kind(objects, "Deployment", "mtcp-serve")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] in paths
    assert int(annotations["prometheus.io/port"]) == gateway(objects)["ports"][0]["containerPort"]


def test_no_pod_has_more_rights_than_it_needs(objects: list[dict[str, Any]]) -> None:
    for each in objects:
        if each["kind"] != "Deployment":
            continue
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        assert not pod["enableServiceLinks"]
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_what_tells_the_overlays_apart() -> None:
    cpu, gpu, triton = (gateway(build(KUBERNETES / "overlays" / name)) for name in ("cpu", "gpu", "triton"))
    assert "nvidia.com/gpu" not in cpu["resources"]["limits"]
    assert (gpu["image"], gpu["resources"]["limits"]["nvidia.com/gpu"]) == ("mtcp-serve:gpu", "1")
    assert environment(triton)["MTCP_TRITON"] == "mtcp-triton:8001"
    assert "nvidia.com/gpu" not in triton["resources"]["limits"]
    assert [settings_of(environment(each)).max_batch_size for each in (cpu, gpu, triton)] == [1, 8, 1]
    assert [settings_of(environment(each)).concurrency for each in (cpu, gpu, triton)] == [2, 16, 16]
