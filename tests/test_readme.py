"""The pages say what is so: formulas reach the renderer as written and are what the code computes,
excerpts are those of the script, code runs, commands, figures and links exist, and the numbers are
those that are printed."""

import re
import shlex
import subprocess
import textwrap
from html import unescape
from pathlib import Path

import cmarkgfm
import numpy as np
import pytest
from conftest import ROOT
from test_gradients import random_case

import gru_from_scratch as gfs
import gru_pytorch

NAMES = "README.md", "plots/README.md", "tests/README.md"
PAGES = {name: (ROOT / name).read_text("utf-8") for name in NAMES}
README, SCRIPT = PAGES["README.md"], (ROOT / "gru_from_scratch.py").read_text("utf-8")


def blocks(language, page=README):
    """The contents of the fenced blocks of this language, those within a list too."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


# --- Formulas and excerpts ----------------------------------------------------------------------


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


def test_equations_1_to_7_of_the_page_and_of_the_docstring_are_what_the_code_computes(monkeypatch):
    """Each stands here as on the page, as in the docstring, in Python, and as the code has it."""
    model, inputs, h_prev, _ = random_case(1, 1, (2, 5, 2))
    p, x, target, backward, blame = model.parameters, inputs[0], np.ones((2, 1)), model.backward, []
    y, (step,) = model.forward(inputs, h_prev)
    z, r, h_tilde, h = step.z, step.r, step.h_tilde, step.h
    monkeypatch.setattr(
        model, "backward", lambda dy, steps: blame.append(dy) or backward(dy, steps)
    )
    monkeypatch.setattr(model, "forward", lambda _: (y, [step]))
    L = gfs.train_step(model, gfs.Adam(0.0), inputs, target, 1.0)
    for page, docstring, python, code in (
        (
            r"z_t &= \sigma(W_z x_t + U_z h_{t-1} + b_z) && (1)",
            "(1)  z_t = sigma(W_z @ x_t + U_z @ h_{t-1} + b_z)",
            gfs.sigmoid(p["W_z"] @ x + p["U_z"] @ h_prev + p["b_z"]),
            z,
        ),
        (
            r"r_t &= \sigma(W_r x_t + U_r h_{t-1} + b_r) && (2)",
            "(2)  r_t = sigma(W_r @ x_t + U_r @ h_{t-1} + b_r)",
            gfs.sigmoid(p["W_r"] @ x + p["U_r"] @ h_prev + p["b_r"]),
            r,
        ),
        (
            r"\tilde{h}_t = \tanh(W_h x_t + U_h (r_t \odot h_{t-1}) + b_h) \qquad (3)",
            "(3)  h_tilde_t = tanh(W_h @ x_t + U_h @ (r_t * h_{t-1}) + b_h)",
            np.tanh(p["W_h"] @ x + p["U_h"] @ (r * h_prev) + p["b_h"]),
            h_tilde,
        ),
        (
            r"h_t = (1 - z_t) \odot h_{t-1} + z_t \odot \tilde{h}_t \qquad (4)",
            "(4)  h_t = (1 - z_t) * h_{t-1} + z_t * h_tilde_t",
            (1 - z) * h_prev + z * h_tilde,
            h,
        ),
        (
            r"y &= W_y h_T + b_y && (5)",
            "(5)  y = W_y @ h_T + b_y",
            p["W_y"] @ h + p["b_y"],
            y,
        ),
        (
            r"L &= \operatorname{mean}((y - \text{target})^2) && (6)",
            "(6)  L = mean((y - target)^2)",
            np.mean((y - target) ** 2),
            L,
        ),
        (
            r"\mathrm{d}y = 2 (y - \text{target}) / N \qquad (7)",
            "(7)  dL/dy = 2 * (y - target) / (how many numbers y has)",
            2 * (y - target) / 2,
            blame[0],
        ),
    ):
        assert page in README
        assert docstring in re.sub(" +=", " =", gfs.__doc__)
        np.testing.assert_allclose(python, code, err_msg=page)


def test_the_excerpts_on_the_page_are_those_of_the_script():
    excerpts = [block for block in blocks("python") if block.startswith(("for ", "# (5)"))]
    assert len(excerpts) == 4  # forward, the head and the loop of backward, Adam
    for excerpt in excerpts:
        assert textwrap.indent(excerpt, 8 * " ") in SCRIPT
    for tag, line in (
        ("(8)", "G * (max_norm / norm)"),
        ("(14)", "(1 + math.cos(math.pi * (k - 1) / K)) / 2"),
    ):
        assert tag in README and f"`{line}`" in README and line in SCRIPT


def test_each_python_block_prints_the_block_below_it(capsys):
    examples = re.findall(r"```python\n((?:(?!```).)*)```\n+```text\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 2
    for code, output in examples:
        exec(code, {})
        assert capsys.readouterr().out == output


# --- Commands and what they print ---------------------------------------------------------------


COMMANDS = set(re.findall(r"python (gru_\w+)\.py([^\n`;|&]*)", "\n".join(PAGES.values())))


@pytest.mark.parametrize("script, arguments", sorted(COMMANDS))
def test_each_command_has_options_that_exist(script, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*shlex.split(arguments.replace("$seed", "0")), "--plots-dir", str(tmp_path)]
    if script == "gru_from_scratch":
        assert gfs.parse_options(words)
    else:
        assert gru_pytorch.parse_options(gru_pytorch.make_parser(), words)


RESET = "gru_from_scratch.py --task reset --seed 0"
SUNSPOTS = "gru_pytorch.py --device cpu --data tests/sunspots.csv --column sunspots"
RUNS = {  # how a table on the page begins: the command that prints it
    "held-out MSE 0.003": "gru_from_scratch.py --task sine --seed 0",
    "updates held-out MSE": "gru_from_scratch.py --task adding --seed 0",
    "held-out MSE 0.001": RESET,
    "The 14 weights": RESET,
    "Step ": RESET,
    "test MSE": "gru_pytorch.py --device cpu",
    "309 values": SUNSPOTS,
    "steps ahead": SUNSPOTS,
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


@pytest.mark.run("gru_pytorch.py --device cpu")
def test_the_default_network_is_within_1_15_times_the_best_possible(output):
    (ratio,) = re.findall(r"^GRU / best possible: (\S+) after 30 steps", output, re.M)
    assert 1 < float(ratio) <= 1.15


FROZEN = "gru_from_scratch.py --task adding --seed 0 --freeze "


@pytest.mark.parametrize(
    "names",
    [pytest.param(n, marks=pytest.mark.run(FROZEN + n)) for n in ("W_z", "U_z b_z", "W_z U_z b_z")],
)
def test_the_table_of_frozen_weights_holds_for_seed_0(names, output):
    (row,) = re.findall(rf"^\| `{names}` \|(.*)\|$", README, re.M)
    printed = dict(re.findall(r"^ +(125|600) +(.*)$", output, re.M))
    mse_125, _, share = printed["125"].split()
    mse_600, *_ = printed["600"].split()
    for span, value in zip(row.split("|"), (share, mse_125, mse_600), strict=True):
        least, most = map(float, span.split(" to "))
        slack = 10 if "e" in span else 1.5  # as another processor rounds differently
        assert least / slack <= float(value) <= most * slack


# --- The comparison -----------------------------------------------------------------------------


def test_each_number_of_the_claims_is_that_of_the_full_tables():
    (speed,) = blocks("text", PAGES["tests/README.md"])
    times = re.findall(r"^ +\d+ +\d+ +[35]0 +(\S+) +(\S+) +\S+$", speed, re.M)  # GRU, LSTM
    tables = blocks("text", PAGES["plots/README.md"])
    for task, text, (ms, lstm_ms) in zip(("sine", "adding"), tables, times, strict=True):
        rows = {}
        for line in text.splitlines():
            name, *cells = re.split("  +", line.replace("* ", "  "))
            if len(cells) == 5 and name != "network":
                rows[name] = dict(zip(("rate", "weights", "updates", "seconds", "mse"), cells))
        gru, lstm = rows["GRU"], rows["LSTM"]
        forget, plain = rows["LSTM, forget bias 1"], rows["plain RNN"]
        for words, claim in (
            ("fewer weights", f"{gru['weights']} against {lstm['weights']}"),
            ("fewer updates", f"{gru['updates']} against {lstm['updates']}"),
            ("forget bias of 1", f"{forget['updates']} against {lstm['updates']}"),
            ("less time", f"{ms} ms against {lstm_ms} ms"),
            ("fewer seconds", f"{gru['seconds']} against {lstm['seconds']}"),
            ("final error", f"{gru['mse']} against {lstm['mse']}"),
            ("plain network", f"{plain['mse']}"),
        ):
            assert re.search(rf"^\|.*{words}.*{task}: {re.escape(claim)}", README, re.M), words


# --- Figures and links --------------------------------------------------------------------------


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
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), target
        words = "[:, ]+".join(anchor.split("-"))
        assert not anchor or re.search(f"^#+ {words}$", page.read_text("utf-8"), re.M | re.I)
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert all(f"def {test}(" in tests for test in re.findall(r"`(test_\w+)`", PAGES[name]))
