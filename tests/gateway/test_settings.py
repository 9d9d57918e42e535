"""The settings of the gateway's process."""

from pathlib import Path

import pytest

from gateway.errors import SetupInvalid
from gateway.settings import PREFIX, GatewaySettings, read_settings

pytestmark = pytest.mark.slow

HANDBOOK = Path(__file__).parents[2] / "docs" / "gateway.md"


def test_the_handbook_lists_every_setting_with_its_default() -> None:
    text = HANDBOOK.read_text(encoding="utf-8")
    for name, field in GatewaySettings.model_fields.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{PREFIX}{name.upper()}` |")]
        assert str(field.description) in line
        assert field.default is None or f"`{field.default}`" in line


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"PORTS": "1"}, "OARLOCK_GATEWAY_PORTS is not a setting of the gateway. Did you mean OARLOCK_GATEWAY_PORT?"),
        ({"PORT": "many"}, "OARLOCK_GATEWAY_PORT must be a valid integer."),
        ({"KEEP": "long"}, "OARLOCK_GATEWAY_KEEP is not a duration; write 0, 45m, 12h or 30d."),
        ({"TLS_KEY": "x"}, "OARLOCK_GATEWAY_TLS_CERTIFICATE and OARLOCK_GATEWAY_TLS_KEY go together"),
        ({"PLAIN": "false"}, "there is no other way in"),
    ],
)
def test_a_mistake_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)
    with pytest.raises(SetupInvalid) as found:
        read_settings()
    assert sentence in str(found.value)


def test_the_key_can_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n", encoding="utf-8")
    assert GatewaySettings(key_file=tmp_path / "key").secret == "secret"
    (tmp_path / "key").write_text("\n", encoding="utf-8")
    for name, reason in (("gone", "cannot be read"), ("key", "is empty")):
        with pytest.raises(SetupInvalid, match=reason):
            _ = GatewaySettings(key_file=tmp_path / name).secret
