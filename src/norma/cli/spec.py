"""``norma spec ...``: work on a spec file without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from rich.console import Console

    from norma.spec import Item, Spec

_JUNIT = "the gate of a report (report.json, or a run folder) as test cases"


def _language(of: str, default: str = "the spec's source language") -> Any:
    return typer.Option("--language", "--lang", metavar="TAG", help=f"Language {of} [default: {default}].")


_File = Annotated[Path, typer.Argument(metavar="SPEC", help="A spec file, or the name of a shipped one (norma spec list).")]


def list_() -> None:
    """List the specs that come with Norma; their names stand for a file wherever a SPEC is asked for."""
    from norma.spec import shipped

    for name in shipped.names():
        summary = shipped.SUMMARIES[name]
        print(f"{name:22}{summary['en']}\n{'':22}{summary['zh-Hans']}")


def lint(
    spec: _File,
    static: Annotated[bool, typer.Option("--static", help="Do not send the examples through any checker.")] = False,
    run_checkers: Annotated[
        bool, typer.Option("--run-checkers", help="All checkers, models and judges too, and each checker's self-test; else only programs.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what is wrong with a spec; exit 1 when an error is among it."""
    from norma.spec import Spec
    from norma.spec import lint as find

    if static and run_checkers:
        raise NormaError("--static and --run-checkers contradict each other", mend="Give one of them")
    loaded = Spec.load(spec)
    if run_checkers:
        from norma.check.metamorphic import selftest

        found = find(loaded, run_checkers=True, selftest=selftest)
    else:
        found = find(loaded, run_checkers=not static, kinds=("program",))
    errors = sum(f.severity == "error" for f in found)
    if json_:
        print(json.dumps([f.row() for f in found], ensure_ascii=False, indent=2))
    else:
        for finding in found:
            print(finding)
        print(f"{spec}: {len(loaded.rules)} rules, {_count(errors, 'error')}, {_count(len(found) - errors, 'warning')}")
    if errors:
        raise typer.Exit(1)


def show(
    spec: _File,
    language: Annotated[str | None, _language("of the wording")] = None,
    rule: Annotated[str | None, typer.Option(metavar="ID", help="Only this rule.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown as text, also on a terminal.")] = False,
) -> None:
    """Print a spec as people read it."""
    from rich.console import Console
    from rich.markdown import Markdown

    from norma.spec import Spec, spec_markdown

    loaded = Spec.load(spec, checkers=False)
    text = spec_markdown(loaded, language or loaded.source_language, only=rule)
    console = Console()
    if console.is_terminal and not markdown:
        console.print(Markdown(text))
    else:
        print(text)


def prompt(
    spec: _File,
    question: Annotated[str | None, typer.Argument(help="What the user asks; without it, the rules alone.")] = None,
    language: Annotated[str | None, _language("of the rules")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All rules, not only those that apply to the question.")] = False,
    prefix: Annotated[bool, typer.Option("--prefix", help="Before the question instead of in a system message.")] = False,
) -> None:
    """Print the prompt that tells a model to keep the rules."""
    from norma.spec import Message, Spec

    loaded = Spec.load(spec, checkers=False)
    chosen = language or loaded.source_language
    if question is None:
        print(loaded.instruction([r.id for r in loaded.rules], chosen))
        return
    messages = [Message(role="user", content=question)]
    rendered = loaded.render(messages, language=chosen, rules="all" if all_ else "applicable", position="prefix" if prefix else "system")
    for message in rendered:
        print(f"[{message['role']}]\n{message['content']}\n")


def explain(
    spec: _File,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="What the user asks.")] = None,
    item: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON or JSON lines: {messages, language, facts}.")] = None,
    language: Annotated[str | None, _language("of the question", default="a guess")] = None,
    facts: Annotated[str, typer.Option(metavar="JSON", help="Trusted facts of the prompt, a JSON object.")] = "{}",
    rule: Annotated[str | None, typer.Option(metavar="ID", help="Only this rule.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the traces as JSON.")] = False,
) -> None:
    """Say for each rule whether it is active for an input, and which step of the order decided."""
    from norma.spec import Spec
    from norma.spec.explain import explain as trace

    loaded = Spec.load(spec, checkers=False)
    if (prompt is None) == (item is None):
        raise NormaError("an input is needed", mend="Give --prompt TEXT or --item FILE")
    one = None if rule is None else loaded.rule(rule).id
    given = [("--prompt", {"messages": [{"role": "user", "content": prompt}], "facts": _object(facts)})] if item is None else _items(item)
    rows = []
    for where, row in given:
        asked = _asked(loaded, row, language, where)
        traces = [t for t in trace(loaded, asked) if one in (None, t.rule)]
        rows.append({"item": asked.id, "language": asked.language, "rules": [t.row() for t in traces]})
        if not json_:
            head = f"{asked.id} ({asked.language})" if item is not None else f"language: {asked.language}"
            print("\n\n".join([head, *map(str, traces)]) + "\n")
    if json_:
        print(json.dumps(rows if item is not None else rows[0], ensure_ascii=False, indent=2))


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The spec before.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The spec after.")],
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="Count in this run folder what is stale.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say what changed between two versions of a spec, and what that makes stale."""
    from rich.console import Console

    from norma.spec import Spec
    from norma.spec.diff import diff as compare

    a, b = Spec.load(old, checkers=False), Spec.load(new, checkers=False)
    found = compare(a, b)
    counted = None
    if run is not None:
        from norma.pipeline.spec_cost import Stores, costs

        a = Spec.load(old)  # marks are made again with its checkers
        counted = costs(found, a, b, run)
        if not Stores(run, a).same_spec:
            print(f"Note: {run} was made with another version than {old}; rows that carry another meaning hash are not counted.")
    if json_:
        print(json.dumps(found.row() | ({} if counted is None else {"run": [c.row() for c in counted]}), ensure_ascii=False, indent=2))
        return
    if not found:
        print("The two say the same: no facet of any rule changed.")
        return
    console = Console()
    rows = [
        [*((change.kind, _renamed(change.old, change.new)) if i == 0 else ("", "")), c.facet, ", ".join(c.stale), c.note]
        for change in found.rules
        for i, c in enumerate(change.changes)
    ]
    rows += [["spec", "", c.facet, ", ".join(c.stale), c.note] for c in found.whole]
    _table(console, "What changed", ["", "rule", "facet", "stale", "note"], rows)
    if counted is not None:
        lines = [[c.rule, c.facet, c.what, c.store, f"{c.stale} of {c.of}", c.why] for c in counted]
        _table(console, f"What is stale in {run}", ["rule", "facet", "what", "where", "stale", "why"], lines)
    for change in found.rules:  # the hash that an editorial entry or a translation needs
        for c in change.changes:
            if c.facet == "meaning" and "labels" in c.stale:
                print(f'{change.rule}: if the meaning is the same, sign it: editorial: [{{was: "{a.rule(change.old).hash[:12]}", ...}}]')


