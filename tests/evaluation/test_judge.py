"""Judgments survive every failure of an endpoint, and none is requested or counted twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import anyio
import pytest

from red_lightning.errors import UsageError
from red_lightning.evaluation import judging
from red_lightning.evaluation.endpoint import Endpoint
from red_lightning.evaluation.judge import REPLY, Judge, Usage
from red_lightning.jsonl import Record, Records
from tests.cli.commands import environment
from tests.evaluation.judge_stub import USAGE, Failure, Stub, judge_stub, reply

SECRET = "sk-very-secret"
GOOD = "Rating: [[7]]"
FAILURES: dict[str, Any] = {
    "too many requests": Failure(429, '{"error": {"message": "slow down", "code": "rate_limit"}}', Retry_After="0"),
    "server error": Failure(500),
    "overloaded": Failure(503, "<html>busy</html>"),
    "closed": Failure(0),
    "no judgment": "I would rather not say.",
    "an empty answer": reply(""),
    "no answer at all": reply(None),
    "no JSON": Failure(200, "oops"),
    "cut JSON": Failure(200, reply(GOOD)[:40]),
    "no choices": Failure(200, '{"choices": [], "usage": null}'),
    "other JSON": Failure(200, '[{"choices": 1}]'),
}
WITH_USAGE = {"no judgment", "an empty answer", "no answer at all"}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Set a judge's key, and record the pauses before retries instead of sleeping."""
    found: list[float] = []

    async def note(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(anyio, "sleep", note)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-host")
    return found


@pytest.fixture
def stub() -> Iterator[Stub]:
    with judge_stub(lambda body, before: GOOD) as stub:
        yield stub


def endpoint(stub: Stub, **options: Any) -> Endpoint:
    defaults: dict[str, Any] = {"timeout": 60.0, "key_variable": "JUDGE_KEY"}
    return Endpoint("judge", stub.url, **{**defaults, **options})


def requests(count: int) -> list[dict[str, Any]]:
    return [
        {"model": "judge", "messages": [{"role": "user", "content": str(n)}], "max_tokens": 5} for n in range(count)
    ]


def readable(row: Record) -> bool:
    return "[[" in row["text"]


def number(body: dict[str, Any]) -> int:
    return int(body["messages"][-1]["content"])


def ask(log: Path, settings: Endpoint, count: int) -> tuple[Judge, list[Record | None]]:
    with Records(log, REPLY) as records:
        judge = Judge(settings, records)
        return judge, judge.ask(requests(count), readable)


@pytest.mark.parametrize("kind", FAILURES)
def test_each_kind_of_failure_is_retried(kind: str, stub: Stub, tmp_path: Path) -> None:
    stub.behaviour = lambda body, before: FAILURES[kind] if before < 2 and number(body) % 3 == 0 else GOOD
    judge, replies = ask(tmp_path / "log", endpoint(stub), 10)
    assert [row and row["text"] for row in replies] == [GOOD] * 10
    assert sorted(stub.asked.values()) == [1] * 6 + [3] * 4
    assert judge.failed == {}
    assert judge.usage(requests(10)).prompt_tokens == (18 if kind in WITH_USAGE else 10) * USAGE["prompt_tokens"]
    ask(tmp_path / "log", endpoint(stub), 10)
    assert len(stub.requests) == 18  # nothing in the second run


def test_pauses_grow_and_follow_the_endpoint(stub: Stub, tmp_path: Path, pauses: list[float]) -> None:
    soon = formatdate(time.time() + 30, usegmt=True)
    script: list[Any] = [Failure(500), Failure(429), Failure(429, Retry_After="7.5"), Failure(503, Retry_After=soon)]
    stub.behaviour = lambda body, before: [*script, Failure(0), GOOD][before]
    ask(tmp_path / "log", endpoint(stub, attempts=6), 1)
    first, second, asked, dated, last = pauses
    assert 0.3 < first <= 0.5 < second <= 1.0
    assert asked == 7.5
    assert 25 < dated <= 30
    assert 4 < last <= 8


def test_attempts_count_retries_and_answers_without_a_verdict(stub: Stub, tmp_path: Path) -> None:
    script = [Failure(500), Failure(429), "no grade", Failure(503), "none again", GOOD]
    stub.behaviour = lambda body, before: script[before] if number(body) == 0 else GOOD
    for attempts in (5, 1):  # the second run has one more attempt
        _, replies = ask(tmp_path / "log", endpoint(stub, attempts=attempts), 2)
        assert (replies[0] is None) == (attempts == 5)
    assert sorted(stub.asked.values()) == [1, 6]


def test_a_rate_limit_that_lasts_fails_one_judgment(stub: Stub, tmp_path: Path) -> None:
    stub.behaviour = lambda body, before: FAILURES["too many requests"] if number(body) == 1 else GOOD
    judge, replies = ask(tmp_path / "log", endpoint(stub, attempts=3, concurrency=1), 3)
    assert [row is None for row in replies] == [False, True, False]
    (why,) = judge.failed.values()
    assert why == "HTTP 429 rate_limit slow down; lower --judge.concurrency or raise --judge.attempts"
    assert len(stub.requests) == 2 + 3


def test_replies_of_other_servers_are_named(stub: Stub, tmp_path: Path) -> None:
    stub.behaviour = lambda body, before: Failure(200, "<html>hello</html>")
    with pytest.raises(UsageError, match="gives no judgments: not an OpenAI chat completion; check the options"):
        ask(tmp_path / "log", endpoint(stub, attempts=1, concurrency=1), 9)
    assert len(stub.requests) == 5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": {"message": "too long", "code": "length"}}', "length too long"),
        ('{"error": "model \'x\' is not loaded"}', "model 'x' is not loaded"),  # Ollama
        ('{"object": "error", "message": "too long", "code": 400}', "400 too long"),  # vLLM before 0.10
        ('{"detail": "no"}', "no"),  # FastAPI
        ("<html>", "Bad Request"),
        ('{"error": {"message": ["a"]}}', "['a']"),
        ("[1]", "Bad Request"),
        ("", "Bad Request"),
    ],
)
def test_messages_of_endpoints(body: str, said: str, stub: Stub, tmp_path: Path) -> None:
    stub.behaviour = lambda request, before: Failure(400, body)
    judge, _ = ask(tmp_path / "log", endpoint(stub), 1)
    assert [*judge.failed.values()] == [f"HTTP 400 {said}"]


