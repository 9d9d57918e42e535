"""What the images hold, how the composition wires them, and what neither may contain. No engine is needed: the files say it."""

import json
import os
import re
import subprocess
import sys
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.settings import GatewaySettings
from oarlock import __version__
from oarlock.settings import SECRETS, unknown_names, variables

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
IMAGES = {face: ROOT / "docker" / f"{face}.Dockerfile" for face in ("service", "worker", "gateway")}
OURS = ("service", "first-key", "first-password", "worker", "worker-gpu", "gateway")
ONCE = ("first-key", "first-password")
LOCKS = {name: ROOT / "requirements" / f"{name}.lock" for name in ("service", "worker", "worker-cuda", "gateway")}

image = pytest.mark.parametrize("face", IMAGES)
ours = pytest.mark.parametrize("name", OURS)


def run(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction of the final stage with its arguments, in order; the first one is its FROM."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE))
    lines = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]
    last = max(i for i, (word, _) in enumerate(lines) if word == "FROM")
    assert sum(word == "FROM" for word, _ in lines) == 2, "one stage builds, another one is delivered"
    return lines[last:]


def arguments(face: str, word: str) -> list[str]:
    return [rest for found, rest in instructions(IMAGES[face]) if found == word]


@pytest.fixture(scope="module")
def composition() -> Any:
    return YAML(typ="safe").load(ROOT / "docker-compose.yml")


def packages(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+)==", LOCKS[lock].read_text(), flags=re.MULTILINE))


# ── as their own linters see them ────────────────────────────────────────────────────────────────────────────────────


@image
def test_hadolint_finds_nothing(face: str) -> None:
    found = run(TOOLS / "hadolint", "--no-color", IMAGES[face])
    assert found.returncode == 0, found.stdout


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN cd /tmp && pip install numpy\n")
    assert "DL3007" in run(TOOLS / "hadolint", "--no-color", bad).stdout


def test_the_composition_is_of_the_schema_and_a_misspelt_one_is_not(tmp_path: Path) -> None:
    good, bad = ROOT / "docker-compose.yml", tmp_path / "misspelt.yml"
    bad.write_text(good.read_text().replace("read_only:", "readonly:"))
    found = run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "--output-format", "json", good, bad)
    assert {error["filename"] for error in json.loads(found.stdout)["errors"]} == {str(bad)}


# ── the images ───────────────────────────────────────────────────────────────────────────────────────────────────────


@image
def test_an_image_starts_from_a_slim_one_and_installs_nothing_in_it(face: str) -> None:
    assert arguments(face, "FROM") == ["$PYTHON_IMAGE"]
    assert re.match(r"(#.*\n)+ARG PYTHON_IMAGE=python:3\.11-slim-\w+\n", IMAGES[face].read_text())
    installs = [command for command in arguments(face, "RUN") if re.search(r"\b(install|apt-get|apk|curl|wget)\b", command)]
    assert all("libpango" in command for command in installs)  # a library that sets the PDF of the report, in the service alone
    assert len(installs) == (face == "service")


@image
def test_an_image_has_no_installer_left(face: str) -> None:
    (removal,) = [command for command in arguments(face, "RUN") if command.startswith("rm ")]
    assert {"/usr/local/bin/pip*", "/usr/local/lib/python3.11/site-packages/*", "/usr/local/lib/python3.11/ensurepip"} <= set(
        removal.split()
    )
    assert [rest for rest in arguments(face, "COPY") if rest.startswith("--from")] == ["--from=build /venv /venv"]
    assert "python3 -m venv --without-pip /venv" in IMAGES[face].read_text()


@image
def test_an_image_runs_as_a_number_that_is_not_root(face: str) -> None:
    user, group = arguments(face, "USER")[-1].split(":")
    assert int(user) > 0
    assert int(group) > 0


@image
def test_an_image_holds_the_core_its_face_and_the_models_that_it_needs(face: str) -> None:
    copied = {name for rest in arguments(face, "COPY") if not rest.startswith("--from") for name in rest.split()[:-1]}
    manifests = {f"docker/application/{name}.json" for name in ("app", "pkg")} if face == "worker" else set()
    models = {"models"} if face != "gateway" else set()
    assert copied == {"oarlock", face} | models | manifests


