"""The Helm chart, without a cluster: what it renders is valid, restricted, and agrees with composition and settings."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import helm_python
import pytest
from ruamel.yaml import YAML

from oarlock import __version__
from oarlock.settings import SECRETS, Settings, variables

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "deploy" / "helm" / "oarlock"

DECIDED: Final = {
    "OARLOCK_DATA",
    "OARLOCK_HOST",
    "OARLOCK_PORT",
    "OARLOCK_PLAIN_HTTP",
    "OARLOCK_DEVICE",
    "OARLOCK_ALIVE_FILE",
    "OARLOCK_EMBEDDED_WORKER",
}
"""Settings that the chart or the image decides."""

OWN_STORES: Final[dict[str, Any]] = {
    "postgresql": {"enabled": False},
    "queue": {"enabled": False},
    "secrets": {"DATABASE_URL": {"secret": "stores", "key": "database"}, "REDIS_URL": {"secret": "stores", "key": "redis"}},
}

MATRIX: Final[dict[str, dict[str, Any]]] = {
    "as it comes": {},
    "stores of the site's own": OWN_STORES,
    "gpu, scaled": {
        "workers": {
            "cpu": {"enabled": False},
            "gpu": {"enabled": True, "autoscaling": {"enabled": True}, "nodeSelector": {"gpu": "yes"}},
        }
    },
    "to the outside": {
        "service": {"ingress": {"enabled": True, "host": "oarlock.example", "tlsSecret": "oarlock-tls", "className": "nginx"}},
        "networkPolicy": {
            "clients": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}], "ports": [{"port": 443}]}],
        },
    },
    "everything else set": {
        "image": {"registry": "registry.example/oncology/", "tag": "1.2.3", "pullSecrets": ["pull"]},
        "settings": {"OARLOCK_KEEP_RESULTS": "90d", "OARLOCK_JOB_LIMIT_S": 600, "OARLOCK_SITE_FILE": "/site/site.toml"},
        "secrets": {"OARLOCK_DEIDENTIFY_KEY": {"secret": "oarlock", "key": "deidentify"}},
        "data": {"existingClaim": "planning"},
        "volumes": [{"name": "site", "configMap": {"name": "site"}}],
        "volumeMounts": [{"name": "site", "mountPath": "/site"}],
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
    },
}


def rendered(values: Mapping[str, Any] = MATRIX["as it comes"]) -> list[dict[str, Any]]:
    """Every object of the chart and its sub-charts."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(dict(values), name="oar", namespace="rt")
    return [found for name, text in files.items() if name.endswith(".yaml") for found in YAML(typ="safe").load_all(text) if found]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for found in objects:
        if found["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield found["metadata"]["name"], found["spec"]["template"]["spec"]


@pytest.fixture(params=MATRIX)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return rendered(MATRIX[request.param])


def test_the_chart_passes_helms_own_lint_with_every_set_of_values() -> None:
    for values in MATRIX.values():
        report = helm_python.chart.lint(CHART, values, strict=True, with_subcharts=True)
        assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("kubernetes", ["1.29", "1.37"])
def test_every_object_is_valid_for_the_oldest_and_the_newest_kubernetes(objects: list[dict[str, Any]], kubernetes: str) -> None:
    # here, as every process of the tests imports every file, and these take three seconds
    import kubernetes_validate
    from cloudcoil.models.keda.v1alpha1 import ScaledObject

    for found in objects:
        if found["kind"] == "ScaledObject":
            ScaledObject.model_validate(found)
        else:
            kubernetes_validate.validate(found, kubernetes, strict=True)


def test_every_pod_is_restricted_and_says_what_it_needs(objects: list[dict[str, Any]]) -> None:
    """Pod Security Standards, restricted; and a read-only root, limits of memory, probes and an image that is not the latest."""
    for name, pod in pods(objects):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in pod["containers"]:
            inside = container["securityContext"]
            assert inside["allowPrivilegeEscalation"] is False
            assert inside["readOnlyRootFilesystem"] is True
            assert inside["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["image"].rpartition(":")[2] not in {"", "latest"}
            probes = {"startupProbe", "livenessProbe", "readinessProbe"}
            assert pod.get("restartPolicy") == "OnFailure" or probes <= container.keys(), name


def test_no_secret_stands_in_an_environment(objects: list[dict[str, Any]]) -> None:
    for name, pod in pods(objects):
        for variable in (variable for container in pod["containers"] for variable in container.get("env", ())):
            assert variable["name"] not in SECRETS.values(), name
            assert "secretKeyRef" not in str(variable)


def test_a_worker_may_take_longer_to_end_than_a_job(objects: list[dict[str, Any]]) -> None:
    workers = [pod for name, pod in pods(objects) if "-worker-" in name]
    assert workers
    for pod in workers:
        environment = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
        limit_s = float(environment.get("OARLOCK_JOB_LIMIT_S", Settings.model_fields["job_limit_s"].default))
        assert pod["terminationGracePeriodSeconds"] > limit_s


def test_every_setting_can_be_given_as_a_value_or_as_a_secret_or_is_the_charts_own() -> None:
    with helm_python.Chart.load(CHART) as chart:
        schema = chart.schema
    assert schema is not None
    offered = {kind: set(schema["properties"][kind]["propertyNames"]["enum"]) for kind in ("settings", "secrets")}
    assert offered["secrets"] == set(SECRETS.values())
    assert offered["settings"] == set(variables().values()) - set(SECRETS.values()) - DECIDED


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"settings": {"OARLOCK_KEEP_RESULT": "30d"}}, "OARLOCK_KEEP_RESULT"),
        ({"settings": {"OARLOCK_DATA": "/elsewhere"}}, "OARLOCK_DATA"),
        ({"replicas": 3}, "replicas"),
        ({"postgresql": {"enabled": False}}, "DATABASE_URL"),
        ({"queue": {"enabled": False}}, "REDIS_URL"),
        ({"service": {"ingress": {"enabled": True, "host": "oarlock.example"}}}, "tlsSecret"),
        ({"workers": {"cpu": {"device": "tpu"}}}, "device"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmError, match=named):
        chart.render(values, name="oar", namespace="rt")


