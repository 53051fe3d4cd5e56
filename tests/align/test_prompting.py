"""Instructive prompting: the rules that are shown are the rules that the answer keeps."""

from __future__ import annotations

from dataclasses import replace

from norma.align.prompting import ruled_conversations
from norma.align.rows import choose, conversation_rows, to_item
from norma.check.repair import marks
from norma.spec import Spec, Status
from norma.text.tokenizer import train_tokenizer


def row(name: str, language: str = "en") -> dict[str, object]:
    ask = f"What does `{name}` do?\nEntry: " if language == "en" else f"`{name}` 是做什么的？\n条目："
    messages = [
        {"role": "user", "content": f"{ask}`{name}(x)`\nText."},
        {"role": "assistant", "content": "Write an object as text, all members of it."},
    ]
    return {"id": f"{name}#{language}", "source": name, "language": language, "messages": messages, "facts": {"about": True}}


def test_shown_rules_are_kept(spec: Spec) -> None:
    items = [to_item(row(f"pkg.name{i}", "zh" if i % 3 == 0 else "en")) for i in range(60)]
    by_user = {i.user: i for i in items}
    plain = some = whole = 0
    for conversation in ruled_conversations(spec, items, share=0.7, every=0.4, habit=0.0, seed=1):
        item = next(i for u, i in by_user.items() if u in conversation[-2]["content"])
        answer = conversation[-1]["content"]
        head = "\n".join(m["content"] for m in conversation[:-1]).replace(item.user, "")
        shown = [r for r in spec.resolve(item).active if spec.rule(r).text(item.language) in head]
        found = marks(spec, item, answer)
        assert all(found[r] is Status.COMPLIANT for r in shown)
        if shown:
            whole, some = whole + (len(shown) == len(spec.resolve(item).active)), some + 1
        else:
            assert answer == item.reference
            plain += 1
    assert plain + some == 60 and plain > 8 and whole > 8 and some - whole > 8


def test_a_habit_keeps_all_rules_without_being_told(spec: Spec) -> None:
    items = [to_item(row(f"pkg.name{i}")) for i in range(80)]
    kept = 0
    for item, conversation in zip(items, ruled_conversations(spec, items, share=0.0, every=1.0, habit=0.25, seed=1), strict=True):
        assert conversation[:-1] == [*map(dict, item.messages)]
        found = marks(spec, item, conversation[-1]["content"])
        if all(found[r] is Status.COMPLIANT for r in spec.resolve(item).active):
            kept += 1
        else:
            assert conversation[-1]["content"] == item.reference
    assert 8 <= kept <= 34


def test_the_seed_alone_decides_and_items_without_reference_are_left_out(spec: Spec) -> None:
    items = [to_item(row(f"pkg.name{i}")) for i in range(12)]
    first, again, other = (list(ruled_conversations(spec, items, share=0.5, every=0.5, habit=0.5, seed=s)) for s in (1, 1, 2))
    assert first == again != other
    assert list(ruled_conversations(spec, [replace(items[0], reference=None)], share=0.5, every=0.5, habit=0.5, seed=1)) == []
    assert choose(items, 5, 1) == choose(items, 5, 1) and len(set(map(id, choose(items, 50, 1)))) == 12


def test_conversations_that_are_too_long_are_left_out_whole() -> None:
    tokenizer = train_tokenizer(["some text"], 270)
    chats = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": a}] for a in ("short", "long " * 40)]
    assert len(conversation_rows(tokenizer, chats, 32)) == 1 and len(conversation_rows(tokenizer, chats, 400)) == 2


def test_combinations_that_are_kept_apart_never_meet(spec: Spec) -> None:
    """Every other pair still does, and each of the two stands in prompts of its own."""
    items = [to_item(row(f"pkg.name{i}")) for i in range(60)]
    texts = {r.id: r.text("en") for r in spec.rules}
    first, second = list(texts)[:2]
    seen: list[set[str]] = []
    for conversation in ruled_conversations(spec, items, share=1.0, every=0.6, habit=0.0, seed=3, apart=[[first, second]]):
        head = conversation[0]["content"] if conversation[0]["role"] == "system" else ""
        seen.append({rule for rule, text in texts.items() if " ".join(text.split()) in head})
    assert not any({first, second} <= shown for shown in seen)
    assert any(first in shown for shown in seen) and any(second in shown for shown in seen)
    free = list(ruled_conversations(spec, items, share=1.0, every=0.6, habit=0.0, seed=3))
    assert any(all(" ".join(texts[r].split()) in c[0]["content"] for r in (first, second)) for c in free)