@image
def test_an_image_says_what_it_is(face: str) -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', arguments(face, "LABEL")[0]))
    assert labels == {
        "title": f"oarlock-{face}",
        "version": __version__,
        "revision": "$REVISION",
        "licenses": "Apache-2.0",
    }


def test_each_image_has_a_health_check_of_its_own() -> None:
    checks = {face: arguments(face, "HEALTHCHECK") for face in IMAGES}
    assert "/livez" in checks["service"][0]
    assert "$OARLOCK_ALIVE_FILE" in checks["worker"][0]
    assert "/metrics" in checks["gateway"][0]
    assert any("OARLOCK_ALIVE_FILE=/tmp/alive" in rest for rest in arguments("worker", "ENV"))


@pytest.mark.parametrize(("content", "healthy"), [("4102444800", True), ("1000000000", False), ("", False), (None, False)])
def test_the_health_check_of_the_worker_believes_a_promise_until_it_is_over(
    tmp_path: Path, content: str | None, healthy: bool
) -> None:
    file = tmp_path / "alive"
    if content is not None:
        file.write_text(content)
    command = json.loads(arguments("worker", "HEALTHCHECK")[0].partition("CMD ")[2])
    found = subprocess.run(command, env={"OARLOCK_ALIVE_FILE": str(file), "PATH": os.environ["PATH"]}, check=False)
    assert (found.returncode == 0) == healthy


def test_the_service_has_no_runtime_of_models() -> None:
    assert not [name for name in packages("service") if name.startswith(("onnx", "torch", "nvidia"))]


def test_the_worker_on_the_cpu_has_no_cuda_and_no_web_framework() -> None:
    assert not [name for name in packages("worker") if name.startswith(("nvidia", "cuda", "torch", "fastapi", "uvicorn"))]
    assert [name for name in packages("worker") if name.startswith("onnxruntime")]


def test_the_gateway_has_no_runtime_of_models_no_web_framework_and_no_queue() -> None:
    assert not [
        name for name in packages("gateway") if name.startswith(("onnx", "torch", "nvidia", "fastapi", "celery", "redis"))
    ]


def test_the_worker_on_a_gpu_brings_cuda_along() -> None:
    assert {"nvidia-cudnn-cu13", "nvidia-cublas"} <= packages("worker-cuda")
    assert packages("worker") < packages("worker-cuda")


@pytest.mark.parametrize("lock", LOCKS)
def test_no_image_gets_a_build_tool(lock: str) -> None:
    assert not packages(lock) & {"pip", "setuptools", "wheel", "uv", "hatchling", "cython", "ninja", "cmake", "pytest", "ruff"}


# ── the composition ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_up_without_and_with_a_profile(composition: Any) -> None:
    profiles = {name: tuple(service.get("profiles", ())) for name, service in composition["services"].items()}
    assert {name for name, wanted in profiles.items() if not wanted} == {
        "redis",
        "postgres",
        "service",
        "worker",
        *ONCE,
    }
    assert {name for name, wanted in profiles.items() if "gpu" in wanted} == {"worker-gpu"}
    assert {name for name, wanted in profiles.items() if "dicom" in wanted} == {"gateway"}
    assert {name for name, wanted in profiles.items() if "tls" in wanted} == {"proxy"}
    assert {name for name, wanted in profiles.items() if "monitoring" in wanted} == {"prometheus", "grafana"}


@ours
def test_our_containers_can_write_to_their_volumes_alone_and_do_nothing_privileged(composition: Any, name: str) -> None:
    service = composition["services"][name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "user", "devices", "pid"}
    assert service.get("network_mode", "none") == "none"
    assert not [volume for volume in service["volumes"] if "docker.sock" in volume]


@ours
def test_our_containers_run_the_version_of_this_tree(composition: Any, name: str) -> None:
    service = composition["services"][name]
    assert service["image"].split(":")[1] == __version__
    assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_the_composition_has_one_name_in_every_folder_so_that_a_new_version_finds_its_volumes() -> None:
    assert "COMPOSE_PROJECT_NAME=oarlock" in (ROOT / ".env").read_text().splitlines()


