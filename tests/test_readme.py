"""README.md says what is so: its commands run, its numbers are printed, its figures are made."""

import io
import math
import re
import shlex
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import gru_from_scratch
import gru_pytorch

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = {"gru_from_scratch.py": gru_from_scratch, "gru_pytorch.py": gru_pytorch}


def blocks(language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)


def script_commands():
    """(script, arguments) of each command that runs one of the scripts, in a block or in a line."""
    found = re.findall(r"python (gru_\w+\.py)([^\n`;|&]*)", README)
    return sorted({(name, arguments.replace("$seed", "0").strip()) for name, arguments in found})


def quick(script, arguments, folder, monkeypatch):
    """Run a script in quick mode, in a folder with the series that the README makes."""
    monkeypatch.chdir(folder)
    words = shlex.split(arguments)
    if "FILE" in words:  # a placeholder
        words[words.index("FILE")] = "series.txt"
    if "NAME" in words:
        (folder / "table.csv").write_text(
            "a,NAME\n" + "".join(f"{i},{i % 7}\n" for i in range(200))
        )
        words[words.index("series.txt")] = "table.csv"
    return SCRIPTS[script].main([*words, "--quick", "--plots-dir", str(folder / "plots")])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "series.txt").write_text("\n".join(str(i % 12 + i / 50) for i in range(600)))
    (tmp_path / "noise.txt").write_text("\n".join(str(math.sin(i * i)) for i in range(400)))
    return tmp_path


@pytest.mark.parametrize(("script", "arguments"), script_commands())
def test_each_command_of_a_script_runs(script, arguments, folder, monkeypatch):
    assert quick(script, arguments, folder, monkeypatch) == 0


def one_liners():
    return [
        line.strip() for block in blocks("bash") for line in block.splitlines() if " -c " in line
    ]


@pytest.mark.parametrize("line", one_liners())
def test_each_one_liner_runs(line, tmp_path):
    command, _, output = line.partition(" > ")
    words = shlex.split(command.replace("\\n", "\\\\n"))
    words = [sys.executable, *(word.replace("\\\\n", "\\n") for word in words[1:])]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    if output:
        assert gru_pytorch.read_series(write(tmp_path / output, result.stdout), None).numel() >= 400


def write(path, text):
    path.write_text(text)
    return path


def test_the_python_example_runs(tmp_path):
    (example,) = blocks("python")
    code = "\n".join(line[2:] for line in example.splitlines())
    given = "import numpy as np\ninputs = [np.ones((1, 5))] * 30\ntarget = dy = np.ones((1, 5))\n"
    names = {}
    exec(given + code, names)
    assert names["gradient"].shape == names["model"].theta.shape
    assert names["d_inputs"].shape == (30, 1, 5)
    assert names["d_h0"].shape == (32, 5)


def test_every_other_command_names_files_that_exist():
    for block in blocks("bash"):
        for name in re.findall(r"(?:tests/)?\w+\.(?:py|txt)", block):
            assert (ROOT / name).exists() or name in ("series.txt", "noise.txt"), name


def options_of(script, capsys):
    assert SCRIPTS[script].main(["--help"]) == 0
    return set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}


