"""The page of a run in a real browser: what a person clicks, types and reads, and what hostile text does not do."""

import json
import threading
from functools import partial

import pytest
from browser import BROWSER, browser
from look_toy import HOSTILE, metrics_of, write_run

from rods_jax.look.page import page
from rods_jax.look.pieces import addresses, piece, source
from rods_jax.look.serving import server
from rods_jax.metrics import open_metrics

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
WORDS = " ".join(HOSTILE)
NAMES = "[...document.querySelectorAll('.row .name')].map(one => one.textContent)"


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as one:
        one.size(1300, 800)
        yield one


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs: one of 800 seeds, and one whose every text is hostile."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "many", seeds=800)
    write_run(folder / "hostile", words=WORDS, seed=1, **{HOSTILE[1]: HOSTILE[0]})
    with open_metrics(folder / "hostile" / "metrics.jsonl", resume_step=6) as write:
        write(7, {HOSTILE[0]: 0.5, "epoch": 3, "left_ids": {HOSTILE[2]: ["seed_1"]}, "entered_ids": []})
    (folder / "study.jsonl").write_text('{"arm": "slow", "seconds": 20}\n{"arm": "fast", "seconds": 3}\n')
    return folder


@pytest.fixture
def served(window):
    """Opens the page of these paths in the window; what the page complains of fails the test."""
    running, origins = [], []

    def opened(*paths):
        found = source(paths)
        one = server(partial(piece, found))
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((one, thread))
        origins.append(f"http://127.0.0.1:{one.server_address[1]}/")
        window.complaints.clear()
        window.requests.clear()
        window.open(origins[-1])
        return window

    def stop():
        for one, thread in running:
            one.shutdown()
            thread.join()
            one.server_close()
        running.clear()

    opened.stop = stop
    yield opened
    complaints, requests = list(window.complaints), set(window.requests)
    window.send("Page.navigate", url="about:blank")  # its next look at the files would find no server
    stop()
    assert not complaints and all(url.startswith((*origins, "data:,")) for url in requests)


def test_the_tree_opens_and_the_detail_says_what_changed_and_why_it_left(served, runs):
    page = served(runs / "many")
    page.click("#tab-Pool")
    page.click(".row .twisty")
    page.until(f"{NAMES}[1] === '… ~a'")
    page.click("[data-index='1'] .twisty")
    page.click("[data-index='1']")
    page.until("document.querySelector('.detail h2').textContent === 'seed_0~a'")
    assert page.js(NAMES)[:4] == ["seed_0", "… ~a", "… ~b", "seed_1"]
    assert page.js(
        "[1, 2, 3].map(level => document.querySelector(`[aria-level='${level}']`).getAttribute('aria-expanded'))"
    ) == ["true", "true", None]
    detail = page.text(".detail")
    assert "step 5: mastered, too easy by then" in detail and "before step 3" in detail and "the same" in detail
    assert "Ask for that." in detail and "vm_exec_failed" in detail
    # Each measurement; then to the parent, and to the trajectory that was kept.
    assert page.js("document.querySelectorAll('.detail tbody')[0].rows.length") == 2
    page.click(".detail dd .link")
    page.until("document.querySelector('.detail h2').textContent === 'seed_0'")
    assert page.js("document.querySelector('[aria-selected=true].row').dataset.index") == "0"
    page.click("[data-index='0'] .twisty")
    page.until(f"{NAMES}[1] === 'seed_1'")


def test_the_filter_and_the_keys_find_a_task_among_800(served, runs):
    page = served(runs / "many")
    page.press("2", "/")
    page.type("mastered")
    page.until(f"{NAMES}.length === 2")  # the variant, below its seed
    assert page.js(NAMES) == ["seed_0", "… ~a"] and "2 rows" in page.text(".side .bar")
    page.press("Escape", "j", "j")
    page.until("document.querySelector('.detail h2').textContent === 'seed_0~a'")
    page.js("(f => { f.value = ''; f.dispatchEvent(new Event('input')) })(document.querySelector('.filter'))")
    # Only the rows in sight exist, wherever one is.
    page.press("End")
    page.until("document.querySelector('.row:last-child .name').textContent === 'seed_799'")
    assert page.js("document.querySelectorAll('.row').length") < 60 and "800 rows" in page.text(".side .bar")
    page.press("k", "ArrowUp", "ArrowDown")
    page.until("document.querySelector('.detail h2').textContent === 'seed_798'")
    # Right opens a node and goes in, left goes out and closes it.
    page.press("Home", "ArrowRight", "l", "l")
    page.until("document.querySelector('.detail h2').textContent === 'seed_0~a'")
    page.press("h", "ArrowLeft", "ArrowLeft")
    page.until(f"{NAMES}[1] === 'seed_1'")


