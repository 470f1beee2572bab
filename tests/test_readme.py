"""README, `--help` and code agree. Run this file to rewrite the README's table of options."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from lavps_cli.cli.main import app
from lavps_cli.weights.index import bundled

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- options -->\n", "<!-- end of options -->\n"


def commands() -> dict[str, Any]:
    found: dict[str, Any] = {}

    def visit(command: Any, words: tuple[str, ...]) -> None:
        for name, child in getattr(command, "commands", {}).items():
            visit(child, (*words, name))
        if not hasattr(command, "commands"):
            found[" ".join(words)] = command

    visit(typer.main.get_command(app), ("lavps",))
    return found


def reference() -> str:
    """Return a Markdown list of every command with its options."""
    lines = []
    for name, command in commands().items():
        first = command.help.strip().splitlines()[0]
        options = [
            "/".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
            for option in command.params
            if option.param_type_name == "option" and not option.hidden and option.name != "help"
        ]
        lines.append(f"- **`{name}`**: {first} {', '.join(options)}".rstrip())
    return "\n".join(lines) + "\n"


def section(text: str) -> str:
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def test_every_command_and_option_is_documented() -> None:
    assert section(README.read_text()) == reference(), "run: python tests/test_readme.py"


def test_ci_runs_the_readmes_second_command() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks[0].startswith("pip install . && lavps restore examples/")
    assert blocks[1] in (ROOT / ".ci" / "run").read_text()


def test_the_first_commands_picture_is_there_with_its_record() -> None:
    from PIL import Image

    name = re.search(r"lavps restore (examples/\S+)", README.read_text())
    assert name is not None
    with Image.open(ROOT / name[1]) as picture:
        assert "lavps:degradation" in picture.info


def test_options_in_the_examples_exist() -> None:
    known = {flag for c in commands().values() for o in c.params for flag in o.opts}
    for block in re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL):
        for line in block.splitlines():
            if "lavps " in line:
                used = set(re.findall(r"(?<=\s)--?[a-zA-Z][\w-]*", line[line.index("lavps ") :]))
                assert used <= known, line


@pytest.mark.skipif("natural-64" not in bundled(), reason="needs the bundled weights")
def test_the_readmes_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "torch.Size([2, 3, 64, 64])" in capsys.readouterr().out


if __name__ == "__main__":
    text = README.read_text()
    README.write_text(text.replace(BEGIN + section(text) + END, BEGIN + reference() + END))
