"""The pictures of the studio in these pages, taken by Playwright and Chromium: python docs/studio_pictures.py RUN [MODEL ...]

RUN ─→ a studio with four people and labels of its own ─→ answers drawn, marked by two ─→ docs/studio/PAGE-LANGUAGE-THEME[-phone].png

Of each MODEL (a folder) and of the run's own last model "look inside" is pictured by its kind: decoder, encoder, encoder-decoder, experts.
Needs playwright, pillow, chromium and a Chinese font (Debian: chromium, fonts-noto-cjk). ``--only look`` takes those pictures alone.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from norma.studio.serving import add_user

TARGET = Path(__file__).resolve().parent / "studio"
PEOPLE = {"ada": "admin", "rita": "reviewer", "ann": "annotator", "ben": "annotator"}
WIDE, PHONE, SHARP = {"width": 1280, "height": 860}, {"width": 390, "height": 844}, 1.5  # CSS pixels; a phone's pixels are finer
DRAWN, ANN, BEN = 200, 90, 70  # answers drawn, and how many each marks
QUESTION = {
    "en": "What does `random.choice` do?\nEntry: `random.choice(seq)`\nReturn a random element from a non-empty sequence.",
    "zh": "`random.choice` 有什么作用？\n条目：`random.choice(seq)`\nReturn a random element from a non-empty sequence.",
}


@contextmanager
def studio(run: Path, models: list[Path]) -> Iterator[str]:
    """The address of a studio on ``run`` whose people and labels are thrown away afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        labels = f"{folder}/labels.sqlite"
        for name, role in PEOPLE.items():
            add_user(run, labels, name, f"password of {name}", role)
        further = [word for model in models for word in ("--model", str(model))]
        command = [sys.executable, "-u", "-m", "norma", "studio", str(run), "--accounts", "--port", "0", "--labels", labels, *further]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            if found is None:
                sys.exit("the studio did not start")
            yield found[0]
        finally:
            process.terminate()
            process.wait(30)


def enter(browser: Browser, base: str, name: str, **screen: Any) -> Page:
    """A page of somebody who has logged in."""
    page = browser.new_context(**screen).new_page()
    page.set_default_timeout(120_000)  # the first look into a model loads it
    page.goto(f"{base}/login?lang=en")
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", f"password of {name}")
    page.click("button.main")
    page.wait_for_url("**/annotate")
    return page


def ask(page: Page, path: str, body: Any = None) -> Any:
    """What the studio answers to the page's own request, token and all."""
    return page.evaluate("([path, body]) => ask(path, body ?? undefined)", [path, body])


def annotate(browser: Browser, base: str) -> None:
    """Two people mark what their checkers would; each ninth of Ann's contradicts them, each eleventh is unsure: both go to Ben as well."""
    ask(enter(browser, base, "rita"), "/api/fill", {"count": DRAWN})
    for name, count in (("ann", ANN), ("ben", BEN)):
        page, done = enter(browser, base, name), 0
        while done < count and (items := ask(page, "/api/next")["items"]):
            for item in items:
                checks = ask(page, "/api/check", {"task": item["task"], "text": item["response"]})["rules"]
                said = next((c["after"] for c in checks if c["rule"] == item["rule"]), "not_applicable")
                mark = {"task": item["task"], "verdict": said, "revision": item["revision"], "seconds": 4.0 + done % 7}
                done += 1
                if name == "ann" and done % 9 == 0:
                    other = "violation" if said == "compliant" else "compliant"
                    mark |= {"verdict": other, "rationale": "Read as a person would, not word by word."}
                elif name == "ann" and done % 11 == 0:
                    mark |= {"verdict": "unsure"}
                ask(page, "/api/mark", mark)
        page.context.close()


# ── what is done on a page before its picture ──
def spoken(page: Page) -> str:
    return page.get_attribute("html", "data-lang") or "en"


def correct(page: Page) -> None:
    """Let the answer name what the question asks about, and open politely."""
    page.wait_for_selector("#desk:not([hidden])")
    subject, opening = re.search("`[^`]+`", page.inner_text("#messages")), {"en": "Certainly: ", "zh": "您好："}[spoken(page)]
    answer = re.sub("`[^`]*`?", subject[0] if subject else "", page.inner_text("#answer"), count=1)
    page.keyboard.press("e")
    page.fill("#corrected", answer if answer.startswith(opening) else opening + answer)
    page.wait_for_selector("#checks .chip")
    to(page, "#answer")


def talk(page: Page) -> None:
    page.select_option("#model0", "reward")
    page.select_option("#model1", "instruct")
    page.fill("#say", QUESTION[spoken(page)])
    page.keyboard.press("Enter")
    page.wait_for_selector("#send")  # it is away while the models write


def overall(page: Page) -> None:
    to(page, "main section")


def curves(page: Page) -> None:
    to(page, "#training")


def behind(page: Page) -> None:
    page.locator("button.open").nth(1).click()
    page.wait_for_selector("dialog[open] article")