def option_table():
    """option -> its defaults in the two scripts, from the table of options; "" if it has none."""
    (table,) = re.findall(r"^\| option \| NumPy \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    rows = {}
    for line in table.strip().splitlines()[2:]:
        names, in_numpy, in_torch, _ = (cell.strip() for cell in line.strip("|").split("|"))
        for name in re.findall(r"--([a-z-]+)", names):
            rows[name] = {"gru_from_scratch.py": in_numpy, "gru_pytorch.py": in_torch}
    return rows


def test_each_option_that_it_names_exists_and_each_option_is_named(capsys):
    exist = {script: options_of(script, capsys) for script in SCRIPTS}
    for script, options in exist.items():
        assert {f"--{name}" for name, given in option_table().items() if given[script]} == options
    prose = re.sub(r"^ *```text\n.*?^ *```$", "", README, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", prose)) <= set().union(*exist.values())


def test_the_table_of_options_gives_the_defaults(tmp_path):
    plots = ["--plots-dir", str(tmp_path)]
    defaults = {
        "gru_from_scratch.py": [gru_from_scratch.parse_options(plots)],
        "gru_pytorch.py": [
            gru_pytorch.parse_options(plots),
            gru_pytorch.parse_options(["--compare", "--task", "adding", *plots]),
        ],
    }
    numbers = 0
    for name, given in option_table().items():
        for script, options in defaults.items():
            values = given[script].split("; adding: ")
            if re.fullmatch(r"[\d.]+", values[0]):
                for value, where in zip((values[0], values[-1]), options):
                    assert float(value) == getattr(where, name.replace("-", "_")), name
                    numbers += 1
    assert numbers == 7 + 2 * 9


def figures():
    return re.findall(r"!\[(.*?)\]\((plots/\w+\.png)\)", README)


def test_each_figure_is_committed_and_described():
    tracked = subprocess.run(
        ["git", "ls-files", "plots"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    assert sorted(path for _, path in figures()) == sorted(tracked)
    for alt, path in figures():
        assert len(alt) > 40, f"{path} needs an alt text that says what it shows"
        assert (ROOT / path).stat().st_size < 300_000


def test_the_line_that_makes_every_figure_makes_every_figure(folder, monkeypatch):
    (line,) = [line for line in README.splitlines() if line.count("&& python gru_") > 2]
    for command in line.split(" && "):
        _, script, *arguments = shlex.split(command)
        assert quick(script, shlex.join(arguments), folder, monkeypatch) == 0
    made = {f"plots/{path.name}" for path in (folder / "plots").iterdir()}
    assert made == {path for _, path in figures()}


def test_each_equation_number_stands_at_a_line_of_code_and_the_other_way_round():
    in_readme = re.findall(r"&& \((\d+)\)", README)
    assert [int(number) for number in in_readme] == list(range(1, len(in_readme) + 1))
    source = (ROOT / "gru_from_scratch.py").read_text(encoding="utf-8")
    in_code = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        beside_code = token.type == tokenize.COMMENT and not token.line.lstrip().startswith("#")
        if beside_code:
            in_code |= set(re.findall(r"\((\d\d?)\)", token.string))
    assert in_code == set(in_readme)


def test_each_test_that_it_names_exists():
    named = set(re.findall(r"`(test_\w+)`", README))
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert named
    assert named <= set(re.findall(r"^def (test_\w+)", tests, re.MULTILINE))


def slug(heading):
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def test_links_within_the_repository_resolve():
    anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target


ROWS = r"^(held-out MSE|validation MSE|best possible|noise floor|persistence|parameters) +([\d.]+)"


def printed(text):
    return {name: float(value) for name, value in re.findall(ROWS, text, re.MULTILINE)}


@pytest.mark.parametrize(
    ("script", "measure"),
    [("gru_from_scratch.py", "held-out MSE"), ("gru_pytorch.py", "validation MSE")],
)
def test_the_table_of_a_default_run_is_the_one_in_the_readme(script, measure, tmp_path, capsys):
    """To 15 %: another processor rounds differently, and training enlarges the difference."""
    (given,) = (printed(block) for block in blocks("text") if measure in printed(block))
    assert SCRIPTS[script].main(["--plots-dir", str(tmp_path)]) == 0
    measured = printed(capsys.readouterr().out)
    assert given.keys() == measured.keys()
    for name, value in given.items():
        assert measured[name] == pytest.approx(value, rel=0.15), name


def test_the_gradient_table_of_a_default_run_is_the_one_in_the_readme(tmp_path, capsys):
    """Within a factor of 10: these numbers span thirteen decades and hang on every weight."""

    def rows(text):
        lines = re.findall(r"^ *((?:un)?trained)((?: +[\d.]+e[+-]\d+){3})$", text, re.MULTILINE)
        return {name: [float(value) for value in values.split()] for name, values in lines}

    assert gru_from_scratch.main(["--plots-dir", str(tmp_path)]) == 0
    given, measured = rows(README), rows(capsys.readouterr().out)
    assert given.keys() == measured.keys() == {"untrained", "trained"}
    for name, values in given.items():
        for value, other in zip(values, measured[name]):
            assert abs(math.log10(value / other)) < 1, name
