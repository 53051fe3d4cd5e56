"""The specs that come with Norma, as package data beside this file: wherever a spec file is asked for, their names do as well.

    norma spec lint polite-support    Spec.load("polite-support")

A file of the user's own with that name wins. `courteous-docs` is a link to the demo's spec in ``recipes/``.
"""

from __future__ import annotations

from pathlib import Path

from norma.base.errors import NormaError, nearest

_FOLDER = Path(__file__).parent
_ENDING = ".spec.yaml"

# name -> what it is about, in one line per language
SUMMARIES: dict[str, dict[str, str]] = {
    "courteous-docs": {
        "en": "A documentation assistant: polite, brief, honest about what the entry does not say",
        "zh-Hans": "文档助手：礼貌、简短，条目没写的就说没写",
    },
    "format-and-length": {
        "en": "Keep the form that was asked for: JSON, so many points, so many words",
        "zh-Hans": "按要求的格式作答：JSON、条数、字数",
    },
    "language-match": {
        "en": "Answer in the language of the question, unmixed; leave code and names as they are",
        "zh-Hans": "用提问的语言回答，不夹杂；代码和名称保持原样",
    },
    "no-personal-data": {
        "en": "No e-mail addresses, phone, ID-card or bank-card numbers in answers",
        "zh-Hans": "回答中不出现邮箱、电话、身份证号和银行卡号",
    },
    "polite-support": {
        "en": "Customer service: greet, apologise, never blame the customer, name the next step",
        "zh-Hans": "客服礼貌：问候、致歉、不责怪客户、说明下一步",
    },
    "refuse-and-redirect": {
        "en": "Decline what is harmful, without a sermon, offer something safe; answer what only looks harmful",
        "zh-Hans": "拒绝有害请求，不说教，给出安全的替代；貌似有害的正常问题照常回答",
    },
    "truthful-uncertainty": {
        "en": "Say so when nobody can know; be plain about what is known; claim no look-ups",
        "zh-Hans": "无从得知就说不知道，已知的不含糊，不谎称查过资料",
    },
}


def names() -> list[str]:
    """The names of the shipped specs, in alphabetical order."""
    return sorted(path.name.removesuffix(_ENDING) for path in _FOLDER.glob(f"*{_ENDING}"))


def path(name: str) -> Path:
    """The file of a shipped spec. Raises NormaError with the nearest name."""
    if name not in names():
        raise NormaError(f"no spec called '{name}' is shipped", mend=nearest(name, names()))
    return _FOLDER / f"{name}{_ENDING}"


def find(spec: str | Path) -> Path:
    """The file meant by ``spec``: the file itself, else the shipped spec of that name.

    Raises NormaError, listing the shipped names, for a bare name that is neither; a path that leads nowhere is for the reader to report.
    """
    given = Path(spec)
    name = str(spec)
    if given.is_file() or given.name != name or given.suffix in (".yaml", ".yml"):
        return given
    if name in names():
        return path(name)
    if given.exists():
        return given
    raise NormaError(f"there is no spec file '{name}', and no shipped spec of that name", mend=f"Shipped: {', '.join(names())}")
