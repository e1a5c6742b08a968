"""compose.yaml, Prometheus and Grafana: schemas, paths, queries, and alerts that fire. test_image has their metrics."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import make_url

from tests.deploy.conftest import ROOT
from tests.deploy.monitoring import DASHBOARD, DEPLOY, RULES, autoscaler_queries, dashboard_queries, names, rules

RUNBOOK = "docs/runbook.md"
POSTGRESQL = yaml.safe_load((DEPLOY / "compose.postgresql.yaml").read_text())["services"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Prometheus's own checker: that of the machine, else out of Debian's package, which is not installed."""
    folder = tmp_path_factory.mktemp("promtool")
    if installed := shutil.which("promtool"):
        return installed
    for command in ("apt-get download --quiet --quiet prometheus", "dpkg-deb --extract prometheus_*.deb ."):
        done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"no promtool: {command}: {done.stderr.strip()}")
    return str(folder / "usr" / "bin" / "promtool")


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_its_files_and_every_alert_fires(promtool: str, tmp_path: Path) -> None:
    run(promtool, "check", "config", "prometheus.yaml", cwd=DEPLOY / "prometheus")
    inside: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "kubernetes.yaml").read_text())
    for job in inside["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs")  # Debian's promtool knows no Kubernetes
    (tmp_path / "kubernetes.yaml").write_text(yaml.safe_dump(inside))
    run(promtool, "check", "config", "kubernetes.yaml", cwd=tmp_path)
    shutil.copy(RULES, tmp_path)
    alerts = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())
    tested = [test for group in alerts["tests"] for test in group["alert_rule_test"]]
    for test in tested:
        for expected in test["exp_alerts"]:
            expected["exp_annotations"]["runbook_url"] = f"{RUNBOOK}#{test['alertname'].lower()}"
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(alerts))
    run(promtool, "test", "rules", "alerts.yaml", cwd=tmp_path)
    assert {test["alertname"] for test in tested} == {rule["alert"] for rule in rules() if "alert" in rule}


def test_the_runbook_has_a_chapter_for_each_alert_and_no_other() -> None:
    chapters = re.findall(r"^## (NeuroLatent\w+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)
    alerts = [rule for rule in rules() if "alert" in rule]
    assert chapters == [rule["alert"] for rule in alerts]
    for rule in alerts:
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}#{rule['alert'].lower()}"


def test_queries_of_dashboard_and_autoscalers_are_promql() -> None:
    found = [*dashboard_queries(), *autoscaler_queries()]
    assert len(found) >= 25
    assert all(names(query) for query in found)
    with pytest.raises(ValueError, match=r"\S"):
        names("sum(rate(a[5m])")


def test_grafana_finds_its_datasource_and_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "dashboards.yaml").read_text())["providers"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in panels}) == len(panels)
    mounts = COMPOSE["services"]["grafana"]["volumes"]
    assert f"./{DASHBOARD.parent.relative_to(ROOT)}:{provider['options']['path']}:ro" in mounts
    assert source["url"] == "http://prometheus:9090"


def test_what_compose_mounts_is_there_and_what_it_runs_is_pinned_and_hardened() -> None:
    for name, service in {**COMPOSE["services"], "postgresql": POSTGRESQL["postgresql"]}.items():
        sources = (
            [volume.split(":")[0] for volume in service["volumes"] if volume.startswith("./")]
            if "volumes" in service
            else []
        )
        assert [source for source in sources if not (ROOT / source).exists()] == []
        image, _, tag = service["image"].partition(":")
        assert tag not in ("", "latest"), image
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert set(COMPOSE["networks"]["inside"]) == {"internal"}
    feedback = COMPOSE["services"]["server"]["environment"]["NEURO_LATENT_FEEDBACK_URL"]
    default = feedback.removeprefix("${NEURO_LATENT_FEEDBACK_URL:-").removesuffix("}")
    assert f"NEURO_LATENT_FEEDBACK_URL={default} " in (ROOT / "Dockerfile.triton").read_text()


def test_compose_gives_the_server_the_database_that_it_adds() -> None:
    database = POSTGRESQL["postgresql"]["environment"]
    url = make_url(POSTGRESQL["server"]["environment"]["NEURO_LATENT_FEEDBACK_URL"])
    assert (url.host, url.username, url.database) == ("postgresql", database["POSTGRES_USER"], database["POSTGRES_DB"])
    assert (url.drivername, url.password) == ("postgresql+psycopg", "${POSTGRES_PASSWORD}")
    assert POSTGRESQL["postgresql"]["networks"] == COMPOSE["services"]["server"]["networks"] == ["inside"]


def test_prometheus_scrapes_services_of_compose() -> None:
    config: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    targets = [
        target for job in config["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    ]
    assert {target.split(":")[0] for target in targets} == {"server", "gateway"}