def test_order_brings_the_family_with_most_variants_first(served, runs):
    page = served(runs / "many")
    page.press("2")
    page.js("(s => { s.value = 'mean'; s.dispatchEvent(new Event('change')) })(document.querySelector('.side select'))")
    page.until(f"{NAMES}[0] === 'seed_1'")  # 0.5 against 0.1 and none
    assert page.js(NAMES)[:2] == ["seed_1", "seed_0"]


def test_dark_is_a_switch_and_what_the_system_prefers(served, runs):
    page, back = served(runs / "many"), "getComputedStyle(document.body).backgroundColor"
    page.prefer("light")
    light = page.js(back)
    page.click("#theme")
    dark = page.js(back)
    assert light == "rgb(255, 255, 255)" != dark and page.text("#theme") == "Light"
    page.press("d")
    assert page.js(back) == light
    page.js("localStorage.clear(), delete document.documentElement.dataset.theme")
    page.prefer("dark")
    page.until(f"{back} === '{dark}' && document.querySelector('#theme').textContent === 'Light'")
    page.prefer("light")


def test_two_runs_lie_over_each_other_and_their_settings_differ(served, runs):
    page = served(runs / "many", runs / "hostile", runs / "study.jsonl")
    page.until("document.querySelector('figure')")
    legend = page.text("figure .u-legend")
    assert "many reward_mean" in legend and "hostile reward_mean" in legend and "many held_out_progress" in legend
    page.click("#tab-Settings")
    page.until("document.querySelector('main h2')?.textContent === 'Where the runs differ'")
    assert page.js("[...document.querySelector('main table').rows].map(row => row.innerText.split('\\t')[0])")[:2] == [
        "setting",
        "seed",
    ]
    page.press("]")
    page.until("document.querySelectorAll('main h2')[1].textContent === 'Settings of hostile'")
    # The pool is that of the run that was chosen, and so is the detail.
    page.press("2")
    page.until(f"{NAMES}.length === 4")
    page.press("j")
    page.until("document.querySelector('.detail h2')")
    page.press("[")
    page.until(f"{NAMES}.length > 4 && !document.querySelector('.detail h2')")
    # The table of results, by the number of a column, the highest first and then the lowest.
    page.press("6")
    page.until("document.querySelector('.row .cell')")
    page.click(".head .cell:nth-child(2)")
    page.until("document.querySelector('.row .cell').textContent === 'slow'")
    page.click(".head .cell:nth-child(2)")
    page.until("document.querySelector('.row .cell').textContent === 'fast'")


def test_every_metric_can_be_chosen_and_the_curves_follow_a_run_that_trains(served, tmp_path):
    write_run(tmp_path / "live")
    page = served(tmp_path / "live")
    page.until("document.querySelector('figure')")
    assert "loss: -0.6" in page.js(
        "[...document.querySelectorAll('figure')].map(one => one.ariaLabel.replace('Loss, in nats: loss ', 'loss: '))"
    )
    page.click("details.all summary")
    page.click(".all .filter")
    page.type("tokens_gen")
    page.until("document.querySelectorAll('.names input').length === 1")
    page.click(".names input")
    page.until("[...document.querySelectorAll('figcaption')].at(-1).textContent === 'tokens_generated'")
    with open_metrics(tmp_path / "live" / "metrics.jsonl", resume_step=6) as write:
        human = write_run(tmp_path / "same")
        write(7, metrics_of(7, [human[0], human[3]], human[1]))
    page.until("[...document.querySelectorAll('figure')].at(-1).ariaLabel === 'tokens_generated: tokens_generated 560'")
    assert "written" in page.text("#runs") and page.js("document.querySelector('.names input').checked")
    served.stop()
    page.until("document.querySelector('#runs .problem')?.textContent.startsWith('The server does not answer')")
    page.send("Page.navigate", url="about:blank")
    page.complaints.clear()  # of the browser, that nobody answers


def test_a_table_follows_its_file(served, tmp_path):
    (tmp_path / "study.jsonl").write_text('{"arm": "slow"}\n')
    page = served(tmp_path / "study.jsonl")
    page.click("#tab-Tables")
    page.until("document.querySelectorAll('.row').length === 1")
    with (tmp_path / "study.jsonl").open("a") as file:
        file.write('{"arm": "fast"}\n')
    page.until("document.querySelectorAll('.row').length === 2")


