"""The Dockerfile, as far as it can be tried without building it."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from mtcp_serve.server.settings import Settings
from tests.deploy.manifests import DOCKERFILE, ROOT

HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
hadolint = pytest.mark.skipif(HADOLINT is None, reason="no hadolint (make test installs it on x86-64 Linux)")
TEXT = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE.read_text()))
LINES = [tuple(line.split(maxsplit=1)) for line in TEXT.splitlines() if line.strip()]
FINAL = ("gpu", "triton", "cpu")


def stages() -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in LINES:
        if line[0] == "FROM":
            found[line[1].rpartition(" AS ")[2]] = []
        if found:
            found[[*found][-1]].append(line)
    return found


def environment(stage: str) -> dict[str, str]:
    words = [word for name, text in stages()[stage] if name == "ENV" for word in shlex.split(text)]
    return dict(word.split("=", 1) for word in words)


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    assert HADOLINT is not None
    return subprocess.run([HADOLINT, "--no-color", path], capture_output=True, text=True, check=False)


@hadolint
def test_hadolint_finds_nothing() -> None:
    done = lint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


@hadolint
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [("EXPOSE 8000\n", "EXPOS 8000\n", "unexpected 'E'"), ('CMD ["serve"]', "CMD serve", "DL3025")],
)
def test_hadolint_finds_slips(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    text = DOCKERFILE.read_text()
    assert right in text
    path = tmp_path / "Dockerfile"
    path.write_text(text.replace(right, wrong))
    done = lint(path)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr


def test_stages_come_from_stages_or_arguments() -> None:
    arguments = {text.partition("=")[0] for name, text in LINES if name == "ARG"}
    known: set[str] = set()
    for stage, lines in stages().items():
        base = lines[0][1].split()[0]
        assert base in known or base.strip("${}") in arguments, base
        for name, text in lines:
            if name == "COPY" and text.startswith("--from="):
                assert text.split()[0].removeprefix("--from=") in known
        known.add(stage)
    assert [*stages()][-1] == "cpu"  # what docker build makes when it is not told a target


@pytest.mark.parametrize("stage", FINAL)
def test_what_every_image_has(stage: str) -> None:
    names = [name for name, _ in stages()[stage]]
    (user,) = (text for name, text in stages()[stage] if name == "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert {"HEALTHCHECK", "LABEL", "EXPOSE", "CMD"} <= set(names)
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :])  # all of it belongs to root
    labels = next(text for name, text in stages()[stage] if name == "LABEL")
    assert "org.opencontainers.image.licenses" in labels


@pytest.mark.parametrize("stage", ["cpu", "gpu"])
def test_the_gateways_run_what_exists(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = environment(stage)
    assert variables["PYTHONDONTWRITEBYTECODE"] == "1"
    for name, value in variables.items():
        if name.startswith("MTCP_"):
            assert name.removeprefix("MTCP_").lower() in Settings.model_fields
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.host == "0.0.0.0"
    assert settings.provider == ("cuda" if stage == "gpu" else "auto")
    lines = {line[0]: line[1] for line in stages()[stage]}
    assert lines["EXPOSE"] == str(settings.port)
    assert (json.loads(lines["ENTRYPOINT"]), json.loads(lines["CMD"])) == (["mtcp-serve"], ["serve"])
    assert lines["HEALTHCHECK"].endswith('CMD ["python", "-m", "mtcp_serve.server.healthcheck"]')


def test_the_context_is_what_is_copied_and_no_more() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source.removeprefix("./")
        for name, text in LINES
        if name == "COPY" and not text.startswith("--from=")
        for source in text.split()[:-1]
    }
    assert copied == kept
    assert all((ROOT / name).exists() for name in kept)
    assert any(fnmatch("a/__pycache__", rule) for rule in rules)


def test_installs_are_pinned() -> None:
    pinned = (ROOT / "constraints.txt").read_text()
    installs = re.findall(r"pip install (.*?)(?: &&|$)", TEXT, re.MULTILINE)
    assert len(installs) == 2
    for install in installs:
        assert "-c constraints.txt" in install
    for name in ("onnxruntime", "onnxruntime-gpu"):
        assert re.search(rf"(?m)^{name}==", pinned)
