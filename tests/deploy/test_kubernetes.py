"""The Kubernetes manifests: accepted by Kubernetes' schemas, and fitting each other, the image, the code."""

import copy
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.deploy.manifests import KUBERNETES, OVERLAYS, build, environment, of_kind, read, settings_of
from tests.needs import needs_command

VERSIONS = ("1.30", "1.37")
NAMES = [path.name for path in OVERLAYS]
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
    assert files - used == {path.resolve() / "kustomization.yaml" for path in OVERLAYS}


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
    assert pod["terminationGracePeriodSeconds"] > settings.upload_s + settings.deadline_s
    assert settings.intra_op_threads == int(gateway(objects)["resources"]["requests"]["cpu"])
    assert gateway(objects)["ports"][0]["containerPort"] == Settings.model_fields["port"].default
    assert settings.api_keys_file is not None
    (mount,) = gateway(objects)["volumeMounts"]
    assert settings.api_keys_file.is_relative_to(mount["mountPath"])
    for address in settings.triton:
        service = of_kind(objects, "Service", address.partition(":")[0])
        assert [str(port["port"]) for port in service["spec"]["ports"]] == [address.partition(":")[2]]


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