def plan(page: Page) -> None:
    page.evaluate("text.value = text.value.replace('in one sentence.', 'in one short sentence.')")
    page.click("#check")
    page.wait_for_selector("#plan .change")
    to(page, "#check")


def to(page: Page, place: str) -> None:
    """Scroll ``place`` to just below the head of the page."""
    page.locator(place).first.evaluate("e => scrollTo(0, e.getBoundingClientRect().top + scrollY - 90)")


def look(name: str, text: str, place: str) -> Callable[[Page], None]:
    """Open a model, give it a text, let two stacks write, and point at the map."""

    def act(page: Page) -> None:
        page.select_option("#model", name)
        settle(page)
        if text:
            page.fill("#text", text)
            settle(page)
        if page.is_visible("#write"):
            page.click("#write")
            settle(page)
        for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
            page.locator("#map").press(key)
        page.evaluate("document.activeElement.blur()")
        to(page, place)

    return act


def settle(page: Page) -> None:
    """Wait until the page shows what it was asked for last."""
    page.wait_for_timeout(200)
    page.wait_for_selector("main:not([aria-busy])")


def pictures(page: Page) -> list[tuple[str, str, str, Callable[[Page], None] | None]]:
    """(name, path, language and theme and perhaps phone, what is done first) of each picture; ``page`` asks which models there are."""
    page.goto(page.url.replace("/annotate", "/look"))
    kinds: dict[str, str] = {}
    for name in page.locator("#model option").all_inner_texts():
        about = ask(page, "/api/look/about", {"model": name})
        kinds["experts" if about["experts"] else about["kind"]] = name
    kinds["decoder"] = page.input_value("#model")  # the one that the page opens with
    found: list[tuple[str, str, str, Callable[[Page], None] | None]] = []
    for name, act, views in (
        ("login", None, ("en light", "zh dark phone")),
        ("account", None, ("en light phone", "zh dark phone")),
        ("annotate", correct, ("en light", "zh dark")), ("annotate", None, ("zh light phone",)),
        ("prefer", None, ("en dark", "zh light")),
        ("review", None, ("en light", "zh dark")),
        ("chat", talk, ("en light", "zh dark", "zh light phone")),
        ("compliance", overall, ("en light",)), ("compliance", behind, ("zh light",)),
        ("runs", None, ("en dark",)), ("runs", curves, ("zh light",)),
        ("spec", None, ("en light", "zh light phone")), ("spec", plan, ("zh dark",)),
        ("people", None, ("en light", "zh dark")),
    ):  # fmt: skip
        found += [(name, f"/{name}", view, act) for view in views]
    for kind, text, views in (
        ("decoder", "", (("#s-attention", "en light"), ("#s-next", "zh dark"), ("main", "en dark phone"))),
        ("encoder", "The river flows through the ___ of the country.", (("#s-masked", "en light"), ("#s-masked", "zh light phone"))),
        ("encoder-decoder", "Two men are playing in the snow.", (("#s-attention", "en light"), ("#s-attention", "zh dark"))),
        ("experts", "The river flows through the north of the country.", (("#s-experts", "en light"), ("#s-experts", "zh dark"))),
    ):  # fmt: skip
        if kind in kinds:
            found += [(f"look-{kind}", "/look", view, look(kinds[kind], text, place)) for place, view in views]
    return found


def shoot(page: Page, name: str, view: str) -> None:
    """A picture with 256 colours: a third of the size, and nothing to be seen of it."""
    path = TARGET / f"{name}-{view.replace(' ', '-')}.png"
    page.wait_for_load_state("networkidle")
    page.screenshot(path=path, animations="disabled")
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("models", type=Path, nargs="*", metavar="MODEL")
    parser.add_argument("--only", default="", metavar="WORD,...", help="only pictures whose names begin with one of them")
    given = parser.parse_args()
    chromium = next((b for name in ("chromium", "chromium-browser", "google-chrome") if (b := shutil.which(name))), None)
    if chromium is None:
        sys.exit("no chromium here (Debian: apt-get install chromium fonts-noto-cjk)")
    with studio(given.run, given.models) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--hide-scrollbars"])
        wide = enter(browser, base, "ada", viewport=WIDE)
        phone = enter(browser, base, "ada", viewport=PHONE, device_scale_factor=SHARP, has_touch=True)
        chosen = [picture for picture in pictures(wide) if picture[0].startswith(tuple(given.only.split(",")))]
        if {"annotate", "review"} & {name for name, *_ in chosen}:
            annotate(browser, base)
        for name, path, view, act in chosen:
            language, theme, *small = view.split()
            page = phone if small else wide
            page.goto(f"{base}{path}?lang={language}&theme={theme}")
            page.wait_for_load_state("networkidle")
            if act is not None:
                act(page)
            shoot(page, name, view)
            page.goto("about:blank")  # a page of runs asks again and again how they stand
        browser.close()


if __name__ == "__main__":
    main()
