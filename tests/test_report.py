import base64
import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hdrcli.batch.outcomes import OutcomeLog
from hdrcli.batch.pictures import moved_mask, naive_merge, pictures
from hdrcli.batch.run import stamped
from hdrcli.bracket import resolve
from hdrcli.motion import Motion
from hdrcli.pipeline import MergeOptions, merge
from hdrcli.report import Report, page
from tests.scenes import photograph, texture, with_disc

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
NASTY = "</script><script>document.title='owned'</script><!--"


def jpeg(colour, size=(48, 32)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def outcome(i, **changes):
    entry = {
        "set": i, "name": f"IMG_{i:04d}_hdr", "target": f"/out/IMG_{i:04d}_hdr.exr",
        "status": "done", "inputs": [f"/card/day/{i}{k}.jpg" for k in "abc"],
        "evs": [-2.0, 0.0, 2.0], "outputs": [f"/out/IMG_{i:04d}_hdr.exr"], "backend": "average",
        "reference": f"/card/day/{i}b.jpg", "frames": [f"/card/day/{i}{k}.jpg" for k in "abc"],
        "warnings": [], "seconds_total": 1.5, "seconds": {"merge": 1.0},
    }  # fmt: skip
    return stamped(entry | changes)


def shots(red=(200, 30, 30)):
    return {"result": jpeg((20, 120, 220)), "naive": jpeg((90, 90, 90)), "reference": jpeg(red),
            "frames": [jpeg((9, 9, 9), (16, 12))] * 3, "ghost": jpeg((255, 255, 255)),
            "size": [48, 32]}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A report of four sets: good, with a warning, failed, and one with a nasty name."""
    report, log = Report(tmp_path), OutcomeLog(tmp_path)
    failed = {"status": "failed", "outputs": [], "error": {"message": "cut short", "hint": "again"}}
    for entry, seen in (
        (outcome(1), shots()),
        (outcome(2, warnings=["3 % clips"]), shots()),
        (outcome(3, **failed), None),
        (outcome(4, name=NASTY), shots()),
    ):
        report.keep(entry, seen)
        log.append(entry)
    report.write()
    return tmp_path


def test_the_page_needs_nothing_but_itself(folder):
    text = (folder / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:|//|file:)""", text)
    assert "default-src 'none'" in text
    assert "<link" not in text


def test_the_page_holds_every_set_and_its_pictures(folder):
    text = (folder / "report.html").read_text()
    blocks = re.findall(r'<script type="application/json" class="set">(.*?)</script>', text)
    sets = [json.loads(block) for block in blocks]
    assert [entry["status"] for entry in sets] == ["done", "done", "failed", "done"]
    assert sets[3]["name"] == NASTY
    assert sets[0]["pictures"]["size"] == [48, 32]
    assert sets[2]["pictures"] == {}


def test_a_later_outcome_takes_the_place_of_an_earlier_one(folder):
    report = Report(folder)
    again = outcome(3)
    report.keep(again, shots())
    OutcomeLog(folder).append(again)
    report.write()
    text = (folder / "report.html").read_text()
    assert text.count('class="set">') == 4
    assert '"failed"' not in "".join(re.findall(r'class="set">(.*?)</script>', text))


def test_the_page_is_left_alone_for_a_while(folder):
    report = Report(folder)
    report.write()
    (folder / "report.html").unlink()
    report.refresh()
    assert not (folder / "report.html").exists()
    report.next = 0.0
    report.refresh()
    assert (folder / "report.html").exists()


def test_an_empty_report_is_a_page():
    assert "Nothing to show" in page([])


def merged_pair():
    still = texture(120, 160)
    moved = with_disc(still, (60, 80), 18, 0.15)  # clips in no frame
    resolved = resolve(list(photograph([still, still, moved], (-2, 0, 2)).frames))
    return merge(resolved, MergeOptions(align="none"))


def test_pictures_of_a_merge_are_of_one_size_and_show_its_ghosts():
    merged = merged_pair()
    found = pictures(merged, MergeOptions(align="none"))
    sizes = {name: Image.open(io.BytesIO(base64.b64decode(found[name]))).size
             for name in ("result", "naive", "reference", "ghost")}  # fmt: skip
    assert set(sizes.values()) == {(160, 120)}
    assert len(found["frames"]) == 3
    ghost = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["ghost"]))))[..., 0]
    assert ghost[55:65, 75:85].mean() > 128
    assert ghost[:20, :20].mean() < 60


def test_the_ghosts_shown_are_what_the_merge_says_moved():
    merged = merged_pair()
    mask = moved_mask(merged)
    assert merged.motion.moved > 0.005
    assert mask.mean() == pytest.approx(merged.motion.moved, abs=0.003)
    cut = moved_mask(replace(merged, window=(slice(20, 120), slice(10, 150))))
    assert np.array_equal(cut, mask[20:120, 10:150])
    still = replace(merged, motion=Motion.none(3))
    assert not moved_mask(still).any()


