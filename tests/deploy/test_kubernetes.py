"""The Helm chart: its objects fit the published schemas and each other, and break where a field is wrong."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from neuro_latent_core import __version__
from neuro_latent_serving.launch.triton_server import ServerConfig
from tests.deploy.chart import CHART, NAMESPACE, helm, render, run
from tests.deploy.conftest import ROOT
from tests.deploy.monitoring import RULES
from tests.e2e.commands import readme_blocks, readme_commands

V1 = {"repository": {"version": "v1"}}
KEDA, HPA = {"scaling": {"by": "keda"}}, {"scaling": {"by": "hpa"}}
MONITORED = {
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}, "runbook": "https://git.example/r.md"}
}
INGRESS = {
    "enabled": True,
    "className": "nginx",
    "host": "prompts.example",
    "tlsSecret": "prompts-tls",
    "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
}
CASES: dict[str, dict[str, Any]] = {
    "cpu": V1,
    "gpu": {**V1, "gpu": True, "nodeSelector": {"pool": "gpu"}, "tolerations": [{"key": "spot", "operator": "Exists"}]},
    "ingress": {**V1, "ingress": INGRESS, "networkPolicy": {"egressPorts": [5432, 443]}},
    "keda": {**V1, **KEDA, **MONITORED},
    "hpa": {**V1, **HPA},
    "bundled": {
        "repository": {"bundled": True},
        "image": {"repository": "registry.example/neuro-latent", "digest": f"sha256:{64 * '0'}", "pullSecrets": ["r"]},
    },
    "existing": {
        "repository": {"version": "second/v2", "existingClaim": "adapters"},
        "existingSecret": "vault",
        "env": {"NEURO_LATENT_FEEDBACK_SECRETS": "refuse"},
        "server": {"args": ["--watch-adapters=/repositories/adapters"]},
        "gateway": {"args": ["--rate=60", "--upstream=https://api.example/v1"]},
        "networkPolicy": {"enabled": False},
    },
    "loader": {"repository": {"loader": True, "storageClass": "shared-files"}},
    "kserve": {**V1, **KEDA, **MONITORED, "kserve": {"enabled": True}, "gpu": True},
    "kserve bucket": {**KEDA, "kserve": {"enabled": True, "storageUri": "s3://bucket/v1"}},
}
SCHEMAS = json.loads(Path(__file__).with_name("schemas").joinpath("kubernetes.json").read_text())
WORK = " + ".join(
    f'sum(avg_over_time(neuro_latent_{name}{{namespace="{NAMESPACE}"}}[1m]))'
    for name in ("slots_in_use", "queue_length")
)
"""A total, which the autoscalers divide by the replicas."""


@cache
def objects(case: str) -> list[dict[str, Any]]:
    """What Helm makes of the values of a case."""
    return render(CASES[case])


def only(case: str, kind: str, name: str = "") -> dict[str, Any]:
    """The one object of a kind, or of a kind and name."""
    (found,) = [each for each in objects(case) if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    return found


def problems(document: dict[str, Any]) -> list[str]:
    """What the schema of its kind has against a document."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    schema = {"$ref": f"#/$defs/{SCHEMAS['kinds'][kind]}", "$defs": SCHEMAS["$defs"]}
    return [
        f"{'.'.join(map(str, e.path))}: {e.message}"
        for e in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]


def at(document: Any, path: str) -> Any:
    """What stands at a path with dots."""
    for step in path.split("."):
        document = document[int(step)] if step.isdigit() else document[step]
    return document


def pod(case: str) -> dict[str, Any]:
    """The specification of the deployment's pods."""
    return at(only(case, "Deployment"), "spec.template.spec")


@pytest.mark.parametrize("case", CASES)
def test_helm_has_no_complaint_and_every_object_fits_its_schema(case: str) -> None:
    done = run("lint", "--strict", str(CHART), values=CASES[case])
    assert done.returncode == 0, done.stdout
    assert re.findall(r"\[(?:WARNING|ERROR)\].*", done.stdout) == []
    names = [(document["kind"], document["metadata"]["name"]) for document in objects(case)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("neuro-latent") for _, name in names)
    for document in objects(case):
        assert problems(document) == [], document["kind"]


