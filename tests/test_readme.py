"""The three pages say what is so: formulas reach the renderer as written, code runs, commands,
options, figures, links and equation numbers exist, and the numbers are those that are printed."""

import contextlib
import io
import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import cmarkgfm
import pytest

import gru_from_scratch
import gru_pytorch

ROOT = Path(__file__).resolve().parent.parent
PAGES = {name: (ROOT / name).read_text(encoding="utf-8")
         for name in ("README.md", "plots/README.md", "tests/README.md")}  # fmt: skip
README = PAGES["README.md"]
SCRIPTS = {"gru_from_scratch.py": gru_from_scratch, "gru_pytorch.py": gru_pytorch}


def blocks(language, page=README):
    """The contents of the fenced blocks of this language."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


# --- Mathematics --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_every_formula_reaches_the_renderer_as_written(name):
    """cmark-gfm is the parser of the code-hosting sites. What it leaves in <code> is untouched."""
    html = cmarkgfm.github_flavored_markdown_to_html(PAGES[name])
    for escaped, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        html = html.replace(escaped, character)
    inline = re.findall(r"\$`([^`]+)`\$", PAGES[name])
    assert re.findall(r"\$<code>(.*?)</code>\$", html) == inline
    displayed = re.findall(r'<pre lang="math"><code>(.*?)</code></pre>', html, re.DOTALL)
    assert displayed == blocks("math", PAGES[name])
    prose = re.sub(r"<pre.*?</pre>|\$?<code>.*?</code>\$?", "", html, flags=re.DOTALL)
    assert not re.search(r"\\[a-zA-Z]+|\$\$", prose)  # no formula outside of them


def test_the_numbers_of_the_equations_are_1_to_24_and_each_stands_at_a_line_of_the_script():
    in_page = re.findall(r"\((\d+)\)(?: \\\\)?$", "\n".join(blocks("math")), re.M)
    assert in_page == [str(number) for number in range(1, 25)]
    source = (ROOT / "gru_from_scratch.py").read_text(encoding="utf-8")
    assert set(re.findall(r"\S  # \((\d+)\)", source)) == set(in_page)


@pytest.mark.parametrize("loop", ["for x in inputs:", "for x, h_prev, z, r, rh, h_tilde in"])
def test_the_loops_on_the_page_are_those_of_the_script(loop):
    (shown,) = [block for block in blocks("python") if block.startswith(loop)]
    source = (ROOT / "gru_from_scratch.py").read_text(encoding="utf-8")
    assert textwrap.indent(shown, 8 * " ", lambda line: True) in source


# --- Code and commands --------------------------------------------------------------------------


def test_each_python_block_prints_the_block_below_it():
    examples = re.findall(r"```python\n((?:(?!```).)*)```\n+```text\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 3
    for code, output in examples:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, {})
        assert out.getvalue() == output


def commands():
    """(script, arguments) of every command on the pages that runs one of the scripts."""
    found = re.findall(r"python (gru_\w+\.py)([^\n`;|&]*)", "\n".join(PAGES.values()))
    return sorted(
        {(script, arguments.replace("$seed", "0").strip()) for script, arguments in found}
    )


@pytest.mark.parametrize(("script", "arguments"), commands())
def test_each_command_has_options_that_exist(script, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*shlex.split(arguments), "--plots-dir", str(tmp_path)]
    assert vars(SCRIPTS[script].parse_options(words))


def test_the_lines_that_load_what_is_saved_give_the_first_forecast_of_the_table(
    tmp_path, capsys, monkeypatch
):
    (snippet,) = [block for block in blocks("python") if "torch.load" in block]
    column = ["--data", "tests/sunspots.csv", "--column", "sunspots", "--epochs", "3"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / column[1]).write_bytes((ROOT / column[1]).read_bytes())
    gru_pytorch.main([*column, "--save", "sunspots.pt", "--plots-dir", "plots"])
    capsys.readouterr()
    exec(snippet, {})
    table = (tmp_path / "plots" / "sunspots_forecast.csv").read_text().splitlines()
    forecast = table[-12].split(",")[2]  # the first of the 12 that come next
    assert float(capsys.readouterr().out) == pytest.approx(float(forecast), rel=1e-5)


# --- Numbers ------------------------------------------------------------------------------------

RUNS = {  # the first words of a table on the page: the command that prints it
    "held-out MSE 0.00341": "gru_from_scratch.py --task sine --seed 0",
    "updates held-out MSE": "gru_from_scratch.py --task adding --seed 0",
    "held-out MSE 0.00132": "gru_from_scratch.py --task reset --seed 0",
    "The 14 weights": "gru_from_scratch.py --task reset --seed 0",
    "Step 26: ": "gru_from_scratch.py --task reset --seed 0",
    "test MSE 0.002663": "gru_pytorch.py --device cpu",
    "The forecast is": "gru_pytorch.py --device cpu --data tests/sunspots.csv --column sunspots",
}


def same(shown, printed):
    """Is it the same word? Numbers with a point may differ a little, since another processor rounds
    differently and training enlarges that; shares of a gradient, as 1e-11, by a factor of 10."""
    if not all(re.fullmatch(r"-?\d+\.\d+(e-\d+)?", word) for word in (shown, printed)):
        return shown == printed
    if "e" in shown:
        return 0.1 < float(shown) / float(printed) < 10
    return float(shown) == pytest.approx(float(printed), rel=0.15, abs=0.02)


@pytest.mark.parametrize(
    "start",
    [pytest.param(start, marks=pytest.mark.run(command)) for start, command in RUNS.items()],
)
def test_the_tables_of_the_page_are_those_of_the_default_run(start, output):
    (shown,) = [block for block in blocks("text") if " ".join(block.split()).startswith(start)]
    lines, head = output.splitlines(), shown.splitlines()[0].split()
    (first,) = [i for i, line in enumerate(lines) if all(map(same, head, line.split() or [""]))]
    printed = "\n".join(lines[first : first + len(shown.splitlines())])
    pairs = zip(shown.split(), printed.split(), strict=True)
    different = [f"{a} for {b}" for a, b in pairs if not same(a, b)]
    assert not different, f"paste what `python {RUNS[start]}` prints"


CLAIMS = {  # words of a row: the column of the full table, and which LSTM
    "fewer weights": ("weights", 1),
    "fewer updates": ("updates", 1),
    "forget bias of 1": ("updates", 3),
    "less time": ("ms", 1),
    "fewer seconds": ("s", 1),
    "final error": ("error", 1),
}


@pytest.mark.parametrize("words", CLAIMS)
def test_the_numbers_of_each_claim_are_those_of_its_column_in_the_full_table(words):
    row = r"^(?:GRU|LSTM) .*?  +(?P<weights>\d+) +\S+ +(?P<updates>\S+) \(.*?\) +"
    row += r"(?P<ms>\S+) +(?P<s>\S+) +(?P<error>\S+) \("
    full = {}  # task -> the four rows
    for task, block in zip(
        ("sine", "adding"), blocks("text", PAGES["plots/README.md"]), strict=True
    ):
        full[task] = [match.groupdict() for match in re.finditer(row, block, re.M)]
        assert len(full[task]) == 4
    column, network = CLAIMS[words]
    (line,) = [line for line in README.splitlines() if line.startswith("|") and words in line]
    shown = re.findall(r"(sine|adding): (\S+) (?:\w+ )?against ([^\s;|]+)", line)
    assert shown
    for task, gru, lstm in shown:
        assert (gru, lstm) == (full[task][0][column], full[task][network][column])


# --- Figures, links and tests -------------------------------------------------------------------


def tracked(*patterns):
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True
    )
    return set(listed.stdout.split()) or pytest.skip("not a git checkout")


def test_each_figure_is_committed_shown_described_and_small():
    shown = dict((path, alt) for alt, path in re.findall(r"!\[(.*?)\]\((plots/.*?)\)", README))
    committed = tracked("plots/*.png", "plots/*.svg")
    assert set(shown) <= committed
    for path in committed:
        assert len(shown.get(path, 40 * "-")) > 30, (
            f"{path} needs an alt text for who cannot see it"
        )
        assert (ROOT / path).stat().st_size < 300_000
        assert Path(path).name in PAGES["plots/README.md"], f"{path}: by which command?"


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_repository_resolve(name):
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PAGES[name], re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("https://"):
            assert ((ROOT / name).parent / target.split("#")[0]).exists(), target


def test_each_test_that_a_page_names_exists():
    named = set(re.findall(r"`(test_\w+)`", "\n".join(PAGES.values())))
    files = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert len(named) > 10
    assert named <= set(re.findall(r"^def (test_\w+)", "\n".join(files), re.MULTILINE))
