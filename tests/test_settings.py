"""What an operator may get wrong: each mistake is one sentence that names the variable, and nothing starts."""

import base64
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from oarlock.settings import SECRETS, Settings, SettingsInvalid, read_settings, unknown_names

ROOT = Path(__file__).parent.parent
KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
SIGNING = "whsec_" + base64.b64encode(bytes(24)).decode()
NO_SECRET = {"OARLOCK_CALLBACK_SECRETS": "whsec_short", "OARLOCK_DEIDENTIFY_KEY": "c2hvcnQ="}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS.values(), *(name for name in os.environ if name.startswith("OARLOCK_"))):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("OARLOCK_KEEP_RESULT", "30d", "OARLOCK_KEEP_RESULT is not a setting of Oarlock. Did you mean OARLOCK_KEEP_RESULTS?"),
        ("OARLOCK_MODLE", "x", "OARLOCK_MODLE is not a setting of Oarlock. Did you mean OARLOCK_MODEL?"),
        ("OARLOCK_XYZZY", "x", "OARLOCK_XYZZY is not a setting of Oarlock."),
        ("OARLOCK_KEEP_INPUT", "banana", "OARLOCK_KEEP_INPUT is not a duration; write 0, 45m, 12h or 30d."),
        ("OARLOCK_TIME_ZONE", "Middle/Earth", "OARLOCK_TIME_ZONE is not a time zone that this system knows"),
        ("OARLOCK_TIME_ZONE", "../../etc/passwd", "OARLOCK_TIME_ZONE is not a time zone that this system knows"),
        ("OARLOCK_PORT", "tcp://10.0.0.1:8000", "OARLOCK_PORT must be a valid integer."),
        ("OARLOCK_EMBEDDED_WORKER", "perhaps", "OARLOCK_EMBEDDED_WORKER must be a valid boolean."),
        ("REDIS_URL", "localhost:6379", "REDIS_URL must be the URL of a Redis"),
        ("DATABASE_URL", "mysql://localhost/oarlock", "DATABASE_URL must be the URL of a PostgreSQL"),
        ("OARLOCK_DEVICE", "tpu", "OARLOCK_DEVICE must be one of auto, cpu, cuda."),
        ("OARLOCK_BACKEND_SCAN", "/nowhere", "OARLOCK_BACKEND_SCAN must be a folder that exists."),
        ("OARLOCK_OIDC_SCOPE_MAP", "{", "OARLOCK_OIDC_SCOPE_MAP is not valid JSON."),
        ("OARLOCK_CALLBACK_HOSTS", "tps.example", "OARLOCK_CALLBACK_HOSTS needs OARLOCK_CALLBACK_SECRETS"),
        ("OARLOCK_DEIDENTIFY_KEY", NO_SECRET["OARLOCK_DEIDENTIFY_KEY"], "OARLOCK_DEIDENTIFY_KEY is not a key; make one with"),
        ("OARLOCK_CALLBACK_SECRETS", "whsec_short", "OARLOCK_CALLBACK_SECRETS must be whsec_ and at least 24 random bytes"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_variable(
    variable: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsInvalid) as caught:
        read_settings()
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OARLOCK_KEEP_RESULT", "30d")
    monkeypatch.setenv("OARLOCK_THREADS", "many")
    with pytest.raises(SettingsInvalid, match=r"OARLOCK_KEEP_RESULT .*OARLOCK_THREADS must"):
        read_settings()


@pytest.mark.parametrize(("variable", "value"), NO_SECRET.items())
def test_the_value_of_a_secret_is_never_said(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsInvalid) as caught:
        read_settings()
    assert value not in str(caught.value)


def test_every_setting_is_known_by_its_variable_and_others_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [f"OARLOCK_{name.upper()}" for name in Settings.model_fields]
    files = [f"{variable}_FILE" for variable in SECRETS.values()]
    kubernetes = [
        "OARLOCK_SERVICE_HOST",
        "OARLOCK_SERVICE_PORT_HTTP",
        "OARLOCK_REDIS_PORT_6379_TCP_ADDR",
        "OARLOCK_PORT_8000_TCP",
    ]
    assert unknown_names([*fields, *files, *kubernetes, "OARLOCK_GATEWAY_PORT", "PATH"]) == []


SECRET_VALUES = {
    "redis_url": "redis://:word@redis:6379/0",
    "database_url": "postgresql://oarlock:word@postgres/oarlock",
    "callback_secrets": SIGNING,
    "deidentify_key": KEY,
    "oidc_client_secret": "of the client",
}


@pytest.mark.parametrize("field", SECRETS)
def test_a_secret_may_stand_in_a_file(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(SECRET_VALUES[field] + "\n")
    monkeypatch.setenv(f"{SECRETS[field]}_FILE", str(tmp_path / "secret"))
    found = getattr(read_settings(), field)
    assert found == ([SECRET_VALUES[field]] if field == "callback_secrets" else SECRET_VALUES[field])


def test_every_setting_that_is_not_shown_may_stand_in_a_file() -> None:
    assert {name for name, field in Settings.model_fields.items() if not field.repr} <= set(SECRETS)


def test_a_secret_in_two_places_or_in_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OARLOCK_DEIDENTIFY_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsInvalid, match=r"OARLOCK_DEIDENTIFY_KEY_FILE names .*No such file"):
        read_settings()
    (tmp_path / "none").write_text(KEY)
    monkeypatch.setenv("OARLOCK_DEIDENTIFY_KEY", KEY)
    with pytest.raises(SettingsInvalid, match="both set"):
        read_settings()


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", ["service", *(pytest.param(other, marks=pytest.mark.long("matrix")) for other in ("worker", "oarlock.cli"))]
)
def test_no_program_starts_with_a_misspelt_setting(program: str, tmp_path: Path) -> None:
    environment = os.environ | {"OARLOCK_KEEP_RESULT": "30d", "OARLOCK_DATA": str(tmp_path / "data"), "REDIS_URL": "redis://none"}
    command = [sys.executable, "-m", program, *(["keys", "list"] if program == "oarlock.cli" else [])]
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode in {1, 2}
    (line,) = ended.stderr.splitlines()
    assert "Did you mean OARLOCK_KEEP_RESULTS?" in line
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_a_worker_without_a_redis_names_the_setting(tmp_path: Path) -> None:
    environment = os.environ | {"OARLOCK_DATA": str(tmp_path)}
    environment.pop("REDIS_URL", None)
    command = [sys.executable, "-m", "worker"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, "REDIS_URL is not set" in ended.stderr) == (1, True)


def test_a_time_zone_has_summer_and_winter_and_without_one_the_machines_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().zone is None
    monkeypatch.setenv("OARLOCK_TIME_ZONE", "Europe/Berlin")
    zone = read_settings().zone
    offsets = [datetime(2026, month, 1, tzinfo=UTC).astimezone(zone).strftime("%z") for month in (1, 7)]
    assert offsets == ["+0100", "+0200"]
