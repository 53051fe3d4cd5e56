"""The studio in a real browser (Debian's Chromium): by keyboard, in both languages, with models and without a network."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from norma.lm import LanguageModel

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")]
SERVER = Path(__file__).parent / "serving.py"
PAGES = ["annotate", "prefer", "review", "look", "chat", "compliance", "runs", "spec", "people"]


@pytest.fixture
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def studio(run: Path, make_model: Callable[..., LanguageModel]) -> Iterator[Callable[..., str]]:
    """studio("local") or studio("accounts"), and folders of further models: the address of a started studio."""
    processes = []
    for number, name in enumerate(("reward", "instruct")):
        make_model(number + 1).save(run / name)

    def start(kind: str, *models: Path) -> str:
        command = [sys.executable, "-u", str(SERVER), str(run), "0", kind, *map(str, models)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"http://\S+", process.stdout.readline() if kind == "local" else first)
        assert found, first
        return found[0]

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def page_of(context: Any, troubles: list[str]) -> Any:
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda said: troubles.append(said.text) if said.type == "error" and "status of 4" not in said.text else None)
    page.on(
        "request", lambda asked: troubles.append(asked.url) if "127.0.0.1" not in asked.url and not asked.url.startswith("data:") else None
    )
    return page


def until(page: Any, expression: str, seconds: float = 30) -> None:
    """Wait until an expression holds. Playwright's own wait_for_function needs eval, which the studio's policy forbids."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(sync_api.Error):  # between two documents; what stays wrong ends in the assertion below
            if page.evaluate(expression):
                return
        page.wait_for_timeout(60)
    raise AssertionError(f"never held at {page.url}: {expression}")


def rows_of(run: Path) -> list[Any]:
    from norma.labels import LabelStore

    with LabelStore(run / "studio" / "labels.sqlite") as store:
        return store.rows(source="human")


