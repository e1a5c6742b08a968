"""Makes ``kubernetes.json`` of packages that carry the published schemas; run by hand when their versions change.

    python tests/deploy/schemas/vendor.py KUBERNETES_VALIDATE KSERVE

The folders of the unpacked packages ``kubernetes-validate`` and ``kserve`` of PyPI. ``keda.json`` and
``prometheus.json`` are written by hand.
Only the definitions that the manifests can reach are taken, without their descriptions; unknown fields are errors.
"""

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

VERSION = "v1.37.0"
DEFINITIONS = "/api/_definitions.json#/$defs/"
CORE, KSERVE, KEDA = "io.k8s.api.core.v1.", "io.kserve.", "sh.keda.v1alpha1.ScaledObject"
PROMETHEUS = "sh.prometheus.v1."
KINDS = {
    "v1/PersistentVolumeClaim": f"{CORE}PersistentVolumeClaim",
    "v1/Pod": f"{CORE}Pod",
    "v1/Service": f"{CORE}Service",
    "apps/v1/Deployment": "io.k8s.api.apps.v1.Deployment",
    "autoscaling/v2/HorizontalPodAutoscaler": "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    "networking.k8s.io/v1/Ingress": "io.k8s.api.networking.v1.Ingress",
    "networking.k8s.io/v1/NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "policy/v1/PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
    "serving.kserve.io/v1alpha1/ServingRuntime": f"{KSERVE}V1alpha1ServingRuntime",
    "serving.kserve.io/v1beta1/InferenceService": f"{KSERVE}V1beta1InferenceService",
    "keda.sh/v1alpha1/ScaledObject": KEDA,
    "monitoring.coreos.com/v1/PodMonitor": f"{PROMETHEUS}PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule": f"{PROMETHEUS}PrometheusRule",
}
PLAIN = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "object": {},
    "V1beta1MetricQuantity": {"type": ["string", "number"]},
    "ResourceQuantity": {"type": ["string", "number"]},
    "V1Time": {"type": "string"},
    "datetime": {"type": "string"},
    "float": {"type": "number"},
}
UNDESCRIBED = (f"{KSERVE}V1alpha1WorkerSpec",)
"""Types that KServe's SDK names and does not describe."""
OTHER_NAMES = {
    "V1ObjectMeta": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
    "V1ListMeta": "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
    "K8sIoApiAutoscalingV2HorizontalPodAutoscalerBehavior": "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior",
    "AppsV1DeploymentStrategy": "io.k8s.api.apps.v1.DeploymentStrategy",
    "K8sIoApiAppsV1DeploymentStrategy": "io.k8s.api.apps.v1.DeploymentStrategy",
}


def main(kubernetes: Path, kserve: Path) -> None:
    folder = kubernetes / "kubernetes_validate" / "kubernetes-json-schema" / f"{VERSION}-local-strict"
    found: dict[str, Any] = json.loads((folder / "_definitions.json").read_text())["$defs"]
    found |= kserve_definitions(kserve / "kserve" / "models")
    found[KEDA] = json.loads(Path(__file__).with_name("keda.json").read_text())
    found |= json.loads(Path(__file__).with_name("prometheus.json").read_text())
    for name in UNDESCRIBED:
        found[name] = {"not": {}}  # so the chart cannot have it
    wanted, left = {}, list(KINDS.values())
    while left:
        name = left.pop()
        if name not in wanted:
            wanted[name] = plain(found[name])
            if name in KINDS.values():
                wanted[name]["properties"].pop("status", None)  # the cluster writes it
            left += re.findall(r'"#/\$defs/([^"]+)"', json.dumps(wanted[name]))
    text = json.dumps({"kinds": KINDS, "$defs": dict(sorted(wanted.items()))}, separators=(",", ":"))
    Path(__file__).with_name("kubernetes.json").write_text(text.replace('},"io.', '},\n"io.') + "\n")


def plain(value: Any, is_properties: bool = False) -> Any:
    """A schema without descriptions, its references within one file."""
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if not isinstance(value, dict):
        return value.replace(DEFINITIONS, "#/$defs/") if isinstance(value, str) else value
    kept = value if is_properties else {key: inner for key, inner in value.items() if not noise(key)}
    return {key: plain(inner, key == "properties" and not is_properties) for key, inner in kept.items()}


def noise(key: str) -> bool:
    return key in ("description", "title", "default") or key.startswith("x-")


def kserve_definitions(models: Path) -> dict[str, Any]:
    """What the SDK's generated classes say of fields and types."""
    found = {}
    for file in models.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                facts = {
                    target.id: ast.literal_eval(statement.value)
                    for statement in node.body
                    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict)
                    for target in statement.targets
                    if isinstance(target, ast.Name)
                }
                if "openapi_types" in facts:
                    found[KSERVE + node.name] = class_schema(facts["openapi_types"], facts["attribute_map"])
    return found


def class_schema(types: dict[str, str], names: dict[str, str]) -> dict[str, Any]:
    properties = {names[field]: type_schema(kind) for field, kind in types.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def type_schema(kind: str) -> dict[str, Any]:
    if kind in PLAIN:
        return PLAIN[kind]
    if kind.startswith("list["):
        return {"type": "array", "items": type_schema(kind[5:-1])}
    if kind.startswith("dict("):
        return {"type": "object", "additionalProperties": type_schema(kind.partition(", ")[2][:-1])}
    if kind in OTHER_NAMES:
        return {"$ref": f"#/$defs/{OTHER_NAMES[kind]}"}
    if re.match(r"V\d(alpha|beta)\d|Knative|NetUrl", kind):
        return {"$ref": f"#/$defs/{KSERVE}{kind}"}
    return {"$ref": f"#/$defs/{CORE}{kind.removeprefix('V1')}"}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