def test_a_trajectory_shows_its_turns_and_how_likely_each_token_was(served, runs):
    page = served(runs / "many")
    page.press("3")
    page.until("document.querySelector('.row')")
    page.press("j")
    page.until("document.querySelectorAll('.said .token').length === 3")
    assert "✓ passed" in page.text(".turn.good h3") and "✗ not passed" in page.text(".turn.bad h3")
    assert page.js("document.querySelectorAll('.said .token')[1].title") == "log-probability -3, probability 0.04979"
    assert 'least likely: " Done." -3' in page.text(".turn.good") and "turn failed" in page.text(".turn.bad")
    shade = "getComputedStyle(document.querySelectorAll('.said .token')[{}]).backgroundColor"
    assert page.js(shade.format(0)) != page.js(shade.format(1))
    page.press("j")
    page.until("document.querySelector('.detail').innerText.includes('No log-probabilities are recorded here.')")


def test_all_of_a_message_is_shown_whatever_of_its_tokens_is_kept(served, tmp_path):
    """A run keeps the first tokens alone, and a character of several tokens has no text in any of them."""
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "trajectories.jsonl"
    kept = json.loads(path.read_text("utf-8").splitlines()[0])
    kept["steps"][0]["text"], kept["steps"][1]["text"] = "caf\u00e9!", "one two three"
    kept |= {"tokens": [["caf", "\ufffd", "\ufffd", "!"], ["one", " two"]], "log_probs": [[-0.1] * 4, [-0.1] * 2]}
    path.write_text(json.dumps(kept) + "\n", "utf-8")
    page = served(tmp_path / "run")
    page.press("3")
    page.until("document.querySelector('.row')")
    page.press("j")
    page.until("document.querySelectorAll('.said .token').length === 6")
    said = page.js("[...document.querySelectorAll('.said')].map(one => one.textContent)")
    assert said == ["caf\u00e9!", "caf\ufffd\ufffd!", "one two three"]


def test_hostile_text_stays_text_in_every_view(served, runs):
    page = served(runs / "hostile")
    seen = []
    for key in "12345":
        page.press(key)
        page.until("document.querySelector('main').innerText.length > 20")
        if key in "234":
            page.until("document.querySelector('.row')")
            page.press("j", *("ArrowRight", "l") * (key == "2"))
            page.until("document.querySelector('.detail h2')")
        page.js("document.querySelectorAll('details').forEach(one => one.open = true)")
        page.js("new Promise(resolve => setTimeout(resolve, 200))")
        seen.append(page.text("body"))
        assert not page.js("document.documentElement.hasAttribute('owned')")
        assert page.js("document.querySelectorAll('main img, main svg, main iframe, main script').length") == 0
    assert (
        HOSTILE[0] in seen[0] and WORDS in seen[1] and WORDS in seen[2] and WORDS in seen[3] and HOSTILE[1] in seen[4]
    )


def test_clicking_a_reason_filters_by_it(served, runs):
    page = served(runs / "many")
    page.click("#tab-Synthesis")
    page.click(".reason")
    page.until(f"{NAMES}.length === 2 || document.querySelectorAll('.row').length === 2")
    page.click("[data-index='1']")
    page.until("document.querySelector('.detail').innerText.includes('none: every attempt was refused')")
    assert "Attempt 1: vm_exec_failed" in page.text(".detail") and "find_day" in page.text(".detail")


def test_one_file_needs_no_server_and_no_view_is_wider_than_a_telephone(window, runs, tmp_path):
    found = source([runs / "many"])
    (tmp_path / "page.html").write_text(page({address: piece(found, address) for address in addresses(found)})[0])
    window.complaints.clear()
    window.size(390, 800)
    window.open((tmp_path / "page.html").as_uri())
    for key in "12345":
        window.press(key)
        if key in "234":
            window.until("document.querySelector('.row')")
            window.press("j")
            window.until("document.querySelector('.detail h2')")
        assert window.js(
            "document.querySelector('main').scrollWidth <= innerWidth && document.documentElement.scrollWidth <= innerWidth"
        )
    window.press("?")
    assert window.js("document.querySelector('#keys').open") and "next / previous row" in window.text("#keys")
    window.press("Escape")
    window.size(1300, 800)
    assert not window.complaints