def test_every_page_by_keyboard_and_mouse(browser: Any, studio: Callable[..., str], run: Path) -> None:
    troubles: list[str] = []
    address = studio("local")
    base = address.partition("/open")[0]
    context = browser.new_context(viewport={"width": 1200, "height": 800}, locale="en-GB")
    page = page_of(context, troubles)
    page.goto(address)

    # Every page opens, in both languages, light and dark, wide and on a phone; nothing runs over the edge.
    for language, theme, width in (("en", "light", 1200), ("zh", "dark", 390)):
        page.set_viewport_size({"width": width, "height": 800})
        for name in PAGES:
            page.goto(f"{base}/{name}?lang={language}&theme={theme}")
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, language)
            assert page.title() != "owned"
    page.set_viewport_size({"width": 1200, "height": 800})

    # The language is switched, and stays.
    page.goto(f"{base}/annotate?lang=en&theme=light")
    page.click("#language")
    until(page, "document.documentElement.dataset.lang === 'zh'")
    page.goto(f"{base}/chat")
    assert page.get_attribute("html", "lang") == "zh-Hans" and page.locator("nav a[aria-current]").inner_text() == "对话"
    page.click("#language")
    until(page, "document.documentElement.dataset.lang === 'en'")

    # 20 items by keyboard: those drawn from the run, then some from a file.
    page.goto(f"{base}/annotate")
    page.click("#draw")
    page.wait_for_selector("#desk:not([hidden])")
    extra = [
        {"messages": [{"role": "user", "content": f"Extra {n}?"}], "response": f"Sure: answer {n}, 好的。", "rule": "form.brief"}
        for n in range(16)
    ]
    page.evaluate("rows => ask('/api/items', new Blob([rows.map(r => JSON.stringify(r)).join('\\n')]))", extra)
    page.reload()
    page.wait_for_selector("#desk:not([hidden])")
    assert page.locator("#answer").inner_html().find("<script") < 0
    for n in range(20):
        page.wait_for_selector("#desk:not([hidden])")
        page.wait_for_timeout(150)
        if n == 3:  # a highlighted word, by arrows
            page.keyboard.press("h")
            page.keyboard.press("Shift+ArrowRight")
            page.keyboard.press("Enter")
            assert page.locator("#answer mark").count() >= 1
        if n == 5:  # a correction, with its difference and its checkers
            page.keyboard.press("e")
            page.keyboard.press("Control+A")
            page.keyboard.type("Certainly: 42.")
            page.wait_for_selector("#difference ins")
            page.wait_for_selector("#checks .chip")
            page.keyboard.press("Control+Enter")
            continue
        page.keyboard.press(str(n % 4 + 1))
    until(page, "document.getElementById('today').textContent === '20'")
    marks = rows_of(run)
    assert len(marks) == 20 and sum(m.corrected == "Certainly: 42." for m in marks) == 1 and sum(bool(m.spans) for m in marks) == 1
    page.keyboard.press("u")
    until(page, "document.getElementById('today').textContent === '19'")
    page.wait_for_timeout(200)
    page.keyboard.press("1")
    until(page, "document.getElementById('today').textContent === '20'")
    assert len(rows_of(run)) == 22  # the mark, its withdrawal, the new one: nothing is deleted

    # While the line is down marks wait in the browser.
    page.wait_for_timeout(200)
    context.set_offline(True)
    page.keyboard.press("2")
    until(page, "document.getElementById('saved').textContent.includes('not saved')")
    context.set_offline(False)
    until(page, "document.getElementById('today').textContent === '21'")
    troubles[:] = [t for t in troubles if "ERR_INTERNET_DISCONNECTED" not in t]

    # Preferences by arrow.
    page.goto(f"{base}/prefer")
    page.wait_for_selector("#pair:not([hidden])")
    page.wait_for_timeout(150)
    page.keyboard.press("ArrowLeft")
    until(page, "document.getElementById('saved').textContent === 'saved'")

    # Look inside: what comes next as one types, and the attention map under the mouse.
    page.goto(f"{base}/look")
    page.wait_for_selector("#next .bar-row")
    before = page.locator("#tokens .token").count()
    page.locator("#text").press_sequentially(" It writes")
    until(page, f"document.querySelectorAll('#tokens .token').length > {before}")
    page.wait_for_selector("#heads button")
    page.wait_for_timeout(800)
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.7)
    until(page, "/→.*%/.test(document.getElementById('reading').textContent)")
    page.locator("#map").press("ArrowDown")
    assert page.locator("#heads button").count() == 4 and page.locator(".lens td").count() > 5 and page.locator("math").count() >= 7

    # Chat: two models, streamed, judged, and into the queue.
    page.goto(f"{base}/chat")
    page.select_option("#model1", "instruct")
    page.fill("#most", "24")
    page.fill("#say", "What does `json.dumps` do?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#column0 .verdict-line .chip")
    page.wait_for_selector("#column1 .verdict-line .chip")
    page.locator("#column0 .annotate").click()
    page.wait_for_selector("text=In the queue")

    # Compliance: a bar opens its items, escaped.
    page.goto(f"{base}/compliance")
    page.locator("button.open").nth(1).click()
    page.wait_for_selector("dialog[open] article")
    assert "<script>" in page.locator("#behindrows").inner_text() and page.locator("#behindrows script, #behindrows img").count() == 0
    page.keyboard.press("Escape")

    # Spec: an edit is checked and its plan shown.
    page.goto(f"{base}/spec")
    page.evaluate("text.value = text.value.replace('ten words.', 'ten words, please.')")
    page.locator("#text").press("Control+Enter")
    page.wait_for_selector("#plan .change")
    assert page.title() != "owned" and troubles == []
    context.close()


