"""Settings: defaults, file, environment; unknown keys refused with the nearest known one."""

from pathlib import Path

import pytest

from eyeline.core.errors import ConfigError
from eyeline.core.settings import load_settings, mask, shown


def _file(folder: Path, text: str) -> Path:
    path = folder / "eyeline.toml"
    path.write_text(text)
    return path


def test_no_file_at_all_is_enough_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environ={})
    assert settings.queue.url == f"sqlite:///{tmp_path.resolve()}/eyeline-data/queue.db"
    assert settings.gateway.host == "127.0.0.1"


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = _file(tmp_path, "[gateway]\nprot = 9000\n")
    with pytest.raises(ConfigError, match=r"gateway\.prot: no such setting; did you mean 'port'"):
        load_settings(path, environ={})


def test_an_unknown_key_inside_a_list_is_refused_too(tmp_path: Path) -> None:
    path = _file(tmp_path, '[[cameras]]\nname = "a"\nurl = "x.mp4"\nfsp = 5\n')
    with pytest.raises(ConfigError, match="did you mean 'fps'"):
        load_settings(path, environ={})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, "[gateway]\nport = 9000\n")
    settings = load_settings(path, environ={"EYELINE_GATEWAY__PORT": "9100", "EYELINE_QUEUE__URL": "memory://x"})
    assert (settings.gateway.port, settings.queue.url) == (9100, "memory://x")


def test_an_unknown_name_in_the_environment_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="EYELINE_GATEWY__PORT: no such setting; did you mean 'gateway'"):
        load_settings(environ={"EYELINE_GATEWY__PORT": "1"})
    with pytest.raises(ConfigError, match=r"in the environment: gateway\.prot: no such setting; did you mean 'port'"):
        load_settings(environ={"EYELINE_GATEWAY__PROT": "1"})
    load_settings(environ={"EYELINE_API_KEY": "not a setting, and nothing like one"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[sites]]\nname = "a"\nshifts = ["6:00"]\n', "shifts.0: a time of day is written with four digits.*'6:00'"),
        ('[[sites]]\nname = "a b"\n', "sites.0.name: a name begins with a letter or digit.*'a b'"),
        ('[[keys]]\nname = "a"\nsha256 = "x"\n', "keys.0.sha256: not the SHA-256 of a key.*eyeline keys hash"),
    ],
)
def test_what_a_pattern_wants_is_said_in_words(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_settings(_file(tmp_path, text), environ={})


def test_a_wrong_value_names_key_and_value(tmp_path: Path) -> None:
    path = _file(tmp_path, '[gateway]\nport = "many"\n')
    with pytest.raises(ConfigError, match=r"gateway\.port.*'many'"):
        load_settings(path, environ={})


def test_a_camera_that_names_no_known_pipeline_refuses_the_start(tmp_path: Path) -> None:
    path = _file(tmp_path, '[[cameras]]\nname = "a"\nurl = "x.mp4"\npipeline = "nope"\n')
    with pytest.raises(ConfigError, match="names the pipeline 'nope', which is not defined"):
        load_settings(path, environ={})


def test_a_name_given_twice_refuses_the_start(tmp_path: Path) -> None:
    path = _file(tmp_path, '[[sites]]\nname = "a"\n[[sites]]\nname = "a"\n')
    with pytest.raises(ConfigError, match="'a' stands twice"):
        load_settings(path, environ={})


def test_a_time_zone_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, '[[sites]]\nname = "a"\ntimezone = "Europe/Berln"\n')
    with pytest.raises(ConfigError, match="no time zone"):
        load_settings(path, environ={})


def test_a_missing_file_is_one_plain_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no settings file at"):
        load_settings(tmp_path / "none.toml", environ={})


def test_passwords_and_secrets_are_never_shown(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        '[queue]\nurl = "redis://ana:CANARY-1@h:1/0"\n'
        '[[alerts.channels]]\nname = "c"\nurl = "https://h/p?token=CANARY-2"\nsecret = "CANARY-3"\n',
    )
    text = repr(shown(load_settings(path, environ={})))
    assert "CANARY" not in text
    assert mask("redis://ana:x@h:1/0") == "redis://ana:***@h:1/0"
    assert mask("http://ana:x@h:1,https://h:2/?k=y") == "http://ana:***@h:1,https://h:2/?***"
