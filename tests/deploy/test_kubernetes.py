"""The Kubernetes manifests fit the published schemas and each other, and break where a field is wrong."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from neuro_latent_serving.launch.triton_server import ServerConfig
from tests.deploy.conftest import ROOT
from tests.deploy.monitoring import RULES

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATIONS = sorted(file.parent.name for file in FOLDER.glob("*/kustomization.yaml"))
WORK = " + ".join(
    f'sum(avg_over_time(neuro_latent_{name}{{namespace="neuro-latent"}}[1m]))'
    for name in ("slots_in_use", "queue_length")
)
"""A total, which the autoscalers divide by the replicas."""
SCHEMAS = json.loads(Path(__file__).with_name("schemas").joinpath("kubernetes.json").read_text())


def documents(folder: str) -> list[dict[str, Any]]:
    """The objects of a kustomization and of those that it names."""
    found = []
    for name in yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())["resources"]:
        path = FOLDER / folder / name
        found += documents(path.resolve().name) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    return found


def problems(document: dict[str, Any]) -> list[str]:
    """What the schema of its kind has against a document."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    schema = {"$ref": f"#/$defs/{SCHEMAS['kinds'][kind]}", "$defs": SCHEMAS["$defs"]}
    return [
        f"{'.'.join(map(str, e.path))}: {e.message}"
        for e in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]


