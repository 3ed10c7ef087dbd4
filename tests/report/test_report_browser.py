"""Tests of the page in Chromium, opened from disk: playback, blind tests, safety, accessibility."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from scipy.stats import binomtest

from makers.codecs import make_stft_codec
from makers.runs import EDGE, TONES, add_drift_audio, estimate, make_drift, make_run, put
from tokgen.codec.depth_files import write_depth
from tokgen.report.page import write_report
from tokgen.report.views import DRIFT_LABELS

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("background-networking", "component-update", "sync")
PAYLOAD = (
    """<script>window.pwned=1</script>"><img src=x onerror="window.pwned=1">"""
    """</script><svg onload='window.pwned=1'>{{7*7}}a$b$&amp;%(x)s"""
)
FORMULA = '=HYPERLINK("http://x","y")'

# Records each sound that starts: time, position in the sound, and power of each tone.
SPY = """
window.starts = [];
const start = AudioBufferSourceNode.prototype.start;
const power = (buffer, hertz) => {
  const samples = buffer.getChannelData(0);
  const turn = 2 * Math.PI * hertz / buffer.sampleRate;
  let re = 0, im = 0;
  for (let i = 0; i < samples.length; i += 1) {
    re += samples[i] * Math.cos(turn * i);
    im += samples[i] * Math.sin(turn * i);
  }
  return Math.hypot(re, im) / samples.length;
};
AudioBufferSourceNode.prototype.start = function (when, offset) {
  window.clock = this.context;
  window.starts.push({ when, offset, tones: %s.map((hertz) => power(this.buffer, hertz)) });
  return start.call(this, when, offset);
};
""" % [*TONES.values(), EDGE]

# `hold()` stops decoding until `release()`.
HELD_DECODING = """
const decode = BaseAudioContext.prototype.decodeAudioData;
window.gate = Promise.resolve();
window.hold = () => { window.gate = new Promise((done) => { window.release = done; }); };
BaseAudioContext.prototype.decodeAudioData = async function (bytes) {
  await window.gate;
  return decode.call(this, bytes);
};
null
"""

# Three places in seconds, of the playhead and of the clock of the sound.
PLACES = """
(async () => {
  const found = [];
  while (found.length < 3) {
    await new Promise((done) => { setTimeout(done, 120); });
    const drawn = parseFloat(document.querySelector(".cell.active .playhead").style.left);
    found.push({ drawn: 3 * drawn / 100, now: window.clock.currentTime });
  }
  return found;
})()
"""

LEVELS = torch.tensor([1, 2, 3, 4] * 15)  # of 1.2 s


@pytest.fixture(scope="module")
def browser():
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"these tests need one of {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    flags = ["--no-first-run", *(f"--disable-{what}" for what in QUIET)]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=flags)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A page with plain names, and one with hostile names and every kind of section."""
    folder = tmp_path_factory.mktemp("report")
    made = {name: folder / f"{name}.html" for name in ("plain", "hostile", "depth")}
    write_report([make_run(folder / "compare", seconds=3.0)], made["plain"], progress=False)
    evil = make_run(folder / "<img src=x onerror=pwned=1>", say=lambda text: f"{text} {PAYLOAD}")
    formula = make_run(folder / "=1+1", say=lambda text: FORMULA + text)
    drift = make_drift(folder / "{{7*7}}", say=lambda text: text + PAYLOAD)
    long = make_run(folder / ("x" * 200), say=lambda text: text + "y" * 300)
    assert drift.is_dir()
    add_drift_audio(drift, {"speech-16k" + "_" * 70: 16000})
    (evil / "samples" / "000.generated.wav").write_bytes(b"RIFF")
    write_report([evil, formula, drift, long], made["hostile"], progress=False)
    variable = make_run(folder / "variable", seconds=2.0)
    spec = make_stft_codec().spec
    write_depth(variable / "samples" / "000.resynthesis.wav", LEVELS, spec)
    write_report([variable], made["depth"], progress=False)
    return made