def import_(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="`norma spec import list x` names them.")],
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What is imported; .gz is read as it is.")],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="The spec file to write.")] = None,
    language: Annotated[str | None, _language("of the source", default="a guess")] = None,
    name: Annotated[str | None, typer.Option("--id", metavar="NAME", help="Id of the spec [default: the file's name].")] = None,
) -> None:
    """Make a spec file from another format; says in one line each what the source lacks."""
    from norma.base.files import write_text
    from norma.spec import importers

    if format == "list":
        print("\n".join(f"{key:<20} {importers.describe(key)}" for key in importers.FORMATS))
        return
    if out is None:
        raise NormaError("where should the spec be written?", mend="Give OUT, for example imported.spec.yaml")
    if out.exists():
        raise NormaError("this file is there already", where=out, mend="Give another name, or remove it")
    made = importers.run(format, source, language=language, name=name)
    write_text(out, made.text)
    print(f"{out}: {made.rules} rules, {made.examples} examples, {made.prompts} prompts")
    for note in made.notes:
        print(f"- {note}")


def export(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="`norma spec export list x` names them.")],
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A spec; for results, a run folder or what its evaluate stage wrote.")],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="File or folder to write.")] = None,
    language: Annotated[str | None, _language("of the wording")] = None,
) -> None:
    """Write a spec, or the results of a run, for another tool."""
    from norma.spec import exporters

    if format == "list":
        print("\n".join(f"{key:<12} {exporters.describe(key)}" for key in exporters.FORMATS) + f"\n{'junit':<12} {_JUNIT}")
        return
    if out is None:
        raise NormaError("where should it be written?", mend="Give OUT")
    if format == "junit":
        from norma.base.files import read_json, write_text
        from norma.evaluate.junit import junit_xml

        write_text(out, junit_xml(read_json(source / "report.json" if source.is_dir() else source)))
        written = [out]
    else:
        written = exporters.run(format, source, out, language=language)
    for path in written:
        print(path)


def schema(fragment: Annotated[bool, typer.Option("--fragment", help="Of a file that a spec includes.")] = False) -> None:
    """Print the JSON Schema of spec files, for editors."""
    from norma.spec import json_schema

    print(json.dumps(json_schema(fragment), ensure_ascii=False, indent=2))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _renamed(old: str, new: str) -> str:
    return new or old if old in ("", new) or not new else f"{old} → {new}"


def _table(console: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column == "stale" and "where" in columns else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _object(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise NormaError(f"--facts is not JSON ({error})", mend="Write for example --facts '{\"about\": true}'") from None
    if not isinstance(found, dict):
        raise NormaError("--facts is not a JSON object", mend="Write for example --facts '{\"about\": true}'")
    return found


def _items(path: Path) -> list[tuple[str, Any]]:
    """The rows of a JSON or JSON-lines file, with their places."""
    from norma.base.files import read_json, read_jsonl

    if path.suffix == ".jsonl":
        return [(f"{path}, row {number}", row) for number, row in enumerate(read_jsonl(path), 1)]
    found = read_json(path)
    rows = found if isinstance(found, list) else [found]
    return [(f"{path}, row {number}" if len(rows) > 1 else str(path), row) for number, row in enumerate(rows, 1)]


def _asked(spec: Spec, row: Any, language: str | None, where: str) -> Item:
    """A row as an input; the reference answer at its end, if there is one, is not part of the input."""
    from norma.spec import Item, Message
    from norma.spec.languages import guess

    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise NormaError("an item is a JSON object with 'messages'", where=where, mend="Write a list of {role, content}")
    try:
        messages = [Message(role=m["role"], content=m["content"]) for m in row["messages"]]
    except (TypeError, KeyError):
        raise NormaError("a message is a JSON object with 'role' and 'content'", where=where) from None
    if messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    probe = Item(str(row.get("id") or where), tuple(messages), facts=row.get("facts") or {})
    tag = language or row.get("language") or guess(probe.user, spec.languages, spec.source_language)
    return Item(probe.id, probe.messages, tag, probe.facts)
