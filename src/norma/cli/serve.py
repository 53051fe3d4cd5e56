"""``norma serve``: an OpenAI-compatible server for one model, or a spec in front of another server."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from norma.serve import Backend
    from norma.serve.ruling import Ruling
    from norma.spec import Spec


def serve(
    model: Annotated[Path | None, typer.Argument(help="A model folder.")] = None,
    spec: Annotated[
        Path | None, typer.Option(help="A spec file: its rules go into the prompt, and each answer carries a verdict per rule.")
    ] = None,
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's own need --keys.")] = "127.0.0.1",
    name: Annotated[str | None, typer.Option(help="What clients call the model [default: the folder's name].")] = None,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait before further ones are refused.")] = 64,
    rows: Annotated[int, typer.Option(min=1, help="Answers that are written side by side.")] = 16,
    slice: Annotated[int, typer.Option(min=8, help="Prompt tokens that are read between two steps of those who write.")] = 256,
    prefix_cache: Annotated[int, typer.Option(min=0, metavar="MB", help="Memory for beginnings that prompts share; 0: none.")] = 256,
    weights: Annotated[Literal["float", "int8", "int4"], typer.Option(help="How the weights are held while serving.")] = "float",
    dtype: Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="Number format to compute in.")] = "auto",
    upstream: Annotated[str | None, typer.Option(metavar="URL", help="Put the spec in front of this OpenAI-compatible server.")] = None,
    upstream_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the upstream server's key.")
    ] = None,
    rules: Annotated[Literal["applicable", "all", "none"], typer.Option(help="Which rules stand in the prompt.")] = "applicable",
    policy: Annotated[str, typer.Option(help="What a broken rule leads to: observe, best-of:N or enforce.")] = "observe",
    rule: Annotated[list[str] | None, typer.Option(metavar="RULE=POLICY", help="The policy of one rule; may be repeated.")] = None,
    keys: Annotated[Path | None, typer.Option(metavar="FILE", help="API keys ('norma keys add'); without it anybody here may ask.")] = None,
    allow_anonymous: Annotated[bool, typer.Option(help="Listen beyond this machine without keys.")] = False,
    allow_host: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A name under which a proxy on this machine asks.")] = None,
    allow_origin: Annotated[list[str] | None, typer.Option(metavar="ORIGIN", help="A web page that may ask (CORS).")] = None,
    body_limit: Annotated[int, typer.Option(min=1024, help="Largest request in bytes.")] = 4 * 2**20,
    audit: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep each answer and its verdicts here (SQLite).")] = None,
    audit_text: Annotated[Literal["full", "redacted", "none"], typer.Option(help="What the audit keeps of conversations.")] = "redacted",
    labels: Annotated[str | None, typer.Option(metavar="STORE", help="Label store (path or URL) for answers that went wrong.")] = None,
    consent: Annotated[
        Literal["asked", "assumed"], typer.Option(help="Whether annotators may see what comes without X-Norma-Consent: no, or yes.")
    ] = "asked",
    low_reward: Annotated[float | None, typer.Option(help="Answers with R(x, y) below this are looked at too.")] = None,
    redact: Annotated[bool, typer.Option(help="Replace personal data in what annotators see.")] = True,
    log: Annotated[str | None, typer.Option(metavar="FILE", help="One line of JSON a request; '-': standard error.")] = None,
    drain: Annotated[int, typer.Option(min=0, help="Seconds that running requests get when the server is stopped.")] = 30,
) -> None:
    """Serve a model at http://127.0.0.1:PORT/v1, for any OpenAI client on this machine."""
    from norma.serve.run import is_loopback, run_server
    from norma.spec import Spec

    if (model is None) == (upstream is None):
        raise NormaError("say what to serve", mend="Give a model folder, or --upstream URL")
    if not is_loopback(host) and keys is None and not allow_anonymous:
        raise NormaError(
            f"listening on {host} lets others on the network ask", mend="Make keys ('norma keys add NAME --file keys.json') and give --keys"
        )
    loaded = None if spec is None else Spec.load(spec)
    ruling = _ruling(loaded, policy, rule or [], rules)
    options = _options(keys, audit, audit_text, labels, low_reward, redact, audit is not None)
    if log is not None:
        from norma.serve.record import log_to

        log_to(log)
    backend = (
        _upstream(upstream, name, upstream_key_env, waiting)
        if upstream
        else _local(model, name, weights, dtype, rows=rows, waiting=waiting, slice=slice, prefixes=prefix_cache * 2**20)
    )
    hosts = (
        None if keys is not None and not is_loopback(host) else [*(allow_host or []), *([host] if host not in ("0.0.0.0", "::") else [])]
    )
    if not is_loopback(host) and keys is None:
        hosts = None

    def ready(url: str) -> None:
        print(f"Serving {backend.name} at {url} (Ctrl-C stops)", flush=True)
        body = json.dumps({"model": backend.name, "messages": [{"role": "user", "content": "Hello"}]}, ensure_ascii=False)
        auth = ' -H "authorization: Bearer $NORMA_KEY"' if keys is not None else ""
        print(f"Try: curl {url}/chat/completions -H 'content-type: application/json'{auth} -d {shlex.quote(body)}", flush=True)

    try:
        run_server(
            backend,
            ruling=ruling,
            port=port,
            host=host,
            drain=drain,
            ready=ready,
            logged=log is not None,
            body_limit=body_limit,
            consent=consent == "assumed",
            hosts=hosts,
            origins=allow_origin or [],
            **options,
        )
    except KeyboardInterrupt:
        print("stopped")  # Ctrl-C is how a server ends: no error