def test_a_scaled_pool_counts_queued_and_running_jobs_and_no_replicas_of_its_own() -> None:
    objects = rendered(MATRIX["gpu, scaled"])
    (scaled,) = (found for found in objects if found["kind"] == "ScaledObject")
    (deployment,) = (
        found for found in objects if found["metadata"]["name"] == "oar-worker-gpu" and found["kind"] == "Deployment"
    )
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert 'oarlock_jobs{state=~"queued|running"}' in scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert "replicas" not in deployment["spec"]


def test_each_pod_is_reached_by_its_callers_alone() -> None:
    policies = {found["metadata"]["name"]: found["spec"] for found in rendered() if found["kind"] == "NetworkPolicy"}
    nothing = policies["oar-nothing"]
    assert (nothing["policyTypes"], nothing.get("ingress"), nothing.get("egress")) == (["Ingress", "Egress"], None, None)
    for store, port in (("postgresql", 5432), ("queue", 6379)):
        (rule,) = policies[f"oar-{store}"]["ingress"]
        assert rule["ports"] == [{"port": port}]
        assert rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "oarlock"
    assert policies["oar-service"]["egress"] == []


def test_the_images_and_ports_are_those_of_the_composition() -> None:
    services = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
    ours = {services[name]["image"] for name in ("service", "worker", "worker-gpu")}
    values = MATRIX["as it comes"] | {"workers": {"gpu": {"enabled": True}}}
    chart_images = {container["image"] for _, pod in pods(rendered(values)) for container in pod["containers"]}
    assert ours <= chart_images
    assert services["postgres"]["image"].removeprefix("${POSTGRES_IMAGE:-").removesuffix("}") in chart_images
    service = next(pod for name, pod in pods(rendered()) if name == "oar-service")
    assert service["containers"][0]["ports"][0]["containerPort"] == Settings.model_fields["port"].default


def test_the_chart_is_of_this_version() -> None:
    with helm_python.Chart.load(CHART) as chart:
        assert chart.metadata["appVersion"] == __version__