@pytest.mark.parametrize(
    ("case", "kind", "path", "value"),
    [
        ("cpu", "Deployment", "spec.template.spec.containers.0.readinesProbe", {}),
        ("cpu", "Deployment", "spec.template.spec.containers.0.resources.limits", "4"),
        ("cpu", "PodDisruptionBudget", "spec.maxUnavailible", 1),
        ("cpu", "NetworkPolicy", "spec.policyTypes", "Ingress"),
        ("ingress", "Ingress", "spec.rules.0.http.paths.0.pathtype", "Prefix"),
        ("keda", "ScaledObject", "spec.triggers.0.metadata.threshold", 0.2),
        ("keda", "PrometheusRule", "spec.groups.0.name", ""),
        ("keda", "PrometheusRule", "spec.groups.0.rules.0.record", 1),
        ("hpa", "HorizontalPodAutoscaler", "spec.metrics.0.pods.metrics", {}),
        ("kserve", "ServingRuntime", "spec.supportedModelFormat", []),
        ("kserve", "ServingRuntime", "spec.containers.0.ports.0.containerPort", "8000"),
        ("kserve", "InferenceService", "spec.predictor.model.storageUrl", "pvc://repository"),
        ("kserve", "InferenceService", "spec.predictor.autoScaling.metrics.0.external.metric.address", "http://p"),
    ],
)
def test_a_wrong_field_is_found(case: str, kind: str, path: str, value: object) -> None:
    document = json.loads(json.dumps(only(case, kind)))
    way, _, last = path.rpartition(".")
    at(document, way)[last] = value
    assert problems(document)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "repository.version is empty"),
        ({"repository": {"verson": "v1"}}, "'verson' not allowed"),
        ({"repository": {"version": "../v1"}}, "'/repository/version': '../v1' does not match"),
        ({**V1, "scaling": {"by": "cpu"}}, "one of 'none', 'keda', 'hpa'"),
        ({**V1, "image": {"digest": "sha256:12"}}, "'/image/digest'"),
        ({**V1, "gpu": "one"}, "'/gpu': got string, want boolean"),
        ({**V1, "ingress": {"enabled": True, "host": "prompts.example"}}, "'/ingress/tlsSecret': minLength"),
        ({**V1, "kserve": {"enabled": True}}, "'/scaling/by': value must be 'keda'"),
        ({**KEDA, "kserve": {"enabled": True}, "repository": {"bundled": True}}, "'/repository/bundled'"),
    ],
)
def test_a_wrong_value_is_refused(values: dict[str, Any], told: str) -> None:
    done = run("template", "neuro-latent", str(CHART), values=values)
    assert done.returncode != 0
    assert told in done.stderr


def test_every_value_is_taught_and_the_version_is_that_of_the_distributions() -> None:
    def paths(schema: dict[str, Any]) -> set[str]:
        return {
            ".".join(filter(None, (name, rest)))
            for name, inner in schema.get("properties", {}).items()
            for rest in paths(inner) or {""}
        }

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path in paths(schema) - {"global"}:
        at(values, path)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_image_is_of_the_device_or_pinned() -> None:
    images = {case: set(re.findall(r"'image': '([^']+)'", str(objects(case)))) for case in CASES}
    assert images["cpu"] == images["loader"] == {"neuro-latent:cpu"}
    assert images["gpu"] == images["kserve"] == {"neuro-latent:gpu"}
    assert images["bundled"] == {f"registry.example/neuro-latent@sha256:{64 * '0'}"}
    assert pod("bundled")["imagePullSecrets"] == [{"name": "r"}]
    for spec in (pod("gpu"), only("kserve", "ServingRuntime")["spec"]):
        assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert len(pod("gpu")["tolerations"]) == 2
    assert "tolerations" not in pod("cpu")


