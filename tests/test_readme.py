"""The pages say what is so: formulas reach the renderer as written, code runs, commands, figures
and links exist, and the numbers are those that are printed."""

import re
import shlex
import subprocess
import textwrap
from html import unescape
from pathlib import Path

import cmarkgfm
import pytest
from conftest import ROOT

import gru_from_scratch
import gru_pytorch

NAMES = "README.md", "plots/README.md", "tests/README.md"
PAGES = {name: (ROOT / name).read_text("utf-8") for name in NAMES}
README, SCRIPT = PAGES["README.md"], (ROOT / "gru_from_scratch.py").read_text("utf-8")


def blocks(language, page=README):
    """The contents of the fenced blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", PAGES)
def test_every_formula_reaches_the_renderer_as_written(name):
    """cmark-gfm is the parser of the code-hosting sites. What it leaves in <code> is untouched."""
    html = unescape(cmarkgfm.github_flavored_markdown_to_html(PAGES[name]))
    inline = re.findall(r"\$`([^`]+)`\$", PAGES[name])
    assert re.findall(r"\$<code>(.*?)</code>\$", html) == inline
    displayed = re.findall(r'<pre lang="math"><code>(.*?)</code></pre>', html, re.DOTALL)
    assert displayed == blocks("math", PAGES[name])
    prose = re.sub(r"<pre.*?</pre>|\$?<code>.*?</code>\$?", "", html, flags=re.DOTALL)
    assert not re.search(r"\\[a-zA-Z]+|\$\$", prose)  # no formula outside of them


def test_each_numbered_equation_of_the_page_stands_at_a_line_of_the_script():
    number = r"\((\d+[a-f]?)\)"
    in_page = re.findall(number, "\n".join(blocks("math")))
    assert len(in_page) == 32 == len(set(in_page))
    assert set(in_page) == set(re.findall(rf"\S  # {number}", SCRIPT))


def test_the_loops_on_the_page_are_those_of_the_script():
    loops = [block for block in blocks("python") if block.startswith("for x")]
    assert [textwrap.indent(loop, 8 * " ") in SCRIPT for loop in loops] == [True, True]


def test_each_python_block_prints_the_block_below_it(capsys):
    examples = re.findall(r"```python\n((?:(?!```).)*)```\n+```text\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 2
    for code, output in examples:
        exec(code, {})
        assert capsys.readouterr().out == output


COMMANDS = set(re.findall(r"python (gru_\w+)\.py([^\n`;|&]*)", "\n".join(PAGES.values())))


@pytest.mark.parametrize("script, arguments", sorted(COMMANDS))
def test_each_command_has_options_that_exist(script, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = {"gru_from_scratch": gru_from_scratch, "gru_pytorch": gru_pytorch}[script]
    words = shlex.split(arguments.replace("$seed", "0"))
    assert module.parse_options([*words, "--plots-dir", str(tmp_path)])


def test_the_lines_that_load_what_is_saved_forecast_what_the_script_has_forecast(tmp_path, capsys):
    (snippet,) = [block for block in blocks("python") if "torch.load" in block]
    data, saved = ROOT / "tests" / "sunspots.csv", tmp_path / "sunspots.pt"
    command = f"--column sunspots --epochs 3 --data {data} --save {saved} --plots-dir {tmp_path}"
    gru_pytorch.main(command.split())
    capsys.readouterr()
    snippet = snippet.replace("tests/sunspots.csv", data.as_posix())
    exec(snippet.replace(saved.name, saved.as_posix()))
    shown = [float(number) for number in re.findall(r"\d+\.\d+", capsys.readouterr().out)]
    table = (tmp_path / "sunspots_forecast.csv").read_text().splitlines()
    assert shown == pytest.approx([float(line.split(",")[1]) for line in table[1:]], abs=0.001)


RESET = "gru_from_scratch.py --task reset --seed 0"
RUNS = {  # how a table on the page begins: the command that prints it
    "held-out MSE 0.003": "gru_from_scratch.py --task sine --seed 0",
    "updates held-out MSE": "gru_from_scratch.py --task adding --seed 0",
    "held-out MSE 0.002": RESET,
    "The 14 weights": RESET,
    "Step 26: ": RESET,
    "test MSE": "gru_pytorch.py --device cpu",
    "blend": "gru_pytorch.py --device cpu --data tests/sunspots.csv --column sunspots",
}


def same(shown, printed):
    """Is it the same word? Numbers with a point may differ a little, since another processor rounds
    differently and training enlarges that; shares of a gradient, as 1e-11, by a factor of 10."""
    if not all(re.fullmatch(r"-?\d+\.\d+(e-\d+)?", word) for word in (shown, printed)):
        return shown == printed
    if "e" in shown:
        return 0.1 < float(shown) / float(printed) < 10
    last_place = 10.0 ** -len(shown.split(".")[1])
    return float(shown) == pytest.approx(float(printed), rel=0.15, abs=20 * last_place)


@pytest.mark.parametrize("start", [pytest.param(s, marks=pytest.mark.run(RUNS[s])) for s in RUNS])
def test_the_tables_of_the_page_are_those_of_the_default_run(start, output):
    (shown,) = [block for block in blocks("text") if " ".join(block.split()).startswith(start)]
    lines, head = output.splitlines(), shown.splitlines()[0].split()
    (first,) = [i for i, line in enumerate(lines) if all(map(same, head, line.split() or [""]))]
    printed = "\n".join(lines[first : first + len(shown.splitlines())])
    pairs = zip(shown.split(), printed.split(), strict=True)
    different = [f"{a} for {b}" for a, b in pairs if not same(a, b)]
    assert not different, f"paste what `python {RUNS[start]}` prints"


def test_each_number_of_the_claims_is_that_of_the_full_tables():
    (speed,) = blocks("text", PAGES["tests/README.md"])
    times = re.findall(r"^ +\d+ +\d+ +[35]0 +(\S+) +(\S+) +\S+$", speed, re.M)  # GRU, LSTM
    tables = blocks("text", PAGES["plots/README.md"])
    for task, text, (ms, lstm_ms) in zip(("sine", "adding"), tables, times, strict=True):
        rows = re.findall(r"rate \S+ +(\d+) +(\d+) \(.*?\) +(\S+) \(", text)
        (weights, updates, mse), (lstm_weights, lstm_updates, lstm_mse), _, (_, forget, _) = rows
        s, lstm_s = (int(updates) * float(ms), int(lstm_updates) * float(lstm_ms))
        for words, claim in (
            ("fewer weights", f"{weights} against {lstm_weights}"),
            ("fewer updates", f"{updates} against {lstm_updates}"),
            ("forget bias of 1", f"{updates} against {forget}"),
            ("less time", f"{ms} ms against {lstm_ms} ms"),
            ("fewer seconds", f"{s / 1000:.1f} s against {lstm_s / 1000:.1f} s"),
            ("final error", f"{mse} against {lstm_mse}"),
        ):
            assert re.search(rf"^\|.*{words}.*{task}: {re.escape(claim)}\b", README, re.M), words


def test_each_figure_is_committed_described_and_small_and_says_its_command():
    shown = {path: alt for alt, path in re.findall(r"!\[(.*?)\]\((plots/.*?)\)", README)}
    listed = subprocess.run(["git", "ls-files", "plots"], cwd=ROOT, capture_output=True, text=True)
    figures = {path for path in listed.stdout.split() if not path.endswith(".md")}
    assert shown.keys() <= figures or not figures  # outside of a checkout
    assert all(len(alt) > 30 for alt in shown.values())  # for who cannot see them
    for path in figures:
        assert (ROOT / path).stat().st_size < 300_000
        assert Path(path).name in PAGES["plots/README.md"], path


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_repository_and_named_tests_exist(name):
    for target in re.findall(r"\]\((?!https://)([^)]+)\)", PAGES[name]):
        path, _, anchor = target.partition("#")
        page = (ROOT / name).parent / path
        assert page.exists(), target
        words = "[, ]+".join(anchor.split("-"))
        assert not anchor or re.search(f"^#+ {words}$", page.read_text("utf-8"), re.M | re.I)
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert all(f"def {test}(" in tests for test in re.findall(r"`(test_\w+)`", PAGES[name]))