def test_every_kind_of_model_can_be_looked_into(browser: Any, studio: Callable[..., str], tmp_path: Path) -> None:
    from norma.lm import LanguageModel
    from norma.nn import Transformer, preset
    from norma.text.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["What does `json.dumps` do? It writes text."] * 5, 320, ["masked", "pairs"])
    kinds: dict[str, dict[str, int]] = {
        "bert": {}, "bart": {"encoder_layers": 1}, "switch": {"encoder_layers": 2, "experts": 3},
        "qwen3-moe": {"experts": 4, "per_token": 2, "expert_width": 8},
    }  # fmt: skip
    for family, sizes in kinds.items():
        config = preset(family, vocab_size=len(tokenizer), width=16, layers=2, head_size=8, max_positions=64, **sizes)
        LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(3)).eval(), tokenizer).save(tmp_path / family)
    troubles: list[str] = []
    address = studio("local", *(tmp_path / family for family in kinds))
    context = browser.new_context(viewport={"width": 390, "height": 800}, locale="en-GB")
    page = page_of(context, troubles)
    page.goto(address)
    page.goto(f"{address.partition('/open')[0]}/look")
    sections = {  # which of the sections are there
        "bert": "masked attention lens masks", "bart": "next attention lens masks", "switch": "next attention lens experts masks",
        "qwen3-moe": "next attention lens experts masks rotary",
    }  # fmt: skip
    for family, wanted in sections.items():
        page.select_option("#model", family)
        until(page, f"document.getElementById('about').textContent.startsWith('{family} ')", 150)  # the first loads PyTorch
        shown = "[...document.querySelectorAll('section[id^=s-]:not([hidden])')].map(s => s.id.slice(2)).join(' ')"
        until(page, f"{shown} === '{wanted}' && !document.querySelector('main[aria-busy]')", 60)
        until(page, "document.querySelectorAll('#heads button').length === 2 && document.querySelectorAll('.lens td').length > 2")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), family
        if family == "bert":  # the example has a blank, and what is chosen goes into it
            assert page.input_value("#text") == "What does ___ do?"
            page.locator("#mask0 .bar-row:enabled").first.click()
            until(page, "!text.value.includes('___') && text.value.endsWith(' do?')")
            page.fill("#text", "What does `json.dumps` do?")
        elif family == "bart":  # two stacks: the decoder has written something, and looks at what the encoder read
            assert page.input_value("#stack") == "cross"
            page.fill("#target", "It writes")
            until(page, "document.querySelectorAll('#written .token').length > 2")
            page.click("#write")
            until(page, "target.value !== 'It writes'")
    assert troubles == []
    context.close()


def test_logging_in_being_refused_and_roles(browser: Any, studio: Callable[..., str], run: Path) -> None:
    from norma.studio.serving import add_user

    for name, role in (("ann", "annotator"), ("ada", "admin")):
        add_user(run, None, name, f"password of {name}", role)
    troubles: list[str] = []
    base = studio("accounts")
    context = browser.new_context(locale="zh-CN")
    page = page_of(context, troubles)
    page.goto(f"{base}/annotate")
    assert page.url.endswith("/login") and "登录" in page.inner_text("h1, button.main") + page.inner_text("button.main")
    page.fill("input[name=name]", "ann")
    page.fill("input[name=password]", "wrong wrong wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    page.fill("input[name=password]", "password of ann")
    page.keyboard.press("Enter")
    page.wait_for_url("**/annotate")
    assert page.locator("nav a").count() == 7 and page.goto(f"{base}/people").status == 403
    page.goto(f"{base}/annotate")
    page.click("#logout")
    page.wait_for_url("**/login")
    assert "/login" in (page.goto(f"{base}/annotate").url)
    page.fill("input[name=name]", "ada")
    page.fill("input[name=password]", "password of ada")
    page.keyboard.press("Enter")
    page.wait_for_url("**/annotate")
    page.goto(f"{base}/people")
    page.wait_for_selector("#users tbody tr")
    assert page.locator("#users tbody tr").count() == 2 and "拒绝登录" in page.inner_text("#audit")
    assert troubles == [], json.dumps(troubles)
    context.close()