@pytest.fixture
def visit(browser, pages) -> Iterator:
    """Open a page. At the end, check that it logged no errors and made no requests."""
    contexts, troubles, requests = [], [], []

    def go(name: str, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(SPY)
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(pages[name].as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert troubles == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert sum(url.startswith("file:") for url in requests) == len(contexts)


def started(page, n: int) -> list[dict]:
    """Wait until n sounds have started, and return their records."""
    deadline = time.monotonic() + 10
    while len(found := page.evaluate("window.starts")) < n:
        assert time.monotonic() < deadline, f"{len(found)} of {n} sounds have started"
        page.wait_for_timeout(10)
    return found


def heard(start: dict) -> str:
    """Identify the kind of a sound by its tones."""
    *tones, edge = start["tones"]
    kind = list(TONES)[int(np.argmax(tones))]
    return "anchor" if kind == "original" and edge < 1e-3 else kind


def downloaded(page, button: str) -> tuple[str, list[dict[str, str]]]:
    """Click a download button; return file name and CSV rows."""
    with page.expect_download() as found:
        page.locator(button).click()
    text = Path(found.value.path()).read_text("utf-8")
    return found.value.suggested_filename, list(csv.DictReader(io.StringIO(text)))


def names(page) -> list[tuple[str, str]]:
    """Role, and accessible name and description, of each element for screen readers."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [
        (node["role"]["value"], " ".join(_said(node)))
        for node in nodes
        if not node.get("ignored") and "role" in node
    ]


def _said(node: dict) -> Iterator[str]:
    yield node.get("name", {}).get("value", "")
    if description := node.get("description", {}).get("value"):
        yield f"({description})"


# -- listening ------------------------------------------------------------------


def test_click_plays_from_that_position_and_moves_the_playhead(visit):
    page = visit("plain")
    cell = page.locator("button.cell").nth(1)
    box = cell.locator(".picture").bounding_box()
    cell.click(position={"x": box["width"] / 3, "y": 20})
    (start,) = started(page, 1)
    assert start["offset"] == pytest.approx(1.0, abs=0.02) and heard(start) == "resynthesis"
    places = page.evaluate(PLACES)
    assert [place["drawn"] for place in places] == sorted({place["drawn"] for place in places})
    for place in places:  # a frame of the page may be late, and never early
        assert 1 < place["drawn"] <= start["offset"] + place["now"] - start["when"] + 0.05
    assert cell.get_attribute("aria-pressed") == "true"
    assert re.search(r"0:0[1-3]\.\d / 0:03\.0", page.locator("#transport-time").inner_text())
    page.locator("#transport-play").click()
    page.wait_for_timeout(300)  # for a frame that is already scheduled
    stopped = page.locator("#transport-time").inner_text()
    page.wait_for_timeout(150)
    assert page.locator("#transport-time").inner_text() == stopped
    page.locator("#transport-play").click()
    again = started(page, 2)[1]
    shown = float(re.search(r"0:0(\d\.\d)", stopped)[1])  # rounded down
    assert shown - 0.01 <= again["offset"] <= shown + 0.11


def test_arrow_keys_change_columns_and_keep_the_position(visit):
    page = visit("plain")
    cells = page.locator("button.cell")
    assert cells.evaluate_all("all => all.filter((e) => e.tabIndex === 0).length") == 1
    cells.first.focus()
    page.keyboard.press("Space")
    started(page, 1)
    for n, key in enumerate(("ArrowRight", "ArrowRight", "ArrowLeft"), 2):
        page.wait_for_timeout(150)
        page.keyboard.press(key)
        *_, before, after = started(page, n)
        passed = after["when"] - before["when"]
        assert passed > 0.1
        assert after["offset"] - before["offset"] == pytest.approx(passed, abs=0.002)
    assert [heard(s) for s in page.evaluate("window.starts")] == [
        *("original", "resynthesis", "generated", "resynthesis"),
    ]
    page.wait_for_timeout(100)
    assert page.locator("button.cell[aria-pressed=true]").count() == 1  # only one sound plays
    focused = "document.activeElement.dataset"
    assert page.evaluate(f"[{focused}.row, {focused}.column]") == ["0", "1"]
    page.keyboard.press("ArrowDown")
    assert started(page, 5)[4]["offset"] == 0  # a new utterance starts at 0
    assert page.evaluate(f"[{focused}.row, {focused}.column]") == ["1", "1"]
    page.keyboard.press("Space")
    page.locator("button.cell[aria-pressed=true]").wait_for(state="detached")
    page.keyboard.press("ArrowRight")  # while paused, the position is kept
    page.keyboard.press("Space")
    resumed = started(page, 6)[5]
    assert 0 < resumed["offset"] < 1.5 and heard(resumed) == "generated"
    page.keyboard.press("Home")
    assert started(page, 7)[6]["offset"] == 0


def test_the_pointer_shows_the_depth_of_a_frame(visit):
    page = visit("depth")
    (cell,) = page.locator("button.cell:has(.depth)").all()
    cell.scroll_into_view_if_needed()
    text, picture = cell.locator(".levels"), cell.locator(".picture").bounding_box()
    assert text.text_content() == "2.50 of 4 levels on average"
    width = cell.locator(".depth svg").bounding_box()["width"]
    assert width == pytest.approx(0.6 * picture["width"], abs=1)
    for y in (picture["y"] + 5, picture["y"] + picture["height"] + 10):
        page.mouse.move(picture["x"] + 0.305 * picture["width"], y)
        found = re.fullmatch(r"frame (\d+), (\d\.\d\d) s: (\d) of 4 levels", text.text_content())
        frame = int(found[1])
        assert abs(frame - 30) <= 1 and float(found[2]) == pytest.approx(0.61, abs=0.02)
        assert int(found[3]) == LEVELS[frame]
    page.mouse.move(picture["x"] + 0.8 * picture["width"], picture["y"] + 5)  # after the end
    assert text.text_content() == "2.50 of 4 levels on average"
    page.mouse.move(picture["x"] + 0.1 * picture["width"], picture["y"] + 5)
    page.mouse.move(0, 0)
    assert text.text_content() == "2.50 of 4 levels on average"


def test_keys_work_while_a_sound_is_decoded(visit):
    page = visit("plain")
    page.evaluate(HELD_DECODING)
    page.locator("button.cell").first.focus()
    page.keyboard.press("Space")
    started(page, 1)
    page.evaluate("hold()")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    page.evaluate("release()")
    now = started(page, 2)[1]
    assert now["offset"] == 0 and heard(now) == "resynthesis"
    page.evaluate("hold()")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")  # pause before it starts
    page.evaluate("release()")
    page.wait_for_timeout(400)
    assert page.evaluate("window.starts.length") == 2
    assert page.locator("#transport-play").inner_text() == "Play"
    assert page.locator("button.cell.active").get_attribute("data-row") == "2"


def test_opus_plays(visit, pages):
    folder = pages["plain"].parent

    pages["opus"] = folder / "opus.html"
    write_report([folder / "compare"], pages["opus"], audio="opus", clips=1, progress=False)
    page = visit("opus")
    page.locator("button.cell").nth(2).press("Enter")
    assert heard(started(page, 1)[0]) == "generated"


def test_arrow_keys_skip_missing_sounds(visit):
    page = visit("hostile")
    page.locator("button.cell").nth(1).press("Enter")
    started(page, 1)
    page.keyboard.press("ArrowRight")  # to the missing column
    assert page.evaluate("document.activeElement.dataset.column") == "1"
    assert page.locator(".missing").first.inner_text().startswith("missing")


# -- blind tests ----------------------------------------------------------------


@pytest.mark.parametrize(("repeats", "n_wrong"), [(1, 0), (2, 1)])
def test_abx_is_blind_and_exported(visit, repeats: int, n_wrong: int):
    page = visit("plain")
    page.locator("[data-test=abx]").click()
    page.locator("#abx [name=rater]").fill("=cmd|' /C calc'!A0")
    page.locator("#abx [name=b]").select_option("0")
    page.locator("#abx [value=start]").click()
    assert "two different columns" in page.locator("#abx .setup .message").inner_text()
    page.locator("#abx [name=b]").select_option("2")
    page.locator("#abx [name=repeats]").fill(str(repeats))
    page.locator("#abx [value=start]").click()
    truth = []
    n = 3 * repeats
    for trial in range(n):
        assert f"Trial {trial + 1} of {n}" in page.locator("#abx .progress").inner_text()
        seen = [*(name for _, name in names(page)), page.locator("#abx").inner_text()]
        assert not any(kind in text for text in seen for kind in TONES)
        page.keyboard.press("x")
        page.wait_for_timeout(60)
        page.keyboard.press("a")
        x, a = started(page, 2 * trial + 2)[-2:]
        assert a["offset"] - x["offset"] == pytest.approx(a["when"] - x["when"], abs=0.002)
        assert heard(a) == "original" and heard(x) in ("original", "generated")
        truth.append("A" if heard(x) == "original" else "B")
        answer = "AB".replace(truth[-1], "") if trial < n_wrong else truth[-1]
        page.locator(f"#abx [data-answer={answer}]").click()
    n_right = n - n_wrong
    p = binomtest(n_right, n, alternative="greater").pvalue
    said = page.locator("#abx .outcome").inner_text()
    assert said == f"{n_right} of {n} correct; one-sided binomial p = {p:.3f}."
    name, rows = downloaded(page, "#abx .results [data-do=csv]")
    assert name == "abx-compare.csv" and [row["X"] for row in rows] == truth
    assert [row["correct"] for row in rows] == ["0"] * n_wrong + ["1"] * n_right
    assert {(row["A"], row["B"]) for row in rows} == {("original", "speech-16k generated")}
    assert sorted(row["utterance"] for row in rows) == sorted(["clip0", "clip1", "clip2"] * repeats)
    assert [int(row["trial"]) for row in rows] == list(range(1, n + 1))
    assert all(0.05 < float(row["seconds_listened"]) < 5 for row in rows)
    assert rows[0]["rater"] == "'=cmd|' /C calc'!A0"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", rows[0]["time"])
    page.locator("#abx [data-do=close]").click()
    assert not page.locator("#abx").is_visible()
    assert not page.locator("#transport").is_visible()  # no sound is selected


def test_abx_counts_a_choice_only_after_x_and_a_or_b_were_played(visit):
    page = visit("plain")
    page.locator("[data-test=abx]").click()
    page.locator("#abx [name=b]").select_option("2")
    page.locator("#abx [value=start]").click()
    said, progress = page.locator("#abx .trial .message"), page.locator("#abx .progress")
    page.locator("#abx [data-answer=A]").click()
    assert said.inner_text() == "Play X first."
    page.keyboard.press("a")
    started(page, 1)
    page.keyboard.press("b")
    started(page, 2)
    page.locator("#abx [data-answer=B]").click()
    assert said.inner_text() == "Play X first." and "Trial 1 of 3" in progress.inner_text()
    page.keyboard.press("x")
    started(page, 3)
    page.locator("#abx [data-answer=B]").click()
    assert "Trial 2 of 3" in progress.inner_text() and not said.is_visible()
    page.keyboard.press("x")
    started(page, 4)
    page.locator("#abx [data-answer=B]").click()
    assert said.inner_text() == "Play A or B too, to compare X with."
    page.keyboard.press("b")
    started(page, 5)
    page.locator("#abx [data-answer=B]").click()
    assert "Trial 3 of 3" in progress.inner_text()
    page.keyboard.press("Escape")
    assert "of 2 correct" in page.locator("#abx .outcome").inner_text()


def test_mushra_counts_scores_only_after_every_sound_was_played(visit):
    page = visit("plain")
    page.locator("[data-test=mushra]").click()
    page.locator("#mushra [value=start]").click()
    for position in range(1, 5):
        page.get_by_role("slider", name=f"Score of sound {position}").fill("50")
    for n, position in enumerate("014", 1):
        page.keyboard.press(position)
        started(page, n)
    page.locator("#mushra [data-do=next]").click()
    assert "Not played yet: sound 2, 3." in page.locator("#mushra .trial").inner_text()
    for n, position in enumerate("23", 4):
        page.keyboard.press(position)
        started(page, n)
    page.locator("#mushra [data-do=next]").click()
    assert "Utterance 2 of 3" in page.locator("#mushra .progress").inner_text()


def test_mushra_is_blind_and_scores_belong_to_their_sounds(visit):
    page = visit("plain")
    page.locator("[data-test=mushra]").click()
    page.locator("#mushra [name=rater]").fill('O"Hara, A')
    page.locator("#mushra [value=start]").click()
    given = {"original": 100, "anchor": 15, "resynthesis": 71, "generated": 40}
    orders = []
    for trial in range(3):
        assert f"Utterance {trial + 1} of 3" in page.locator("#mushra .progress").inner_text()
        seen = [*(name for _, name in names(page)), page.locator("#mushra").inner_text()]
        banned = ("original", "resynthesis", "generated", "anchor", "hidden")
        assert not any(word in text for text in seen for word in banned)
        n = page.evaluate("window.starts.length")
        page.keyboard.press("0")
        assert heard(started(page, n + 1)[-1]) == "original"
        page.locator("#mushra [data-do=next]").click()
        assert "Not scored yet: sound 1, 2, 3, 4." in page.locator("#mushra .trial").inner_text()
        order = []
        for position in range(1, 5):
            page.keyboard.press(str(position))
            before, now = started(page, n + 1 + position)[-2:]
            assert now["offset"] - before["offset"] == pytest.approx(
                now["when"] - before["when"], abs=0.002
            )
            order.append(heard(now))
            slider = page.get_by_role("slider", name=f"Score of sound {position}")
            slider.fill(str(given[order[-1]]))
        assert sorted(order) == sorted(given)
        orders.append(order)
        assert page.locator("#mushra output").all_inner_texts() == [
            {100: "100 Excellent", 15: "15 Bad", 71: "71 Good", 40: "40 Fair"}[given[kind]]
            for kind in order
        ]
        page.locator("#mushra [data-do=next]").click()
    assert page.locator("#mushra .outcome").inner_text() == "3 of 3 utterances scored."
    name, rows = downloaded(page, "#mushra .results [data-do=csv]")
    conditions = {
        "original": "hidden reference",
        "anchor": "low anchor (3.5 kHz)",
        "resynthesis": "speech-16k resynthesis",
        "generated": "speech-16k generated",
    }
    assert name == "mushra-compare.csv"
    assert [(row["condition"], int(row["score"]), int(row["position"])) for row in rows] == [
        (conditions[kind], given[kind], place)
        for order in orders
        for place, kind in enumerate(order, 1)
    ]
    assert {row["rater"] for row in rows} == {'O"Hara, A'}
    assert {row["utterance"] for row in rows} == {"clip0", "clip1", "clip2"}


def test_escape_keeps_the_answers_and_formulas_are_escaped(visit):
    page = visit("hostile")
    page.locator("[data-test=abx]").nth(1).click()
    page.locator("#abx [value=start]").click()
    page.keyboard.press("x")
    started(page, 1)
    page.keyboard.press("b")
    started(page, 2)
    page.locator("#abx [data-answer=A]").click()
    page.keyboard.press("Escape")
    assert re.fullmatch(
        r"[01] of 1 correct; .*p = (0\.500|1\.000)\.", page.locator("#abx .outcome").inner_text()
    )
    _, rows = downloaded(page, "#abx .results [data-do=csv]")
    assert rows[0]["utterance"].startswith("'" + FORMULA)
    assert rows[0]["A"] == f"'{FORMULA}original"
    page.keyboard.press("Escape")
    assert not page.locator("#abx").is_visible()


# -- safety, layout, accessibility -------------------------------------------------------


def test_hostile_strings_are_shown_as_text(visit):
    page = visit("hostile")
    for dialog in ("abx", "mushra"):
        page.locator(f"[data-test={dialog}]").first.click()
        page.locator(f"#{dialog} [value=start]").click()
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
    page.locator("button.cell").first.press("Enter")
    started(page, 1)
    page.wait_for_timeout(100)
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x], script:not([type]) + script, svg[onload]").count() == 0
    said = page.locator("body").text_content()
    assert said.count(PAYLOAD) > 40 and said.count(FORMULA) > 20
    assert PAYLOAD[:20] in " ".join(page.locator("figure svg").all_text_contents())
    assert PAYLOAD in page.locator("figure svg").first.get_attribute("aria-label")
    assert (
        page.locator("button.cell").first.get_attribute("title").startswith(f"original {PAYLOAD}")
    )
    titles = page.locator("h2").all_text_contents()
    assert "<img src=x onerror=pwned=1>" in titles and "{{7*7}}" in titles


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(visit, scheme: str):
    page = visit("plain", color_scheme=scheme, reduced_motion="reduce")
    page.locator("button.cell").first.press("Enter")
    page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    worst = [page.evaluate(CONTRAST, "body")]
    for dialog in ("abx", "mushra"):
        page.locator(f"[data-test={dialog}]").click()
        worst.append(page.evaluate(CONTRAST, f"#{dialog}"))
        page.locator(f"#{dialog} [value=start]").click()
        page.keyboard.press("0" if dialog == "mushra" else "a")
        page.locator(f"#{dialog} [data-answer=A], #{dialog} [data-do=next]").first.click()
        worst.append(page.evaluate(CONTRAST, f"#{dialog}"))
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
    assert all(found["n"] > 2 for found in worst) and worst[0]["n"] > 150
    assert min(found["least"] for found in worst) >= 4.5, worst
    shown = imread(io.BytesIO(page.screenshot()))[..., :3].mean()
    assert shown > 0.75 if scheme == "light" else shown < 0.25
    page.locator("#theme").click()
    switched = imread(io.BytesIO(page.screenshot()))[..., :3].mean()
    assert switched < 0.25 if scheme == "light" else switched > 0.75


def test_controls_have_accessible_names(visit):
    page = visit("plain")
    page.locator("button.cell").first.press("Enter")
    page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    found = names(page)
    for dialog in ("abx", "mushra"):
        page.locator(f"[data-test={dialog}]").click()
        found += names(page)
        page.locator(f"#{dialog} [value=start]").click()
        found += names(page)
        page.keyboard.press("Escape")
        found += names(page)
        page.keyboard.press("Escape")
    needed = {"button", "link", "slider", "checkbox", "combobox", "textbox", "spinbutton"}
    needed |= {"dialog", "region", "navigation", "image", "grid", "DisclosureTriangle"}
    roles = [role for role, _ in found]
    assert needed <= set(roles)
    assert roles.count("button") > 30 and {"main", "banner", "contentinfo"} <= set(roles)
    assert [
        (role, name) for role, name in found if role in needed and name.strip()[:1] in "("
    ] == []
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1


def test_nothing_scrolls_sideways_at_1280_pixels(visit, pages):
    """With the drift of every metric, many metrics in the table, and many columns to listen to."""
    folder = pages["plain"].parent / "wide"
    run, drift = make_run(folder / "run", n_clips=1), make_drift(folder / "drift")
    table = json.loads((run / "table.json").read_text())
    names = [f"m{i}" for i in range(7)]
    labels = {"label": "speaker similarity", "better": "higher", "unit": "cosine", "digits": 2}
    table["metrics"] += [{"name": name, **labels} for name in names]
    for row in table["rows"]:
        row["values"] |= {name: estimate(-10.5) for name in names}
    put(run / "table.json", table)
    index = json.loads((run / "samples/index.json").read_text())
    (original, *_), (clip, *_) = index["columns"], index["clips"]
    for name in (f"codec with a long name {i}" for i in range(9)):
        index["columns"].append({**original, "name": name, "kind": "resynthesis"})
        clip["files"][name] = clip["files"][original["name"]]
    put(run / "samples/index.json", index)
    content = json.loads((drift / "drift.json").read_text())
    for codec in content["codecs"]:
        codec["points"] = [
            {"pass": n, "metric": metric, "level": None, **estimate(-10.5 * n)}
            for metric in DRIFT_LABELS
            for n in range(1, 3)
        ]
    put(drift / "drift.json", content)
    pages["wide"] = folder / "wide.html"
    write_report([run, drift], pages["wide"], progress=False)
    page = visit("wide", viewport={"width": 1280, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    boxes = page.locator(".box:visible").evaluate_all(
        "all => all.map((e) => [e.getAttribute('aria-label'), e.scrollWidth - e.clientWidth])"
    )
    assert len(boxes) > 5 and [box for box in boxes if box[1] > 0] == []


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_phone_layout_does_not_scroll_sideways(visit, name: str):
    page = visit(name, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.locator("button.cell").first.tap()
    page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    for dialog in ("abx", "mushra"):
        page.locator(f"[data-test={dialog}]").first.tap()
        page.locator(f"#{dialog} [value=start]").tap()
        assert page.evaluate(width) == 360
        assert (
            page.evaluate(
                f"(({{scrollWidth, clientWidth}}) => scrollWidth - clientWidth)({dialog})"
            )
            == 0
        )
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
    tapped = page.locator("button.cell").first.bounding_box()
    assert tapped["width"] >= 44 and tapped["height"] >= 44


# Lowest contrast (WCAG) of text and background, and the number of texts that were measured.
CONTRAST = """
(root) => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  let [least, where, n] = [21, "", 0];
  for (const element of document.querySelector(root).querySelectorAll("*")) {
    const own = [...element.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
    if (!own || !element.checkVisibility()) continue;
    if (element.closest("script, style, .hidden-text")) continue;
    if (!element.matches("dialog *") !== (root === "body")) continue;
    const style = getComputedStyle(element);
    const colour = parse(element.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(colour), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    n += 1;
    if (ratio < least) [least, where] = [ratio, element.outerHTML.slice(0, 80)];
  }
  return { least, where, n };
}
"""