def test_a_lone_surrogate_fails_one_judgment(stub: Stub, tmp_path: Path) -> None:
    wanted = requests(2)
    wanted[0]["messages"][0]["content"] = "\ud83d"
    with Records(tmp_path / "log", REPLY) as log:
        judge = Judge(endpoint(stub), log)
        assert [row is None for row in judge.ask(wanted, readable)] == [True, False]
    assert [*judge.failed.values()] == ["the request holds a character that UTF-8 cannot encode"]


def test_a_rerun_requests_only_what_failed(stub: Stub, tmp_path: Path) -> None:
    bad = {2: "no grade here", 5: Failure(400, '{"error": {"message": "too long"}}')}
    stub.behaviour = lambda body, before: bad.get(number(body), GOOD)
    judge, replies = ask(tmp_path / "log", endpoint(stub, attempts=3, concurrency=1), 8)
    assert [n for n, row in enumerate(replies) if row is None] == [2, 5]
    assert sorted(judge.failed.values()) == ["HTTP 400 too long", "no verdict in the answer 'no grade here'"]
    assert len(stub.requests) == 6 + 3 + 1  # HTTP 400 is not retried
    bad.clear()
    judge, replies = ask(tmp_path / "log", endpoint(stub), 8)
    assert None not in replies
    assert len(stub.requests) == 10 + 2
    assert judge.failed == {}
    assert judge.usage(requests(8)).calls == 6 + 3 + 2


def test_a_judge_that_never_judges_is_stopped(stub: Stub, tmp_path: Path) -> None:
    stub.behaviour = lambda body, before: "Hello!"
    with pytest.raises(UsageError, match=r"gives no judgments: no verdict in the answer 'Hello!'"):
        ask(tmp_path / "log", endpoint(stub, attempts=2, concurrency=1), 50)
    assert len(stub.requests) == 10