def test_the_repository_is_a_folder_of_a_claim_or_inside_the_image() -> None:
    for case, claim, folder in (("cpu", "neuro-latent-repository", "v1"), ("existing", "adapters", "second/v2")):
        spec = pod(case)
        (mount,) = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["mountPath"] == "/models"]
        assert mount == {"name": "repository", "mountPath": "/models", "subPath": folder, "readOnly": True}
        assert spec["volumes"][-1]["persistentVolumeClaim"] == {"claimName": claim, "readOnly": True}
    assert not [document for document in objects("existing") if document["kind"] == "PersistentVolumeClaim"]
    assert only("cpu", "PersistentVolumeClaim")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not [volume for volume in pod("bundled")["volumes"] if "persistentVolumeClaim" in volume]
    predictor = only("kserve", "InferenceService")["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == "pvc://neuro-latent-repository/v1"
    # the first step of an installation
    assert not {"Deployment", "ScaledObject"} & {document["kind"] for document in objects("loader")}
    loader = only("loader", "Pod")
    assert "app.kubernetes.io/name" not in loader["metadata"]["labels"]  # no service sends it requests
    assert loader["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "neuro-latent-repository"}
    assert only("loader", "PersistentVolumeClaim")["spec"]["storageClassName"] == "shared-files"


def test_secrets_are_those_that_are_there_already() -> None:
    for case, secret in (("cpu", "neuro-latent"), ("existing", "vault")):
        assert not [document for document in objects(case) if document["kind"] == "Secret"]
        spec = pod(case)
        assert spec["volumes"][0]["secret"]["secretName"] == secret
        taken = {
            reference["key"]: (reference["name"], reference["optional"])
            for container in spec["containers"]
            for variable in container["env"]
            if (reference := variable.get("valueFrom", {}).get("secretKeyRef"))
        }
        assert taken == {"feedback-url": (secret, True), "upstream-key": (secret, True)}
    gateway = pod("existing")["containers"][1]
    assert gateway["args"][-1] == "--upstream=https://api.example/v1"
    assert {"name": "NEURO_LATENT_FEEDBACK_SECRETS", "value": "refuse"} in gateway["env"]


def pods() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod that serves: its specification, and where what is said of the whole pod stands."""
    predictor = only("kserve", "InferenceService")["spec"]["predictor"]
    own = [(pod(case), pod(case)) for case in ("cpu", "gpu", "kserve")]
    return [*own, (only("kserve", "ServingRuntime")["spec"], predictor)]


def test_the_policy_of_the_namespace_lets_pods_in() -> None:
    assert "pod-security.kubernetes.io/enforce=restricted" in (ROOT / "docs" / "deploy.md").read_text()
    loader = only("loader", "Pod")["spec"]
    for spec, whole in [*pods(), (loader, loader)]:
        # of the pod, so that they are said of the containers that KServe adds, too
        assert whole["securityContext"]["runAsNonRoot"] is True
        assert whole["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert whole["automountServiceAccountToken"] is False
        assert all(volume.keys() & {"emptyDir", "secret", "persistentVolumeClaim"} for volume in spec["volumes"])
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert context.get("runAsNonRoot", True) is True
            assert context.get("runAsUser", 1000) == 1000
            assert not any("hostPort" in port for port in container.get("ports", []))
            assert {"requests", "limits"} <= set(container["resources"])
            volumes = {volume["name"] for volume in spec["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_pods_are_probed_and_have_time_to_drain() -> None:
    for spec, timing in pods():
        for container in spec["containers"]:
            ports = {port[key] for port in container["ports"] for key in ("name", "containerPort")}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe")[container["name"] == "gateway" :]:
                asked = container[probe].get("httpGet") or container[probe]["tcpSocket"]
                assert asked["port"] in ports
            pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            needed = pause + ServerConfig().drain_timeout + ServerConfig().kill_after
            assert timing["terminationGracePeriodSeconds"] >= needed


def test_triton_is_open_to_few() -> None:
    """It asks for no key; the gateway does."""
    service = only("kserve", "InferenceService")
    assert service["metadata"]["labels"] == {"networking.kserve.io/visibility": "cluster-local"}
    for case, open_ports in (("cpu", [8080]), ("kserve", [])):
        spec = only(case, "NetworkPolicy", "neuro-latent")["spec"]
        everybody = [port["port"] for rule in spec["ingress"] if "from" not in rule for port in rule["ports"]]
        assert everybody == open_ports
        for rule in spec["ingress"]:
            asked = {port["port"] for port in rule["ports"]}
            if asked & {8000, 8001}:
                assert {"namespaceSelector": {"matchLabels": {"neuro-latent/triton": "allowed"}}} in rule["from"]
    rest, metrics = only("kserve", "NetworkPolicy", "neuro-latent-gateway")["spec"]["ingress"]
    assert rest == {"ports": [{"port": 8080}]}
    assert (metrics["ports"], len(metrics["from"])) == ([{"port": 8081}], 1)
    assert not [document for document in objects("existing") if document["kind"] == "NetworkPolicy"]
    (egress,) = only("ingress", "NetworkPolicy")["spec"]["egress"]
    assert [port["port"] for port in egress["ports"]] == [53, 53, 5432, 443]


def test_scaling_is_by_work_for_each_replica() -> None:
    scaled = only("keda", "ScaledObject")["spec"]
    (trigger,) = scaled["triggers"]
    assert trigger["metricType"] == "AverageValue"  # `fallback` wants it before KEDA 2.18
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert trigger["metadata"]["query"] == WORK
    threshold, bounds = trigger["metadata"]["threshold"], (scaled["minReplicaCount"], scaled["maxReplicaCount"])
    assert scaled["scaleTargetRef"]["name"] == only("keda", "Deployment")["metadata"]["name"]

    predictor = only("kserve", "InferenceService")["spec"]["predictor"]
    (metric,) = predictor["autoScaling"]["metrics"]
    assert metric["external"]["metric"]["query"] == WORK
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": threshold, "value": threshold}
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == bounds

    hpa = only("hpa", "HorizontalPodAutoscaler")["spec"]
    assert hpa["metrics"][0]["pods"]["target"]["averageValue"] == threshold
    assert f"as: {hpa['metrics'][0]['pods']['metric']['name']} " in (CHART / "values.yaml").read_text()
    assert hpa["scaleTargetRef"]["name"] == only("hpa", "Deployment")["metadata"]["name"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == bounds
    assert hpa["behavior"] == scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]

    replicas = {case: only(case, "Deployment")["spec"].get("replicas") for case in ("cpu", "keda", "hpa")}
    assert replicas == {"cpu": 2, "keda": None, "hpa": None}


def test_prometheus_finds_every_pod_under_the_names_of_the_rules() -> None:
    for case in ("keda", "kserve"):
        monitors = [document for document in objects(case) if document["kind"] == "PodMonitor"]
        assert all(monitor["metadata"]["labels"] == {"release": "prometheus"} for monitor in monitors)
        template = only(case, "Deployment")["spec"]["template"]
        assert monitors[0]["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
        jobs = {
            endpoint["port"]: endpoint["relabelings"][0]["replacement"]
            for monitor in monitors
            for endpoint in monitor["spec"]["podMetricsEndpoints"]
        }
        plain = yaml.safe_load((RULES.parent / "kubernetes.yaml").read_text())["scrape_configs"]
        compose = yaml.safe_load((RULES.parent / "prometheus.yaml").read_text())["scrape_configs"]
        assert {job["relabel_configs"][0]["regex"]: job["job_name"] for job in plain} == jobs
        assert {job["job_name"] for job in compose} == set(jobs.values())
    predictor = only("kserve", "NetworkPolicy", "neuro-latent")["spec"]["podSelector"]
    assert monitors[1]["spec"]["selector"] == predictor
    for spec, _ in pods():
        assert {port["name"] for container in spec["containers"] for port in container["ports"]} & jobs.keys()
    # no annotations that have it scraped in another way, too: everything would count twice
    assert "prometheus" not in str(only("kserve", "InferenceService")["metadata"])
    assert "annotations" not in only("kserve", "ServingRuntime")["spec"]

    text = RULES.read_text().replace("docs/runbook.md", "https://git.example/r.md")
    assert only("keda", "PrometheusRule")["spec"] == yaml.safe_load(text)


@pytest.mark.parametrize("case", [case for case in CASES if case != "loader"])
def test_services_and_policies_point_at_the_pods(case: str) -> None:
    deployment = only(case, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    predictor = {"serving.kserve.io/inferenceservice": "neuro-latent"}
    ports = {port["name"] for container in pod(case)["containers"] for port in container["ports"]}
    for document in objects(case):
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            assert spec["selector"] == labels
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif document["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            chosen = (spec.get("selector") or spec["podSelector"])["matchLabels"]
            own_name = document["metadata"]["name"] == only(case, "Deployment")["metadata"]["name"]
            assert chosen == (labels if own_name else predictor)


def test_the_ingress_leads_to_the_gateway_by_tls() -> None:
    spec = only("ingress", "Ingress")["spec"]
    (rule,) = spec["rules"]
    (path,) = rule["http"]["paths"]
    service = only("ingress", "Service", path["backend"]["service"]["name"])
    assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    assert spec["tls"] == [{"hosts": [rule["host"]], "secretName": "prompts-tls"}]
    assert spec["ingressClassName"] == "nginx"


def test_the_server_starts_as_the_image_does() -> None:
    text = (ROOT / "Dockerfile.triton").read_text()
    command = re.findall(r'"([^"]+)"', text[text.index('CMD ["serve"') :].partition("]")[0])
    assert pod("cpu")["containers"][0]["args"] == command
    args = only("kserve", "ServingRuntime")["spec"]["containers"][0]["args"]
    assert [word.replace("/mnt/models", "/models") for word in args] == command
    server = pod("existing")["containers"][0]
    assert server["args"] == [*command, "--watch-adapters=/repositories/adapters"]
    assert {"name": "repository", "mountPath": "/repositories", "readOnly": True} in server["volumeMounts"]


def test_the_commands_of_the_document_render(tmp_path: Path) -> None:
    (values,) = [text for language, text in readme_blocks("docs/deploy.md") if language == "yaml"]
    (tmp_path / "production.yaml").write_text(values)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    commands = [line for line in readme_commands("docs/deploy.md") if line.startswith("helm ")]
    made = []
    for line in commands:
        words = line.partition("|")[0].replace("upgrade --install", "template").split()
        done = subprocess.run([helm(), *words[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        made.append({document["kind"] for document in yaml.safe_load_all(done.stdout) if document})
    assert len(made) >= 5
    assert {"Ingress", "ScaledObject", "PrometheusRule", "Deployment"} <= made[1]
    assert "Pod" in made[0]
    assert "Pod" not in made[1]