def test_every_image_is_named_with_its_version(composition: Any) -> None:
    for name, service in composition["services"].items():
        plain = r"[\w/-]+:v?\d[\w.-]*"
        pinnable = rf"\$\{{[A-Z]+_IMAGE:-{plain}\}}"
        assert re.fullmatch(plain if name in OURS else pinnable, service["image"])


def test_nothing_is_published_beyond_this_machine(composition: Any) -> None:
    ports = [port for service in composition["services"].values() for port in service.get("ports", ())]
    assert ports
    own = ("127.0.0.1:", "${GATEWAY_ADDRESS:-127.0.0.1}:", "${PROXY_ADDRESS:-127.0.0.1}:")
    assert all(port.startswith(own) for port in ports)


def test_the_service_believes_the_proxy_of_the_composition_and_shares_a_network_with_it_alone(composition: Any) -> None:
    address = composition["services"]["proxy"]["networks"]["edge"]["ipv4_address"]
    believed = composition["services"]["service"]["environment"]["OARLOCK_TRUSTED_PROXIES"]
    assert believed == f"${{OARLOCK_TRUSTED_PROXIES:-}},{address}"
    assert {name for name, one in composition["services"].items() if "edge" in one.get("networks", ())} == {"service", "proxy"}


def test_no_default_stands_within_a_default_which_compose_1_would_pass_on_as_it_is_written() -> None:
    assert re.findall(r"\$\{\w+:?-[^}]*\$\{.*", (ROOT / "docker-compose.yml").read_text()) == []


def test_no_other_container_is_given_the_address_of_the_proxy(composition: Any) -> None:
    """An engine gives the first free address to whoever starts first, and that is a service."""
    default = re.compile(r"\$\{PROXY_NETWORK:-([\d.]+)\}")
    (edge,) = composition["networks"]["edge"]["ipam"]["config"]
    subnet, given = (ip_network(default.sub(r"\1", edge[name])) for name in ("subnet", "ip_range"))
    address = ip_address(default.sub(r"\1", composition["services"]["proxy"]["networks"]["edge"]["ipv4_address"]))
    assert address in subnet
    assert address not in given


def test_the_gateway_reaches_the_service_and_the_hospital_and_neither_database_nor_queue(composition: Any) -> None:
    assert composition["services"]["gateway"]["networks"] == ["front"]
    assert "front" in composition["services"]["service"]["networks"]


def test_every_setting_of_the_gateway_is_passed_on_or_decided_by_its_image(composition: Any) -> None:
    decided = {"data", "host", "port", "tls_port", "metrics_host", "metrics_port"}
    passed = composition["services"]["gateway"]["environment"].keys()
    assert passed == {f"OARLOCK_GATEWAY_{name.upper()}" for name in GatewaySettings.model_fields.keys() - decided}


def test_the_database_the_queue_and_the_workers_reach_nobody_outside(composition: Any) -> None:
    assert composition["networks"]["inside"] == {"internal": True}
    for name in ("redis", "postgres", "worker", "worker-gpu", "first-key"):
        assert composition["services"][name]["networks"] == ["inside"]