def _ruling(spec: Spec | None, default: str, rules: list[str], shown: Any) -> Ruling | None:
    from norma.serve.ruling import Policy, Ruling

    if spec is None:
        if rules or default != "observe":
            raise NormaError("policies are of a spec's rules, and there is none", mend="Give --spec FILE")
        return None
    policies = {}
    for text in rules:
        name, sign, value = text.partition("=")
        if not sign:
            raise NormaError(f"'{text}' is not RULE=POLICY", mend="For example --rule style.polite=enforce")
        policies[name] = Policy.parse(value)
    return Ruling(spec, Policy.parse(default), policies, shown)


def _options(
    keys: Path | None, audit: Path | None, text: Any, labels: str | None, low: float | None, redact: bool, audited: bool
) -> dict[str, Any]:
    """The parts of the server that keep something."""
    from norma.labels import LabelStore
    from norma.serve.admission import Admission
    from norma.serve.audit import Audit
    from norma.serve.keys import KeyFile
    from norma.serve.loop import Loop

    if labels is not None and not audited:
        raise NormaError("answers for annotators are taken from the audit", mend="Give --audit FILE too")
    if labels is not None and text == "none":
        raise NormaError("an audit without text has nothing that annotators could read", mend="Use --audit-text redacted or full")
    file = None if keys is None else KeyFile(keys)
    if file is not None and not any(key.revoked is None for key in file.all()):
        raise NormaError("there is no key in use", where=keys, mend=f"norma keys add NAME --file {keys}")
    return {
        "admission": Admission(file),
        "audit": None if audit is None else Audit(audit, text),
        "loop": None if labels is None else Loop(LabelStore(labels), low=low, redact=redact),
    }


def _local(model: Path | None, name: str | None, weights: str, dtype: str, **limits: int) -> Backend:
    import torch

    import norma
    from norma.base.platform import working_dtype
    from norma.nn import kernels
    from norma.serve.local import Local

    assert model is not None
    opened = norma.load(model)
    compute = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    if weights != "float":
        from norma.lm.quantise import quantise

        quantise(opened, weights)  # type: ignore[arg-type]
        compute = torch.bfloat16  # what the kernels of narrow weights are made for
    kernels.ready(compute or working_dtype())  # now, or the first request waits for the compiler
    return Local(opened, name, dtype=compute, **limits)


def _upstream(url: str, name: str | None, key_env: str | None, waiting: int) -> Backend:
    from norma.base.endpoints import base_url, key_from
    from norma.serve.upstream import Upstream

    key = key_from(key_env) if key_env or "OPENAI_API_KEY" in os.environ else None
    return Upstream(base_url(url), name, key=key, waiting=waiting)
