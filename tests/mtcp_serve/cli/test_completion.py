"""What a shell offers: the scripts that the command prints, run in real shells."""

import os
import subprocess
import sys
from pathlib import Path

from tests.needs import needs_command

ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
BASH = """
eval "$(_MTCP_SERVE_COMPLETE=source_bash mtcp-serve)"
[[ $(complete -p mtcp-serve) =~ -F\\ ([^ ]+) ]]
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
"${BASH_REMATCH[1]}" mtcp-serve
printf '%s\\n' "${COMPREPLY[@]}"
"""


def shell(*command: str, **environment: str) -> list[str]:
    done = subprocess.run(
        command, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def offered(*words: str) -> list[str]:
    return shell("bash", "--norc", "-c", BASH, "bash", "mtcp-serve", *words)


def test_bash(bundle: Path) -> None:
    assert offered("pre") == ["predict"]
    assert offered("predict", "--over") == ["--overview", "--overlay", "--overwrite"]
    assert offered("predict", "--size", "") == ["input", "model"]
    assert offered("predict", "--bundle", str(bundle), "--overlay", "s") == ["semseg", "saliency"]
    assert offered("predict", "-b", str(bundle), "--tasks", "depth,s") == ["depth,semseg", "depth,saliency"]
    assert offered("predict", "-b", "/nowhere", "--video", "") == []


def test_tasks_of_the_bundle_in_the_environment(bundle: Path) -> None:
    asked = {"_MTCP_SERVE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "mtcp-serve predict --video d"}
    assert '"depth"' in " ".join(shell("mtcp-serve", MTCP_BUNDLE=str(bundle), **asked))
    files = {**asked, "_TYPER_COMPLETE_ARGS": "mtcp-serve predict image"}
    assert shell("mtcp-serve", **files) == ["_files"]


@needs_command("zsh", "apt install zsh")
def test_zsh_takes_the_script(bundle: Path) -> None:
    script = 'autoload -U compinit; compinit -D -u; eval "$(_MTCP_SERVE_COMPLETE=source_zsh mtcp-serve)"'
    assert shell("zsh", "-f", "-c", f"{script}; print $_comps[mtcp-serve]") == ["_mtcp_serve_completion"]


@needs_command("fish", "apt install fish")
def test_fish(bundle: Path) -> None:
    line = f"mtcp-serve predict --bundle {bundle} --overlay s"
    script = f"_MTCP_SERVE_COMPLETE=source_fish mtcp-serve | source; complete -C '{line}'"
    assert shell("fish", "--no-config", "-c", script) == ["saliency", "semseg"]
