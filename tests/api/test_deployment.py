"""The files with which the launchpad is installed: what they name is there. No container engine is needed to see that."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from launchpad.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "services/launchpad/llamaflow-launchpad.service"
IMAGE = ROOT / "services/launchpad/Dockerfile"
RECIPES = [IMAGE, *sorted(ROOT.glob("containers/*/Dockerfile"))]
COMPOSE = yaml.safe_load((ROOT / "services/compose.yml").read_text())


def instructions(recipe: Path, name: str) -> list[list[str]]:
    """The words of each instruction of that name, without its flags."""
    text = recipe.read_text().replace("\\\n", " ")
    return [
        [word for word in line.split()[1:] if not word.startswith("--")] for line in text.splitlines() if line.startswith(f"{name} ") and "--from" not in line
    ]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.parent.name)
def test_what_is_copied_into_an_image_is_there(recipe: Path) -> None:
    copied = [name for *names, _ in instructions(recipe, "COPY") for name in names]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_what_git_ignores_comes_into_no_image() -> None:
    """Passwords, data and environments among it."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    expected = {line if line.startswith("/") else f"**/{line}" for line in ignored}
    assert expected - set((ROOT / ".dockerignore").read_text().splitlines()) == set()


@pytest.mark.parametrize("file", [UNIT, IMAGE], ids=["systemd", "Docker"])
def test_settings_that_are_given_are_there(file: Path) -> None:
    given = set(re.findall(rf"\b{PREFIX}([A-Z_]+)=", file.read_text()))
    assert given
    assert given <= {name.upper() for name in Settings.model_fields}


def test_the_image_runs_as_a_user_who_owns_the_data() -> None:
    (user,), (data,) = instructions(IMAGE, "USER")[0], instructions(IMAGE, "VOLUME")[0]
    recipe = IMAGE.read_text()
    assert f"useradd --create-home {user} && mkdir {data} && chown {user} {data}" in recipe
    assert f"{PREFIX}DATA={data}" in recipe
    assert COMPOSE["services"]["launchpad"]["volumes"] == [f"launchpad:{data}"]
    port = Settings.model_fields["port"].default
    assert instructions(IMAGE, "EXPOSE") == [[str(port)]]
    assert f":{port}/api/service-info" in instructions(IMAGE, "HEALTHCHECK")[0][-2]


def test_the_services_are_reached_from_this_machine_alone_and_their_folders_are_there() -> None:
    services = COMPOSE["services"].values()
    assert {port.split(":")[0] for service in services for port in service.get("ports", [])} == {"127.0.0.1"}
    mounts = [mount.split(":")[0] for service in services for mount in service.get("volumes", [])]
    folders = [mount for mount in mounts if mount.startswith(".")]
    assert [folder for folder in folders if not (ROOT / "services" / folder).is_dir()] == []
    assert set(mounts) - set(folders) == set(COMPOSE["volumes"])
    build = COMPOSE["services"]["launchpad"]["build"]
    assert (ROOT / "services" / build["context"] / build["dockerfile"]).resolve() == IMAGE


def test_no_password_has_a_value_in_a_file() -> None:
    given = [pair for service in COMPOSE["services"].values() for pair in service.get("environment", {}).items()]
    secret = {name: value for name, value in given if re.search("PASSWORD|KEY|TOKEN", name)}
    assert secret
    assert [name for name, value in secret.items() if not re.fullmatch(r"\$\{\w+:\?[^}]+\}", value)] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """On this machine the command and the user are not there; all else is as it is."""
    unit = tmp_path / UNIT.name
    text = re.sub("^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE)
    unit.write_text(re.sub("^User=.*", "User=root", text, flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