def test_a_naive_merge_of_a_still_scene_is_its_light():
    light = texture(60, 80) * 0.5
    bracket = photograph(light, (-2, 0, 2))
    found = naive_merge(list(bracket.frames), bracket.ratios, (60, 80))
    inside = (light > 0.02) & (light < 2)
    assert np.median(np.abs(np.log2(found[inside] / light[inside]))) < 0.05


def test_a_naive_merge_shows_the_ghost_that_a_merge_removes():
    still = texture(60, 80) * 0.5
    bracket = photograph([still, still, with_disc(still, (30, 40), 10, 0.2)], (-2, 0, 2))
    found = naive_merge(list(bracket.frames), bracket.ratios, (60, 80))
    wrong = np.abs(np.log2(found / still))
    assert wrong[25:35, 35:45].mean() > 5 * wrong[:10].mean()


def screenshot(path, fragment, size, target):
    """What Chromium shows, (h, w, 3) uint8."""
    assert CHROMIUM is not None
    subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=3000",
         f"--screenshot={target}", f"{path.as_uri()}{fragment}"],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return np.asarray(Image.open(target).convert("RGB"), np.int16)


def share(seen, colour):
    """How much of a screenshot is of about one colour."""
    return float((np.abs(seen - np.array(colour)).max(axis=2) < 25).mean())


WIDE, NARROW = (1280, 800), (500, 900)


@needs_chromium
@pytest.mark.parametrize("size", [NARROW, pytest.param(WIDE, marks=pytest.mark.slow)])
def test_the_sheet_shows_every_result(folder, tmp_path, size):
    seen = screenshot(folder / "report.html", "", size, tmp_path / "s.png")
    assert share(seen, (20, 120, 220)) > 0.05  # results
    assert share(seen, (25, 25, 25)) > 0.05  # the page behind them
    assert share(seen, (200, 30, 30)) < 0.001  # references are not on the sheet


@needs_chromium
@pytest.mark.parametrize("size", [WIDE, pytest.param(NARROW, marks=pytest.mark.slow)])
def test_a_set_shows_reference_and_result_side_by_side(folder, tmp_path, size):
    seen = screenshot(folder / "report.html", "#1", size, tmp_path / "s.png")
    assert share(seen, (20, 120, 220)) > 0.04
    assert share(seen, (200, 30, 30)) > 0.04
    left = np.abs(seen - np.array((200, 30, 30))).max(axis=2) < 25
    right = np.abs(seen - np.array((20, 120, 220))).max(axis=2) < 25
    assert np.nonzero(left)[1].mean() < np.nonzero(right)[1].mean()


PROBE = """<script>
const press = (key, more = {}) => document.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
const said = [], say = value => said.push(String(value));
const cards = () => document.querySelectorAll(".card").length;
for (const key of ["w", "f", "a"]) { press(key); say(cards()); }
press("ArrowRight"); press("ArrowRight"); say(document.activeElement.dataset.i);
document.activeElement.click(); say(view.open); say(document.activeElement.type);
press("ArrowRight", { shiftKey: true });
say(view.querySelector(".compare").style.getPropertyValue("--cut"));
const slider = view.querySelector("input");
slider.value = 20; slider.dispatchEvent(new Event("input"));
say(view.querySelector(".compare").style.getPropertyValue("--cut"));
press("2"); say(view.querySelector(".side.l").textContent);
press("3"); say(view.querySelector(".side.l"));
press("g"); say(view.querySelectorAll(".mask.ghost").length);
press("ArrowRight"); say($("title").firstChild.textContent);
press("ArrowRight"); press("ArrowRight"); say($("title").firstChild.textContent);
view.close(); say(view.open);
document.body.dataset.said = JSON.stringify(said);
</script></body>"""


@needs_chromium
def test_keys_filters_and_slider_work_and_a_nasty_name_is_only_text(folder):
    assert CHROMIUM is not None
    probe = folder / "probe.html"
    text = (folder / "report.html").read_text()
    probe.write_text(text.replace("</body>", PROBE))
    dom = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
         probe.as_uri()],
        check=True, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    assert "<title>hdrcli report</title>" in dom
    assert "4 sets, 1 failed" in dom
    assert dom.count('class="card"') == 4
    said = re.search(r'data-said="([^"]*)"', dom)
    assert said is not None
    assert json.loads(html.unescape(said[1])) == [
        "1", "1", "4",  # warned, failed, all
        "1", "true", "range",  # the second set, opened, its slider at hand
        "55%", "20%",
        "naive merge", "null", "1",
        "IMG_0003_hdr", "IMG_0001_hdr", "false",
    ]  # fmt: skip
