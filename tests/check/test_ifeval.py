"""The 25 instruction types on answers that are built to follow or to break them; the expected verdicts come from the construction.

On the published prompts (where NORMA_TEST_DATA, or ../shared/data beside the repository, has them) each instruction gets its own.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.check import build, known_programs
from norma.check.ifeval import follows, loose_forms, read_prompts
from norma.check.ifeval.data import Prompt
from norma.spec.types import Item, Message, Status

PLAIN = "the river runs slowly past the old mill while all the children watch small boats"
VOICES = {
    "ar": "يجري النهر ببطء بجانب الطاحونة القديمة ويراقب الأطفال القوارب الصغيرة طوال اليوم ثم يعودون إلى بيوتهم.",
    "bg": "Реката тече бавно покрай старата мелница, а децата гледат малките лодки през целия ден и после се прибират вкъщи.",
    "bn": "নদীটি পুরনো কলের পাশ দিয়ে ধীরে ধীরে বয়ে যায় এবং শিশুরা সারাদিন ছোট নৌকাগুলি দেখে।",
    "de": "Der Fluss fließt langsam an der alten Mühle vorbei, und die Kinder schauen den ganzen Tag den kleinen Booten zu.",
    "fa": "رودخانه به آرامی از کنار آسیاب قدیمی می‌گذرد و بچه‌ها تمام روز قایق‌های کوچک را تماشا می‌کنند.",
    "fi": "Joki virtaa hitaasti vanhan myllyn ohi, ja lapset katselevat pieniä veneitä koko päivän ennen kuin he palaavat kotiin.",
    "gu": "નદી જૂની મિલની બાજુમાંથી ધીમે ધીમે વહે છે અને બાળકો આખો દિવસ નાની હોડીઓ જુએ છે.",
    "hi": "नदी पुरानी चक्की के पास से धीरे-धीरे बहती है और बच्चे पूरे दिन छोटी नावों को देखते रहते हैं।",
    "it": "Il fiume scorre lentamente accanto al vecchio mulino e i bambini guardano le piccole barche per tutto il giorno.",
    "kn": "ನದಿಯು ಹಳೆಯ ಗಿರಣಿಯ ಪಕ್ಕದಲ್ಲಿ ನಿಧಾನವಾಗಿ ಹರಿಯುತ್ತದೆ ಮತ್ತು ಮಕ್ಕಳು ದಿನವಿಡೀ ಸಣ್ಣ ದೋಣಿಗಳನ್ನು ನೋಡುತ್ತಾರೆ.",
    "ko": "강은 오래된 방앗간 옆을 천천히 흐르고 아이들은 하루 종일 작은 배를 바라봅니다.",
    "mr": "नदी जुन्या गिरणीजवळून हळूहळू वाहते आणि मुले दिवसभर लहान होड्या पाहत असतात. नंतर ती घरी जातात.",
    "ne": "नदी पुरानो मिलको छेउबाट बिस्तारै बग्छ र केटाकेटीहरू दिनभरि साना डुङ्गाहरू हेर्छन्। त्यसपछि उनीहरू घर फर्कन्छन्।",
    "pa": "ਨਦੀ ਪੁਰਾਣੀ ਚੱਕੀ ਦੇ ਕੋਲੋਂ ਹੌਲੀ-ਹੌਲੀ ਵਗਦੀ ਹੈ ਅਤੇ ਬੱਚੇ ਸਾਰਾ ਦਿਨ ਛੋਟੀਆਂ ਕਿਸ਼ਤੀਆਂ ਦੇਖਦੇ ਹਨ।",
    "pt": "O rio corre devagar ao lado do velho moinho e as crianças observam os pequenos barcos durante todo o dia. Não há pressa.",
    "ru": "Река медленно течёт мимо старой мельницы, и дети весь день смотрят на маленькие лодки, а вечером идут домой.",
    "sw": "Mto unapita polepole kando ya kinu cha zamani na watoto wanatazama mashua ndogo siku nzima kabla ya kurudi nyumbani.",
    "ta": "ஆறு பழைய ஆலையைக் கடந்து மெதுவாக ஓடுகிறது, குழந்தைகள் நாள் முழுவதும் சிறிய படகுகளைப் பார்க்கிறார்கள்.",
    "te": "నది పాత మిల్లు పక్కన నెమ్మదిగా ప్రవహిస్తుంది మరియు పిల్లలు రోజంతా చిన్న పడవలను చూస్తారు.",
    "th": "แม่น้ำไหลช้าๆ ผ่านโรงสีเก่า และเด็กๆ เฝ้าดูเรือลำเล็กตลอดทั้งวัน",
    "ur": "دریا پرانی چکی کے پاس سے آہستہ آہستہ بہتا ہے اور بچے سارا دن چھوٹی کشتیوں کو دیکھتے رہتے ہیں۔",
    "vi": "Dòng sông chảy chậm qua cối xay cũ và bọn trẻ ngắm những chiếc thuyền nhỏ suốt cả ngày rồi trở về nhà.",
    "zh": "河水缓缓流过老磨坊，孩子们整天看着小船，傍晚才回家。",
}
Built = list[tuple[str, bool]]


def around(n: int, relation: str, make: Callable[[int], str]) -> Built:
    """Texts with n - 1, n and n + 1 things, and whether each has at least, or less than, n."""
    return [(make(k), k >= n if relation == "at least" else k < n) for k in (n - 1, n, n + 1) if k >= 0]


def exactly(n: int, make: Callable[[int], str]) -> Built:
    return [(make(k), k == n) for k in (n - 1, n, n + 1) if k >= 1]


def letters(letter: str, k: int) -> str:
    filler = "8" if letter.isalpha() else "word"  # holds the letter in no case
    return f"{filler} {letter.upper() + letter.lower() * (k - 1) if k else ''}"


def frequency(keyword: str, k: int) -> str:
    return " ".join([keyword.upper(), *[keyword] * (k - 1), "88"][-k - 1 :] if k else ["88"])


BUILDERS: dict[str, Callable[[dict[str, Any]], Built]] = {
    "keywords:existence": lambda kw: [
        (f"88 {' 88 '.join(kw['keywords'])}".upper(), True),
        (f"8 {' 8 '.join(kw['keywords'][1:])}", False),
    ],
    "keywords:frequency": lambda kw: around(kw["frequency"], kw["relation"], lambda k: frequency(kw["keyword"], k)),
    "keywords:forbidden_words": lambda kw: [
        (" ".join(f"x{word}x" for word in kw["forbidden_words"]), True),
        *((f"88 {word.upper()}: 88", False) for word in kw["forbidden_words"]),
    ],
    "keywords:letter_frequency": lambda kw: around(kw["let_frequency"], kw["let_relation"], lambda k: letters(kw["letter"], k)),
    "length_constraints:number_words": lambda kw: around(kw["num_words"], kw["relation"], lambda k: "word, " * k),
    "length_constraints:number_sentences": lambda kw: around(
        kw["num_sentences"], kw["relation"], lambda k: "Birds sing at 3.14 p.m. today. " * k
    ),
    "length_constraints:number_paragraphs": lambda kw: exactly(kw["num_paragraphs"], lambda k: "\n***\n".join(["Birds sing."] * k)),
    "length_constraints:nth_paragraph_first_word": lambda kw: [
        (paragraphs(kw["num_paragraphs"], kw["nth_paragraph"], kw["first_word"].title() + ","), True),
        (paragraphs(kw["num_paragraphs"], kw["nth_paragraph"], "other"), False),
        (paragraphs(kw["num_paragraphs"] + 1, kw["nth_paragraph"], kw["first_word"]), False),
    ],
    "detectable_format:multiple_sections": lambda kw: around(
        kw["num_sections"], "at least", lambda k: "Birds\n" + "\n".join(f"{kw['section_spliter']} {i + 1}\nsing" for i in range(k))
    ),
    "detectable_format:number_bullet_lists": lambda kw: [
        *exactly(kw["num_bullets"], lambda k: "Birds:\n" + "\n".join(("* sing", "- fly")[i % 2] for i in range(k))),
        ("1. sing\n2. fly", False),
    ],
    "detectable_format:number_highlighted_sections": lambda kw: around(
        kw["num_highlights"], "at least", lambda k: "Birds " + " and ".join(["*sing*"] * k) + " * *"
    ),
    "detectable_format:title": lambda kw: [("<<A song>>\nBirds sing.", True), ("<A song>\nBirds sing.", False), ("<< >>\nBirds", False)],
    "detectable_format:json_format": lambda kw: [
        (json.dumps({"a": [1, None]}), True),
        ("```json\n[1, 2]\n```", True),
        ("Here: [1, 2]", False),
        ("{'a': 1}", False),
    ],
    "detectable_format:constrained_response": lambda kw: [("So: My answer is no.", True), ("My answer is perhaps.", False)],
    "detectable_content:number_placeholders": lambda kw: around(
        kw["num_placeholders"], "at least", lambda k: "Birds " + " ".join(["[name]"] * k) + " ]["
    ),
    "detectable_content:postscript": lambda kw: [
        (f"Birds sing.\n\n{kw['postscript_marker']} They fly.", True),
        ("Birds sing. PS they fly.", False),
    ],
    "language:response_language": lambda kw: [(text, tag == kw["language"]) for tag, text in VOICES.items()],
    "change_case:english_capital": lambda kw: [(PLAIN.upper(), True), (PLAIN, False), (VOICES["de"].upper(), False)],
    "change_case:english_lowercase": lambda kw: [
        (PLAIN, True),
        (PLAIN.upper(), False),
        (VOICES["de"].lower(), False),
        ("T" + PLAIN[1:], False),
    ],
    "change_case:capital_word_frequency": lambda kw: around(
        kw["capital_frequency"], kw["capital_relation"], lambda k: "Birds Sing " + "LOUD-LY, " * (k % 2) + "(NOW) U.S. " * (k // 2)
    ),
    "combination:two_responses": lambda kw: [
        ("Birds sing.\n******\nBirds fly.", True),
        ("Birds sing.\n******\nBirds sing.", False),
        ("Birds sing.\n*****\nBirds fly.", False),
        ("Birds.\n******\nsing.\n******\nfly.", False),
        ("Birds.\n******\n\n******\nfly.", False),
    ],
    "combination:repeat_prompt": lambda kw: [
        (kw["prompt_to_repeat"].upper() + "\n\nBirds.", True),
        ("Sure. " + kw["prompt_to_repeat"], False),
        (kw["prompt_to_repeat"][:-1], False),
    ],
    "punctuation:no_comma": lambda kw: [
        ("Birds sing; they fly.", True),
        ("Birds sing, they fly.", False),
        ("鸟儿，飞。", False),
        ("鸟、鱼。", True),
    ],
    "startend:end_checker": lambda kw: [
        (f'"Birds sing. {kw["end_phrase"].upper()}"\n', True),
        (f"{kw['end_phrase']} Birds sing", False),
    ],
    "startend:quotation": lambda kw: [
        ('"Birds sing."', True),
        ('"Birds" sing.', False),
        ("'Birds sing.'", False),
        ("“Birds sing.”", False),
    ],
}


def paragraphs(count: int, nth: int, word: str) -> str:
    return "\n\n".join(f"{word} birds sing." if i == nth else "Some birds sing." for i in range(1, count + 1))


KWARGS: dict[str, dict[str, Any]] = {
    "keywords:existence": {"keywords": ["apple", "C++ (pear)"]},
    "keywords:frequency": {"keyword": "a.b", "frequency": 2, "relation": "less than"},
    "keywords:forbidden_words": {"forbidden_words": ["sad", "very bad"]},
    "keywords:letter_frequency": {"letter": "Q", "let_frequency": 3, "let_relation": "at least"},
    "length_constraints:number_words": {"num_words": 12, "relation": "at least"},
    "length_constraints:number_sentences": {"num_sentences": 3, "relation": "less than"},
    "length_constraints:number_paragraphs": {"num_paragraphs": 3},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "Weekend"},
    "detectable_format:multiple_sections": {"section_spliter": "SECTION", "num_sections": 3},
    "detectable_format:number_bullet_lists": {"num_bullets": 3},
    "detectable_format:number_highlighted_sections": {"num_highlights": 2},
    "detectable_content:number_placeholders": {"num_placeholders": 2},
    "detectable_content:postscript": {"postscript_marker": "P.P.S"},
    "language:response_language": {"language": "hi"},
    "change_case:capital_word_frequency": {"capital_frequency": 3, "capital_relation": "at least"},
    "combination:repeat_prompt": {"prompt_to_repeat": "Tell me about birds!"},
    "startend:end_checker": {"end_phrase": "Peace be with you."},
}
ITEM = Item("1", (Message(role="user", content="Write."),))


def complies(use: str, kwargs: dict[str, Any], response: str) -> bool:
    status = build(use, kwargs, "").check(ITEM, response).status
    assert status in (Status.COMPLIANT, Status.VIOLATION)
    return status is Status.COMPLIANT


@pytest.mark.parametrize("use", sorted(BUILDERS))
def test_each_type_on_answers_built_to_follow_and_to_break_it(use: str) -> None:
    kwargs = KWARGS.get(use, {})
    built = BUILDERS[use](kwargs)
    assert {expected for _, expected in built} == {True, False}
    assert [complies(use, kwargs, response) for response, _ in built] == [expected for _, expected in built]
    assert not complies(use, kwargs, "") and not complies(use, kwargs, " \n")


def test_there_are_25_types() -> None:
    assert len(BUILDERS) == 25 and set(BUILDERS) == {name for name in known_programs() if ":" in name}


def prompts() -> list[Prompt]:
    given = os.environ.get("NORMA_TEST_DATA")
    folder = Path(given) if given else Path(__file__).parents[2].parent / "shared" / "data"
    file = folder / "ifeval" / "input_data.jsonl.gz"
    if not file.is_file():
        pytest.skip("no ifeval/input_data.jsonl.gz here: set NORMA_TEST_DATA to a folder that holds it")
    return read_prompts(file)


def test_agreement_on_the_541_published_prompts() -> None:
    rows = prompts()
    assert len(rows) == 541 and len({row.item.id for row in rows}) == 541
    assert sum(len(row.instructions) for row in rows) == 834 and {n for row in rows for n, _ in row.instructions} == set(BUILDERS)
    agreed: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for row in rows:
        for (use, kwargs), checker in zip(row.instructions, row.checkers(), strict=True):
            built = BUILDERS[use](dict(kwargs))
            if use == "language:response_language":  # two of the 23 voices are enough for each prompt
                built = [b for b in built if b[1]] + [("The river runs slowly past the old mill.", False)]
            for response, expected in built:
                asked[use] += 1
                agreed[use] += (checker.check(row.item, response).status is Status.COMPLIANT) == expected
    assert sum(asked.values()) > 1668 and agreed == asked


# (instruction, kwargs, Chinese answer, follows it): counted by hand; the reference gets most of these wrong.
CHINESE: list[tuple[str, dict[str, Any], str, bool]] = [
    ("length_constraints:number_words", {"num_words": 14, "relation": "at least"}, "请回答问题时保持礼貌，谢谢你", False),
    ("length_constraints:number_words", {"num_words": 13, "relation": "at least"}, "请回答问题时保持礼貌，谢谢你", True),
    ("length_constraints:number_words", {"num_words": 7, "relation": "less than"}, "用API和SDK开发", True),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, "今天下雨。你带伞了吗？带了！", True),
    ("length_constraints:number_sentences", {"num_sentences": 4, "relation": "at least"}, "今天下雨。你带伞了吗？带了！", False),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "他说：“今天下雨。”", True),
    ("keywords:forbidden_words", {"forbidden_words": ["谢谢"]}, "我谢谢你", False),
    ("keywords:frequency", {"keyword": "雨", "frequency": 2, "relation": "at least"}, "下雨了，雨很大", True),
    ("keywords:existence", {"keywords": ["礼貌"]}, "请保持礼貌", True),
    ("punctuation:no_comma", {}, "今天下雨，带伞。", False),
    ("startend:quotation", {}, "“今天下雨。”", True),
    ("startend:quotation", {}, "今天“下雨”", False),
    ("startend:end_checker", {"end_phrase": "还有问题吗？"}, "“今天下雨。还有问题吗？”", True),
    ("detectable_format:title", {}, "《《雨》》\n今天下雨。", True),
    ("detectable_format:multiple_sections", {"section_spliter": "章节", "num_sections": 2}, "章节一\n下雨\n章节二\n带伞", True),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "寄到【地址】，电话［号码］。", True),
    ("detectable_content:postscript", {"postscript_marker": "附言"}, "今天下雨。\n附言：带伞。", True),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "带伞"},
     "下雨。\n\n“带伞吧。”", True),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "用API和SDK开发", True),
    ("language:response_language", {"language": "zh"}, VOICES["zh"], True),
]  # fmt: skip


@pytest.mark.parametrize(("use", "kwargs", "response", "expected"), CHINESE)
def test_chinese(use: str, kwargs: dict[str, Any], response: str, expected: bool) -> None:
    assert complies(use, kwargs, response) is expected


def test_kwargs_as_copies_of_the_data_have_them() -> None:
    everything = dict.fromkeys(("num_words", "relation", "keywords", "letter", "language"))
    assert complies("punctuation:no_comma", everything, "Birds sing.")  # nulls of other types
    assert complies("length_constraints:number_words", {**everything, "num_words": "3", "relation": "less than"}, "Two words")  # text
    assert not complies("keywords:frequency", {"keyword": "a", "frequency": 0, "relation": "less than"}, "none")  # 0 is a bound
    assert complies("keywords:frequency", {"keyword": "a", "frequency": 0, "relation": "at least"}, "none")
    with pytest.raises(NormaError, match="has no parameter 'num_wrds'"):
        build("length_constraints:number_words", {"num_wrds": 3, "relation": "at least"}, "")
    with pytest.raises(NormaError, match="needs the parameter 'num_words'"):
        build("length_constraints:number_words", {"num_words": None, "relation": "at least"}, "")


def test_keys_may_be_numbers_or_text_and_bad_rows_are_named(tmp_path: Path) -> None:
    row = {"key": 7, "prompt": "Write.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"num_words": None}]}
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({**row, "key": key}) for key in (7, "8")), encoding="utf-8")
    read = read_prompts(file)
    assert [p.item.id for p in read] == ["7", "8"]
    assert read[0].rules() == [{"kind": "program", "use": "punctuation:no_comma", "params": {}}]
    for bad, words in (({**row, "kwargs": []}, "1 instructions but 0 kwargs"), ({"key": 1}, "not a row of IFEval"), ([], "not a row")):
        file.write_text(json.dumps(row) + "\n" + json.dumps(bad), encoding="utf-8")
        with pytest.raises(NormaError, match=words) as error:
            read_prompts(file)
        assert f"{file}:2" in str(error.value)


def test_loose() -> None:
    answer = "Sure, here it is:\n**BIRDS SING ALL DAY IN THE GREEN TREES NEAR THE HOUSE**\nAnything else?"
    checkers = [build("change_case:english_capital", {}, ""), build("punctuation:no_comma", {}, ""), build("startend:quotation", {}, "")]
    assert follows(checkers, ITEM, answer) == [Status.VIOLATION] * 3
    assert follows(checkers, ITEM, answer, loose=True) == [Status.COMPLIANT, Status.COMPLIANT, Status.VIOLATION]


@given(st.lists(st.sampled_from(["a", "*b*", "", " c"]), min_size=1, max_size=4))
def test_loose_forms_are_what_the_paper_says(lines: list[str]) -> None:
    """Slowly: every one of the 2 x 2 x 2 choices of first line, last line and asterisks."""
    text = "\n".join(lines)
    expected = {text, text.replace("*", "")}
    for first in (0, 1):
        for last in (0, 1):
            if first or last:
                kept = "\n".join(
                    lines[i] for i in range(len(lines)) if not (first and i == 0) and not (last and i == len(lines) - 1)
                ).strip()
                expected |= {kept, kept.replace("*", "")}
    assert set(loose_forms(text)) == expected and loose_forms(text)[0] == text