def test_the_gpu_is_reserved_and_insisted_on(composition: Any) -> None:
    worker = composition["services"]["worker-gpu"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert worker["environment"]["OARLOCK_DEVICE"] == "cuda"
    assert worker["build"]["args"]["LOCK"] == LOCKS["worker-cuda"].name
    assert worker["environment"].items() > composition["services"]["worker"]["environment"].items()


def test_every_container_that_stays_is_asked_for_its_health(composition: Any) -> None:
    for name, service in composition["services"].items():
        if name not in OURS:
            assert service["healthcheck"]["test"], name
    assert all(composition["services"][name]["restart"] == "no" for name in ONCE)


def test_the_database_asks_for_a_password_that_nobody_chose_and_that_those_who_call_it_alone_can_read(composition: Any) -> None:
    services = composition["services"]
    assert services["postgres"]["environment"].keys() == {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE"}
    assert services["postgres"]["depends_on"]["first-password"] == {"condition": "service_completed_successfully"}
    for name in ("service", "first-key", "worker", "worker-gpu"):
        assert services[name]["environment"]["PGPASSFILE"] == "/secrets/pgpass"
    readers = {name for name, service in services.items() if any(v.startswith("secrets:") for v in service["volumes"])}
    assert readers == {"service", "worker", "worker-gpu", "postgres", *ONCE}
    assert {name for name in readers if "secrets:/secrets" in services[name]["volumes"]} == {"first-password"}


def test_the_passwords_are_made_once_in_the_forms_that_libpq_and_redis_read(composition: Any, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "queue").mkdir()
    program = composition["services"]["first-password"]["command"][2]
    program = program.replace("/secrets/", f"{tmp_path}/secrets/").replace("/queue/", f"{tmp_path}/queue/")

    def make() -> None:
        subprocess.run(["sh", "-euc", program], check=True, env={"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"})

    make()
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    password, word = made["postgres"].strip(), made["redis"].strip()
    assert min(len(password), len(word)) >= 43
    assert password != word
    assert made["pgpass"] == f"*:*:*:oarlock:{password}\n"
    assert made["redis-url"] == f"redis://:{word}@redis:6379/0\n"
    assert (tmp_path / "queue" / "redis.conf").read_text() == f"requirepass {word}\n"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o600}
    make()
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made


def test_the_queue_asks_for_a_password_that_lies_in_a_file(composition: Any) -> None:
    services = composition["services"]
    assert services["redis"]["command"][:2] == ["redis-server", "/queue/redis.conf"]
    assert "no" not in services["redis"]["command"]  # the protected mode is not switched off
    assert {name for name, one in services.items() if any("queue-secret:" in v for v in one["volumes"])} == {
        "redis",
        "first-password",
    }
    for name in ("service", "first-key", "worker", "worker-gpu"):
        environment = services[name]["environment"]
        assert environment["REDIS_URL_FILE"] == "/secrets/redis-url"
        assert "REDIS_URL" not in environment


def test_who_watches_does_not_reach_the_queue_or_the_database(composition: Any) -> None:
    services = composition["services"]
    networks = {name: set(services[name].get("networks", ())) for name in services}
    for watcher, inner in product(("prometheus", "grafana"), ("redis", "postgres", "worker", "worker-gpu")):
        assert not networks[watcher] & networks[inner]


FIXED = {"data", "host", "port", "plain_http", "embedded_worker", "device", "alive_file", "redis_url", "database_url"}
"""Settings that the images or the composition decide."""


def test_every_other_setting_is_passed_on_to_whoever_reads_it(composition: Any) -> None:
    environments = {name: composition["services"][name]["environment"] for name in ("service", "worker")}
    passed = {variable for environment in environments.values() for variable in environment}
    for name, variable in variables().items():
        assert name in FIXED or variable in passed, variable
    assert {f"{variable}_FILE" for name, variable in SECRETS.items() if name not in FIXED} <= environments["service"].keys()
    assert unknown_names(passed) == []
    for variable in environments["worker"]:
        assert not variable.startswith(("OARLOCK_CALLBACK", "OARLOCK_OIDC", "OARLOCK_DEIDENTIFY", "OARLOCK_TLS"))


def test_no_container_fills_the_disk_with_its_log_or_the_machine_with_its_memory(composition: Any) -> None:
    for name, service in composition["services"].items():
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert name == "first-password" or service["mem_limit"], name


def test_monitoring_writes_to_volumes_alone_knows_one_key_and_asks_nobody_outside(composition: Any) -> None:
    prometheus, grafana = (composition["services"][name] for name in ("prometheus", "grafana"))
    for service in (prometheus, grafana):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert all(volume.endswith(":ro") for volume in service["volumes"] if not volume.startswith("metrics:"))
    assert "keys:/keys:ro" in prometheus["volumes"]
    said = grafana["environment"]
    assert said["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert said["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == said["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    for outward in (
        "ANALYTICS_REPORTING_ENABLED",
        "ANALYTICS_CHECK_FOR_UPDATES",
        "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
        "NEWS_NEWS_FEED_ENABLED",
    ):
        assert said[f"GF_{outward}"] == "false"


def test_what_is_kept_is_kept_in_volumes(composition: Any) -> None:
    named = {volume.split(":")[0] for service in composition["services"].values() for volume in service.get("volumes", ())}
    assert set(composition["volumes"]) == {name for name in named if "/" not in name}
