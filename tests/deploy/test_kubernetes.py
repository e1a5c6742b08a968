"""The Kubernetes manifests fit the published schemas and each other, and break where a field is wrong."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from neuro_latent_serving.server.supervisor import ServerConfig
from tests.deploy.conftest import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
SCHEMAS = json.loads(Path(__file__).with_name("schemas").joinpath("kubernetes.json").read_text())


def documents(folder: str) -> list[dict[str, Any]]:
    """The objects of a kustomization."""
    names = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())["resources"]
    return [item for name in names for item in yaml.safe_load_all((FOLDER / folder / name).read_text())]


def problems(document: dict[str, Any]) -> list[str]:
    """What the schema of its kind has against a document."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    schema = {"$ref": f"#/$defs/{SCHEMAS['kinds'][kind]}", "$defs": SCHEMAS["$defs"]}
    return [
        f"{'.'.join(map(str, e.path))}: {e.message}"
        for e in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]


def only(folder: str, kind: str) -> dict[str, Any]:
    (document,) = [document for document in documents(folder) if document["kind"] == kind]
    return document


@pytest.mark.parametrize("folder", ["base", "kserve"])
def test_every_object_fits_its_schema(folder: str) -> None:
    listed = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())["resources"]
    here = {file.name for file in (FOLDER / folder).glob("*.yaml")} - {"kustomization.yaml"}
    assert here <= set(listed)
    for document in documents(folder):
        assert problems(document) == [], document["kind"]


@pytest.mark.parametrize(
    ("folder", "kind", "path", "value"),
    [
        ("base", "Deployment", "spec.template.spec.containers.0.readinesProbe", {}),
        ("base", "Deployment", "spec.template.spec.containers.0.resources.limits", "4"),
        ("base", "PodDisruptionBudget", "spec.maxUnavailible", 1),
        ("base", "ScaledObject", "spec.triggers.0.metadata.threshold", 0.2),
        ("base", "NetworkPolicy", "spec.policyTypes", "Ingress"),
        ("kserve", "ServingRuntime", "spec.supportedModelFormat", []),
        ("kserve", "ServingRuntime", "spec.containers.0.ports.0.containerPort", "8000"),
        ("kserve", "InferenceService", "spec.predictor.model.storageUrl", "pvc://repository"),
        ("kserve", "InferenceService", "spec.predictor.autoScaling.metrics.0.external.metric.address", "http://p"),
    ],
)
def test_a_wrong_field_is_found(folder: str, kind: str, path: str, value: object) -> None:
    document = only(folder, kind)
    *way, last = path.split(".")
    place: Any = document
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    assert problems(document)


def pods() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """A name, the pod's specification, and where its grace period stands."""
    deployment = only("base", "Deployment")["spec"]["template"]["spec"]
    return [
        ("base", deployment, deployment),
        ("kserve", only("kserve", "ServingRuntime")["spec"], only("kserve", "InferenceService")["spec"]["predictor"]),
    ]


@pytest.mark.parametrize(("name", "pod", "timing"), pods())
def test_pods_are_hardened_probed_and_have_time_to_drain(name: str, pod: dict, timing: dict) -> None:
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        ports = {port["name"] for port in container["ports"]} | {port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")[container["name"] == "gateway" :]:
            asked = container[probe].get("httpGet") or container[probe]["tcpSocket"]
            assert asked["port"] in ports
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= set(container["resources"])
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert (
            timing["terminationGracePeriodSeconds"] >= pause + ServerConfig().drain_timeout + ServerConfig().kill_after
        )


def test_services_and_policies_point_at_the_pods() -> None:
    template = only("base", "Deployment")["spec"]["template"]
    ports = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
    for document in documents("base"):
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            assert spec["selector"].items() <= template["metadata"]["labels"].items()
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif document["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            selector = spec.get("selector") or spec["podSelector"]
            assert selector["matchLabels"].items() <= template["metadata"]["labels"].items()
    claim = template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim == only("base", "PersistentVolumeClaim")["metadata"]["name"]
    assert (
        only("base", "ScaledObject")["spec"]["scaleTargetRef"]["name"] == only("base", "Deployment")["metadata"]["name"]
    )


def test_the_server_starts_as_the_image_does() -> None:
    text = (ROOT / "Dockerfile.triton").read_text()
    command = re.findall(r'"([^"]+)"', text[text.index('CMD ["serve"') :].partition("]")[0])
    for _, pod, _ in pods():
        args = [word.replace("/mnt/models", "/models") for word in pod["containers"][0]["args"]]
        assert args == command
