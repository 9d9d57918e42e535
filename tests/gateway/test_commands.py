"""The commands, as somebody at a terminal sees them."""

from contextlib import closing
from pathlib import Path

import pytest

from gateway.commands import main
from gateway.configuration import Configuration
from gateway.errors import SetupInvalid
from gateway.running import Gateway
from gateway.settings import PREFIX, GatewaySettings
from tests.fixtures.organs import Series
from tests.gateway.conftest import Desk, MakeDesk

pytestmark = pytest.mark.slow


@pytest.fixture
def at_hand(make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = make_desk()
    monkeypatch.setenv(f"{PREFIX}DATA", str(desk.data))
    return desk


def test_complete_posts_a_series_that_waits_and_list_says_what_became_of_it(
    at_hand: Desk, ct: Series, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = ct.header.series_instance_uid
    at_hand.receive(*ct.files[:5], released=False)
    assert main(["complete", uid]) == 0
    at_hand.after(0)
    assert main(["complete", uid]) == 1
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert f"{uid}  CT1 -> OARLOCK  5 images  posted" in said
    assert "post 1  posted  job job-1" in said


def test_explain_says_what_would_happen_without_doing_it(at_hand: Desk, ct: Series, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(ct.files[0])]) == 0
    assert "contoured by the rule 'every series'" in capsys.readouterr().out
    assert at_hand.store.series() == []


def test_a_mistake_in_the_configuration_and_an_unknown_job_or_archive_are_said_in_a_sentence(
    at_hand: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resend", "nobody"]) == 1
    assert main(["fetch", "nowhere", "1.2"]) == 1
    (tmp_path / "gateway.toml").write_text("rules = 1", encoding="utf-8")
    monkeypatch.setenv(f"{PREFIX}CONFIGURATION", str(tmp_path / "gateway.toml"))
    assert main([]) == 1
    found = capsys.readouterr()
    assert found.out == "No result of such a job is known here.\n"
    assert "has no peer 'nowhere'" in found.err
    assert "rules: is not known here" in found.err


def test_a_second_gateway_on_the_same_folder_touches_nothing_and_says_why(tmp_path: Path) -> None:
    settings = GatewaySettings(data=tmp_path, port=0, metrics_port=None)
    with closing(Gateway(settings, Configuration())) as first, closing(Gateway(settings, Configuration())) as second:
        with first.running():
            part = tmp_path / "incoming" / "part"
            part.touch()
            with pytest.raises(SetupInvalid, match="another gateway works on"), second.running():
                pass
            assert part.exists()
        with second.running():
            assert not part.exists()


def test_check_fails_when_one_of_them_does_not_answer(
    at_hand: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = f"[[folder]]\nname = 'here'\npath = '{tmp_path}'\n[[folder]]\nname = 'gone'\npath = '{tmp_path / 'gone'}'\n"
    (tmp_path / "gateway.toml").write_text(places, encoding="utf-8")
    monkeypatch.setenv(f"{PREFIX}CONFIGURATION", str(tmp_path / "gateway.toml"))
    monkeypatch.setenv(f"{PREFIX}SERVICE", "http://127.0.0.1:1")
    assert main(["check"]) == 1
    said = [line[:10] for line in capsys.readouterr().out.splitlines()]
    assert said == ["FAIL  serv", "ok    here", "FAIL  gone"]