def only(folder: str, kind: str, name: str = "") -> dict[str, Any]:
    (document,) = [
        document
        for document in documents(folder)
        if document["kind"] == kind and name in ("", document["metadata"]["name"])
    ]
    return document


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_every_object_fits_its_schema(folder: str) -> None:
    listed = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())["resources"]
    here = {file.name for file in (FOLDER / folder).glob("*.yaml")} - {"kustomization.yaml"}
    assert here <= set(listed)
    for document in documents(folder):
        assert problems(document) == [], document["kind"]


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_kustomize_takes_it(folder: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    done = subprocess.run(["kubectl", "kustomize", folder], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(documents(folder))
    assert {document["metadata"].get("namespace", document["metadata"]["name"]) for document in built} == {
        "neuro-latent"
    }
    assert set(re.findall(r"image: (\S+)", done.stdout)) <= {"neuro-latent:cpu", "busybox:1.37.0"}


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
        ("monitoring", "PrometheusRule", "spec.groups.0.name", ""),
        ("monitoring", "PrometheusRule", "spec.groups.0.rules.0.record", 1),
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
    """A name, the pod's specification, and where what is said of the whole pod stands."""
    deployment = only("base", "Deployment")["spec"]["template"]["spec"]
    gateway = only("kserve", "Deployment")["spec"]["template"]["spec"]
    predictor = only("kserve", "InferenceService")["spec"]["predictor"]
    return [
        ("base", deployment, deployment),
        ("kserve", only("kserve", "ServingRuntime")["spec"], predictor),
        ("kserve gateway", gateway, gateway),
    ]


@pytest.mark.parametrize(
    ("pod", "whole"), [*(each[1:] for each in pods()), (only("loader", "Pod")["spec"], only("loader", "Pod")["spec"])]
)
def test_the_policy_of_the_namespace_lets_pods_in(pod: dict, whole: dict) -> None:
    assert only("common", "Namespace")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    # of the pod, so that they are said of the containers that KServe adds, too
    assert whole["securityContext"]["runAsNonRoot"] is True
    assert whole["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert whole["automountServiceAccountToken"] is False
    assert all(volume.keys() & {"emptyDir", "secret", "persistentVolumeClaim"} for volume in pod["volumes"])
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert context.get("runAsNonRoot", True) is True
        assert context.get("runAsUser", 1000) == 1000
        assert not any("hostPort" in port for port in container.get("ports", []))
        assert {"requests", "limits"} <= set(container["resources"])
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize(("name", "pod", "timing"), pods())
def test_pods_are_probed_and_have_time_to_drain(name: str, pod: dict, timing: dict) -> None:
    for container in pod["containers"]:
        ports = {port["name"] for port in container["ports"]} | {port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")[container["name"] == "gateway" :]:
            asked = container[probe].get("httpGet") or container[probe]["tcpSocket"]
            assert asked["port"] in ports
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert (
            timing["terminationGracePeriodSeconds"] >= pause + ServerConfig().drain_timeout + ServerConfig().kill_after
        )


def test_triton_is_open_to_few() -> None:
    """It asks for no key; the gateway does."""
    assert only("kserve", "InferenceService")["metadata"]["labels"] == {
        "networking.kserve.io/visibility": "cluster-local"
    }
    chosen = {"base": {"app": "neuro-latent"}, "kserve": {"serving.kserve.io/inferenceservice": "neuro-latent"}}
    for folder, labels in chosen.items():
        assert only(folder, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
        spec = only(folder, "NetworkPolicy", "neuro-latent")["spec"]
        assert spec["podSelector"]["matchLabels"] == labels
        everybody = [port["port"] for rule in spec["ingress"] if "from" not in rule for port in rule["ports"]]
        assert everybody == (["rest"] if folder == "base" else [])


def test_scaling_is_by_work_for_each_replica() -> None:
    (trigger,) = only("base", "ScaledObject")["spec"]["triggers"]
    assert trigger["metricType"] == "AverageValue"  # `fallback` wants it before KEDA 2.18
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert trigger["metadata"]["query"] == WORK
    predictor = only("kserve", "InferenceService")["spec"]["predictor"]
    (metric,) = predictor["autoScaling"]["metrics"]
    assert metric["external"]["metric"]["query"] == WORK
    threshold = trigger["metadata"]["threshold"]
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": threshold, "value": threshold}
    scaled = only("base", "ScaledObject")["spec"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (
        scaled["minReplicaCount"],
        scaled["maxReplicaCount"],
    )


def test_prometheus_finds_every_pod_under_the_names_of_the_rules() -> None:
    assert only("monitoring", "PrometheusRule")["spec"] == yaml.safe_load(RULES.read_text())
    own, kserve = (only("monitoring", "PodMonitor", name)["spec"] for name in ("neuro-latent", "neuro-latent-kserve"))
    (selector,) = own["selector"]["matchExpressions"]
    labels = {
        only(folder, "Deployment")["spec"]["template"]["metadata"]["labels"]["app"] for folder in ("base", "kserve")
    }
    assert set(selector["values"]) == labels
    chosen = only("kserve", "NetworkPolicy", "neuro-latent")["spec"]["podSelector"]
    assert (kserve["selector"], kserve["podMetricsEndpoints"]) == (chosen, own["podMetricsEndpoints"][:1])
    jobs = {each["port"]: each["relabelings"][0]["replacement"] for each in own["podMetricsEndpoints"]}
    plain = yaml.safe_load((RULES.parent / "kubernetes.yaml").read_text())["scrape_configs"]
    compose = yaml.safe_load((RULES.parent / "prometheus.yaml").read_text())["scrape_configs"]
    assert {job["relabel_configs"][0]["regex"]: job["job_name"] for job in plain} == jobs
    assert {job["job_name"] for job in compose} == set(jobs.values())
    for _, pod, _ in pods():
        ports = {port["name"] for container in pod["containers"] for port in container["ports"]}
        assert ports & jobs.keys()
    # no annotations that have it scraped in another way, too: everything would count twice
    assert "prometheus" not in str(only("kserve", "InferenceService")["metadata"])
    assert "annotations" not in only("kserve", "ServingRuntime")["spec"]


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
    assert claim == only("common", "PersistentVolumeClaim")["metadata"]["name"]
    assert only("kserve", "InferenceService")["spec"]["predictor"]["model"]["storageUri"] == f"pvc://{claim}/v1"
    assert only("loader", "Pod")["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim
    assert (
        only("base", "ScaledObject")["spec"]["scaleTargetRef"]["name"] == only("base", "Deployment")["metadata"]["name"]
    )


def test_the_server_starts_as_the_image_does() -> None:
    text = (ROOT / "Dockerfile.triton").read_text()
    command = re.findall(r'"([^"]+)"', text[text.index('CMD ["serve"') :].partition("]")[0])
    assert "args" not in only("base", "Deployment")["spec"]["template"]["spec"]["containers"][0]
    args = only("kserve", "ServingRuntime")["spec"]["containers"][0]["args"]
    assert [word.replace("/mnt/models", "/models") for word in args] == command