@pytest.mark.parametrize("drops", ["", "HTTP/1.1 200 OK\r\nX-Drop: ", f"HTTP/1.1 200 OK\r\n\r\n{reply(GOOD)}"])
def test_an_endpoint_that_never_ends_its_answer(drops: str, stub: Stub, tmp_path: Path) -> None:
    stub.behaviour = lambda body, before: Failure(None, drops)
    with pytest.raises(UsageError, match=r"gives no judgments: no answer within 0.2 s; check the options --judge"):
        ask(tmp_path / "log", endpoint(stub, timeout=0.2, attempts=2), 50)
    assert len(stub.requests) <= 12
    stub.closing.set()


def test_judging_stops_when_the_endpoint_goes_silent(stub: Stub, tmp_path: Path) -> None:
    stub.behaviour = lambda body, before: GOOD if number(body) < 3 else Failure(0)
    with pytest.raises(UsageError, match=r"no connection: .*; check .* finished judgments are saved"):
        ask(tmp_path / "log", endpoint(stub, attempts=2, concurrency=1), 50)
    assert len(stub.requests) == 3 + 5 * 2
    stub.behaviour = lambda body, before: GOOD
    _, replies = ask(tmp_path / "log", endpoint(stub), 50)
    assert None not in replies
    assert len(stub.requests) == 13 + 47


def test_failures_between_replies_do_not_stop_judging(stub: Stub, tmp_path: Path) -> None:
    stub.behaviour = lambda body, before: Failure(500) if number(body) % 2 else GOOD
    _, replies = ask(tmp_path / "log", endpoint(stub, attempts=1, concurrency=1), 14)
    assert [row is None for row in replies] == [False, True] * 7


def test_rejected_requests_do_not_stop_the_others(stub: Stub, tmp_path: Path) -> None:
    refused = {0, 1}
    stub.behaviour = lambda body, before: Failure(400) if number(body) in refused else GOOD
    for asked_again in (8, 2, 2):  # from the second run on, only the rejected requests are pending
        before = len(stub.requests)
        judge, replies = ask(tmp_path / "log", endpoint(stub, concurrency=1), 8)
        assert [n for n, row in enumerate(replies) if row is None] == [0, 1]
        assert [*judge.failed.values()] == ["HTTP 400 Bad Request"] * 2
        assert len(stub.requests) - before == asked_again
    refused |= set(range(100, 200))
    with Records(tmp_path / "other", REPLY) as log, pytest.raises(UsageError, match="gives no judgments: HTTP 400"):
        Judge(endpoint(stub, concurrency=1), log).ask(requests(200)[100:], readable)
    assert len(stub.requests) == 12 + 5


def test_judgments_of_an_earlier_run_count_as_replies(stub: Stub, tmp_path: Path) -> None:
    stub.behaviour = lambda body, before: Failure(500) if number(body) >= 3 else GOOD
    settings = endpoint(stub, attempts=1, concurrency=1)
    for _ in range(2):
        _, replies = ask(tmp_path / "log", settings, 5)
        assert [row is None for row in replies] == [False] * 3 + [True] * 2
    stub.behaviour = lambda body, before: Failure(500)
    with pytest.raises(UsageError, match="gives no judgments: HTTP 500"):
        ask(tmp_path / "new", settings, 5)


def test_an_unreachable_endpoint(tmp_path: Path) -> None:
    with judge_stub(lambda body, before: GOOD) as gone:
        pass
    with pytest.raises(UsageError, match=r"gives no judgments: no connection: ."):
        ask(tmp_path / "log", endpoint(gone), 3)


@pytest.mark.parametrize("status", [401, 403, 404, 429])
def test_a_refusal_ends_it_at_once_without_the_key(status: int, stub: Stub, tmp_path: Path) -> None:
    code = {"code": "insufficient_quota"} if status == 429 else {}
    echo = json.dumps({"error": {"message": f"bad key {SECRET} {'long ' * 30} {SECRET}", **code}})
    stub.behaviour = lambda body, before: Failure(status, echo)
    with pytest.raises(UsageError, match=rf"rejects requests: HTTP {status} .*bad key \.\.\. long.*; check") as error:
        ask(tmp_path / "log", endpoint(stub, attempts=3, concurrency=1), 50)
    assert len(stub.requests) == 1
    assert stub.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert SECRET[:8] not in str(error.value) + (tmp_path / "log").read_text()


