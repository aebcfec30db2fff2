"""deploy/kubernetes: against the schemas of Kubernetes, and against the product."""

from __future__ import annotations

from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from projections.catalogue import PROJECTIONS
from tests.unit.deploy.checked import (
    DEPLOY,
    SECRETS,
    documents,
    parse_command,
    settings_of,
    strings,
    unknown_settings,
    version,
)

KUBERNETES = DEPLOY / "kubernetes"
(KUSTOMIZATION,) = documents("kubernetes", "kustomization.yaml")
OBJECTS: dict[str, dict[str, Any]] = {
    f"{one['kind']}/{one['metadata']['name']}": one
    for name in KUSTOMIZATION["resources"]
    for one in documents("kubernetes", name)
}
WORKLOADS = {
    name: one for name, one in OBJECTS.items() if one["kind"] in ("Deployment", "StatefulSet")
}
PERSISTED_SECRETS = {"crm-ledger-access", "crm-ledger-keys"}


def pod(workload: str) -> dict[str, Any]:
    found: dict[str, Any] = WORKLOADS[workload]["spec"]["template"]["spec"]
    return found


def container(workload: str) -> dict[str, Any]:
    (one,) = pod(workload)["containers"]
    return dict(one)


def labels(workload: str) -> dict[str, str]:
    return dict(WORKLOADS[workload]["spec"]["template"]["metadata"]["labels"])


def environment(workload: str) -> dict[str, str]:
    settings: dict[str, str] = OBJECTS["ConfigMap/crm-ledger"]["data"]
    own = {one["name"]: one["value"] for one in container(workload).get("env", [])}
    return {**settings, **SECRETS, **own}


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_fits_the_schema_of_its_kind(name: str) -> None:
    newest = kubernetes_validate.latest_version()
    kubernetes_validate.validate(OBJECTS[name], newest, strict=True)


def test_the_kustomization_names_every_file_and_uses_what_every_version_knows() -> None:
    assert set(KUSTOMIZATION) == {"apiVersion", "kind", "labels", "resources"}
    files = {path.name for path in KUBERNETES.iterdir()} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files
    in_files = sum(len(documents("kubernetes", name)) for name in files)
    assert in_files == len(OBJECTS)


def test_every_process_of_the_product_is_there() -> None:
    run = [container(name)["args"] for name in WORKLOADS]
    wanted = [
        ["api"],
        ["policies"],
        ["relay"],
        ["seal"],
        *(["project", name] for name in PROJECTIONS),
    ]
    assert sorted(run) == sorted(wanted)
    assert WORKLOADS["Deployment/crm-relay"]["spec"]["replicas"] == 2


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_process_is_a_command_with_settings_that_load(name: str) -> None:
    settings = settings_of(environment(name))
    one = container(name)
    command = parse_command(one["args"])
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    if command == "api":
        assert ports == {"http": settings.port}
    else:
        assert ports == {"metrics": settings.metrics_port}
    annotations = WORKLOADS[name]["spec"]["template"]["metadata"]["annotations"]
    assert int(annotations["prometheus.io/port"]) in ports.values()
    assert one["image"] == f"crm-ledger:{version()}"
    # Kubernetes would name the services CRM_API_SERVICE_HOST and so on, which are no settings.
    assert pod(name)["enableServiceLinks"] is False


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_process_is_watched_and_limited(name: str) -> None:
    one = container(name)
    ports = {port["name"] for port in one["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert one[probe]["httpGet"]["port"] in ports
        path = one[probe]["httpGet"]["path"]
        assert path.startswith("/health/") if "http" in ports else path == "/metrics"
    assert "memory" in one["resources"]["limits"]
    assert {"cpu", "memory"} <= one["resources"]["requests"].keys()


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_may_do_no_more_than_they_need(name: str) -> None:
    whole, one = pod(name), container(name)
    assert whole["automountServiceAccountToken"] is False
    assert whole["securityContext"]["runAsNonRoot"] is True
    assert whole["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert f"\nUSER {whole['securityContext']['runAsUser']}\n" in dockerfile


@pytest.mark.parametrize("name", WORKLOADS)
def test_what_a_pod_refers_to_is_there(name: str) -> None:
    whole, one = pod(name), container(name)
    volumes = {volume["name"]: volume for volume in whole["volumes"]}
    assert {mount["name"] for mount in one["volumeMounts"]} == volumes.keys()
    for source in one["envFrom"]:
        if "configMapRef" in source:
            assert f"ConfigMap/{source['configMapRef']['name']}" in OBJECTS
        else:
            assert source["secretRef"]["name"] in PERSISTED_SECRETS
    command = one["args"][0]
    assert ("keys" in volumes) == (command in ("api", "policies", "seal"))
    if "keys" in volumes:
        secret = volumes["keys"]["secret"]
        assert secret["secretName"] in PERSISTED_SECRETS
        paths = {f"/data/{item['path']}" for item in secret["items"]}
        settings = settings_of({**environment(name), "CRM_DATA_DIR": "/data"})
        if command == "seal":
            assert paths == {str(settings.seal_key_file)}
        else:
            assert paths == {str(settings.master_key_file), "/data/signing.key"}
        assert paths <= {mount["mountPath"] for mount in one["volumeMounts"]}


@pytest.mark.parametrize("name", WORKLOADS)
def test_who_was_erased_outlives_the_pods_that_must_know(name: str) -> None:
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod(name)["volumes"]
        if "persistentVolumeClaim" in volume
    }
    for claim in claims.values():
        assert f"PersistentVolumeClaim/{claim}" in OBJECTS
    if container(name)["args"][0] in ("api", "policies"):
        kept = {
            mount["mountPath"]
            for mount in container(name)["volumeMounts"]
            if mount["name"] in claims
        }
        assert str(settings_of(environment(name)).erasures_file.parent) in kept


def test_every_selector_finds_the_pods_that_are_meant() -> None:
    for name in WORKLOADS:
        wanted = WORKLOADS[name]["spec"]["selector"]["matchLabels"].items()
        assert [other for other in WORKLOADS if wanted <= labels(other).items()] == [name]
    for name, one in OBJECTS.items():
        if one["kind"] == "Service":
            selector = one["spec"]["selector"]
        elif one["kind"] == "PodDisruptionBudget":
            selector = one["spec"]["selector"]["matchLabels"]
        else:
            continue
        chosen = [other for other in WORKLOADS if selector.items() <= labels(other).items()]
        assert chosen, name
        for other in chosen:
            for port in one["spec"].get("ports", []):
                assert port["targetPort"] in {p["name"] for p in container(other)["ports"]}


def test_workers_have_names_that_outlive_their_pods() -> None:
    for name, one in WORKLOADS.items():
        if container(name)["args"][0] == "project":
            assert one["kind"] == "StatefulSet"
            assert f"Service/{one['spec']['serviceName']}" in OBJECTS


def test_there_is_no_secret_and_no_unknown_setting_in_the_files() -> None:
    assert not any(one["kind"] == "Secret" for one in OBJECTS.values())
    for one in OBJECTS.values():
        for text in strings(one):
            assert unknown_settings(text) == set()
            assert "://" not in text


def test_the_nightly_check_changes_nothing_and_ends_by_itself() -> None:
    job = OBJECTS["CronJob/crm-verify"]["spec"]["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 0
    whole = job["template"]["spec"]
    assert whole["restartPolicy"] == "Never"
    assert whole["enableServiceLinks"] is False
    (one,) = whole["containers"]
    assert parse_command(one["args"]) == "rebuild"
    assert "--verify-only" in one["args"]
    assert one["image"] == f"crm-ledger:{version()}"