def test_redirects_do_not_get_the_key(stub: Stub, tmp_path: Path) -> None:
    with judge_stub(lambda body, before: GOOD) as other:
        stub.behaviour = lambda body, before: Failure(302, Location=f"{other.url}/chat/completions")
        with pytest.raises(UsageError):
            ask(tmp_path / "log", endpoint(stub, attempts=1), 1)
        assert other.headers
        assert all("Authorization" not in headers for headers in other.headers)


def test_keys(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", f"{SECRET}\n")  # a trailing newline, as some secret stores add it
    ask(tmp_path / "log", endpoint(stub), 1)
    assert stub.headers[0]["Authorization"] == f"Bearer {SECRET}"
    ask(tmp_path / "other", endpoint(stub, key_variable=None), 1)
    monkeypatch.delenv("OPENAI_API_KEY")
    ask(tmp_path / "third", endpoint(stub, key_variable=None), 1)
    assert "Authorization" not in stub.headers[1] and "sk-of-another" not in str(stub.headers[1])
    monkeypatch.setenv("JUDGE_KEY", f"{SECRET}\nX-Evil: 1")
    with pytest.raises(UsageError, match="JUDGE_KEY holds characters that are invalid in a key"):
        ask(tmp_path / "a", endpoint(stub), 1)
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(UsageError, match="JUDGE_KEY with the judge's key is not set"):
        ask(tmp_path / "b", endpoint(stub), 1)
    ask(tmp_path / "log", endpoint(stub), 1)  # needs no key, as no judgment is missing


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"base_url": "localhost:8000"}, "must look like http"),
        ({"base_url": "file:///etc/passwd"}, "must look like http"),
        ({"base_url": "http://me:pass@host/v1"}, "no password or query"),
        ({"base_url": "http://:pass@host/v1"}, "no password or query"),
        ({"base_url": "http://:pass/@host/v1"}, "no password or query"),
        ({"base_url": "http://host/v1?key=a"}, "no password or query"),
        ({"base_url": "http://127.0.0.1:1/ö"}, "must look like http"),
        ({"base_url": "http://h:abc/v1"}, "must look like http"),
        ({"base_url": "http://h:99999/v1"}, "must look like http"),
        ({"base_url": "http://[::1/v1"}, "must look like http"),
        ({"base_url": "http://a host/v1"}, "must look like http"),
        ({"base_url": "http:///v1"}, "must look like http"),
        ({"prompt_price": -3}, "judge.prompt_price is -3"),
        ({"completion_price": -0.5}, "judge.completion_price is -0.5"),
        ({"fields": {"max_tokens": "x"}}, "max_tokens of judge.fields is 'x', but must be an integer"),
        ({"fields": {"max_completion_tokens": True}}, "max_completion_tokens of judge.fields is True"),
        ({"fields": {"max_tokens": 0}}, "max_tokens of judge.fields is 0"),
        ({"fields": {"messages": None}}, "judge.fields must hold no messages"),
        ({"attempts": 0}, "judge.attempts is 0"),
        ({"timeout": 0}, "judge.timeout is 0"),
        ({"concurrency": 0}, "judge.concurrency is 0"),
    ],
)
def test_invalid_endpoints(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as error:
        Endpoint("judge", **options)
    assert "pass@" not in str(error.value) and ":pass" not in str(error.value)


def test_without_the_package(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    sentence = r"judges need the package openai, 2.0 or newer .*pip install 'red-lightning\[evaluation\]'"
    with pytest.raises(UsageError, match=sentence):
        judging.check(endpoint(stub), None, False)  # before answers are generated
    judging.check(endpoint(stub), None, True)


def test_estimate_and_usage(stub: Stub, tmp_path: Path) -> None:
    settings = endpoint(stub, prompt_price=30.0, completion_price=60.0)
    texts = ["abcd", "abcde", "", "äöü"]  # 1, 2, 0 and 2 tokens
    wanted = [{"model": "judge", "messages": [{"content": text}], "max_tokens": 100} for text in texts]
    with Records(tmp_path / "log", REPLY) as log:
        judge = Judge(settings, log)
        assert judge.estimate([*wanted, wanted[0]]) == Usage(4, 5, 400, (5 * 30 + 400 * 60) / 1e6)
        judge.ask(wanted[:3], readable)
        assert judge.estimate(judge.missing(wanted)) == Usage(1, 2, 100, (2 * 30 + 100 * 60) / 1e6)
        assert judge.usage(wanted) == Usage(3, 300, 30, pytest.approx((300 * 30 + 30 * 60) / 1e6))
        assert Judge(endpoint(stub), log).usage(wanted) == Usage(3, 300, 30, None)


def test_two_judges_share_a_file_and_no_bill(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = requests(4)
    second = [{**request, "model": "other"} for request in first[:3]]
    found = {}
    for name, asked in {"first": first, "second": second, "again": second}.items():
        answered = judging.ask(endpoint(stub), tmp_path, asked, readable, False)
        assert answered is not None
        found[name] = answered[1]
    assert [about["usage"]["calls"] for about in found.values()] == [4, 3, 3]
    assert [about["estimate"]["calls"] for about in found.values()] == [4, 3, 3]
    assert "0 are missing" in capsys.readouterr().out.splitlines()[-2]
    assert len(stub.requests) == 7


def test_nothing_to_judge_shows_no_bar(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(tmp_path / "log", endpoint(stub), 2)
    assert "judging" in capsys.readouterr().err
    ask(tmp_path / "log", endpoint(stub), 2)
    assert capsys.readouterr().err == ""


def test_fields_of_a_request(stub: Stub, tmp_path: Path) -> None:
    fields = {"max_tokens": None, "max_completion_tokens": 9, "seed": 1}
    with Records(tmp_path / "log", REPLY) as log:
        judge = Judge(endpoint(stub, fields=fields), log)
        assert judge.estimate(requests(3)).completion_tokens == 27
    ask(tmp_path / "log", endpoint(stub, fields=fields), 1)
    (body,) = stub.requests
    assert {name: value for name, value in body.items() if name != "messages"} == {
        "model": "judge",
        "max_completion_tokens": 9,
        "seed": 1,
    }
    ask(tmp_path / "log", endpoint(stub, fields=fields), 1)
    assert len(stub.requests) == 1
    ask(tmp_path / "log", endpoint(stub), 1)  # another request
    assert len(stub.requests) == 2


KILLED = """
import json, sys
from pathlib import Path
from red_lightning.evaluation.endpoint import Endpoint
from red_lightning.evaluation.judge import Judge
from red_lightning.jsonl import Records
settings = Endpoint("judge", sys.argv[2], None, concurrency=3)
Judge(settings, Records(Path(sys.argv[1]), {})).ask(json.loads(sys.argv[3]), lambda row: "[[" in row["text"])
"""


def test_a_kill_loses_only_requests_in_flight(stub: Stub, tmp_path: Path) -> None:
    log = tmp_path / "log"
    stub.behaviour = lambda body, before: GOOD if len(stub.requests) <= 7 else Failure(None)
    command = [sys.executable, "-c", KILLED, str(log), stub.url, json.dumps(requests(20))]
    child = subprocess.Popen(command, env=environment(no_proxy="127.0.0.1"))
    stub.wait_for(10)  # seven replies are saved: each worker saves its reply before its next request
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with log.open("ab") as file:
        file.write(b'{"request": "abc", "te')  # a line that a kill cut
    stub.behaviour = lambda body, before: GOOD
    judge, replies = ask(log, endpoint(stub, key_variable=None), 20)
    assert None not in replies
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(rows) == len({row["request"] for row in rows}) == 20
    assert judge.usage(requests(20)).calls == 20
    assert sorted(stub.asked.values()) == [1] * 17 + [2] * 3  # three were in flight
