"""Endpoints: what a server may answer, refuse or break, over real connections."""

from __future__ import annotations

import json
import math
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.unit.conftest import completion
from tests.upstream import NO_LOGPROBS

from hierrouter.config import ModelSpec
from hierrouter.errors import ConfigError, HierRouterError, RefusedError, UnreachableError
from hierrouter.pool import openai_waiting
from hierrouter.pool.openai_backend import HOPELESS, OpenAIBackend
from hierrouter.pool.openai_line import SLOW_RETRIES
from hierrouter.pool.openai_words import OddAnswerError

DEADLINE = 60
"""Seconds after which a test that hangs has failed; nothing waits so long."""
KEY = "sk-0123456789abcdef"


@pytest.fixture
def opened(endpoint):
    """Makes backends of the played endpoint, and closes them."""
    made = []

    def make(url="", quiet_s=DEADLINE, answered=False, **settings):
        fields = {"url": url or endpoint.url, "retries": 0, "timeout_s": DEADLINE, **settings}
        spec = ModelSpec(name="E", model="org/m", backend="openai", endpoint=fields, base_rate=1)
        made.append(OpenAIBackend(spec, answered, quiet_s))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch):
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID", "CUSTOM_HEADERS"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)
    monkeypatch.delenv("ENDPOINT_KEY", raising=False)


def ask(backend, *prompts, limit=5, on_reply=None):
    return backend.generate(prompts, [limit] * len(prompts), on_reply)


def failure(backend, kind=HierRouterError):
    """The one line that asking ends in."""
    with pytest.raises(kind) as caught:
        ask(backend, "hi")
    line = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in line
    assert line.startswith(f"model E: {backend._endpoint.url} ")
    return line


# What is asked, and what of an answer is kept.


def test_a_reply_with_counts_and_log_probabilities(endpoint, opened):
    def play(call):
        told = {"content": [{"token": t, "logprob": x} for t, x in (("a", -0.5), ("b", -1.5))]}
        made = {"index": 0, "finish_reason": "length", "message": {"content": " Yes. \n"}}
        usage = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}
        call.answer({"choices": [{**made, "logprobs": told}], "usage": usage})

    endpoint.play = play
    (made,) = ask(opened(served_name="m-served"), "Is it?", limit=2)
    assert (made.reply, made.tokens_in, made.tokens_out) == ("Yes.", 11, 2)
    assert (made.finish_reason, made.logprob_mean, made.logprob_min) == ("length", -1.0, -1.5)
    assert made.latency_s > 0
    (call,) = endpoint.calls
    assert call.path == "/v1/chat/completions"
    assert call.said == {
        "model": "m-served",
        "messages": [{"role": "user", "content": "Is it?"}],
        "temperature": 0,
        "max_tokens": 2,
        "logprobs": True,
    }


@pytest.mark.parametrize("told", NO_LOGPROBS)
def test_without_log_probabilities_there_are_none(endpoint, opened, told):
    def play(call):
        body = completion({"content": "HI"})
        body["choices"][0]["logprobs"] = told
        call.answer(body)

    endpoint.play = play
    (made,) = ask(opened(), "hi")
    assert (made.reply, made.finish_reason) == ("HI", "stop")
    assert math.isnan(made.logprob_mean)
    assert math.isnan(made.logprob_min)


@pytest.mark.parametrize("content", [None, ""])
def test_a_model_that_reasons_up_to_its_limit_has_an_empty_reply(endpoint, opened, content):
    thoughts = {"content": content, "reasoning_content": "Well, "}
    endpoint.play = lambda call: call.complete("", (4, 5), "length", **thoughts)
    (made,) = ask(opened(), "hi")
    assert (made.reply, made.tokens_out, made.finish_reason) == ("", 5, "length")


@pytest.mark.parametrize(
    ("status", "words"),
    [(400, "'logprobs' is not supported"), (422, {"detail": "Unexpected fields: {'logprobs'}"})],
)
def test_log_probabilities_that_a_server_refuses_are_asked_for_once(
    endpoint, opened, status, words
):
    def play(call):
        if "logprobs" in call.said:
            call.refuse(status, words)
        else:
            call.complete()

    endpoint.play = play
    made = ask(opened(concurrency=1), "a", "b", "c")
    assert [each.reply for each in made] == ["A", "B", "C"]
    assert ["logprobs" in call.said for call in endpoint.calls] == [True, False, False, False]


def test_a_refusal_that_quotes_a_question_is_no_reason_to_ask_for_less(endpoint, opened):
    def play(call):
        if call.prompt == "b":
            call.complete()
        else:
            call.refuse(400, f"cannot take {call.prompt}")

    endpoint.play = play
    backend = opened(concurrency=1)
    with pytest.raises(RefusedError):
        ask(backend, "What are logprobs, and max_completion_tokens?")
    ask(backend, "b")
    assert endpoint.calls[-1].said.keys() >= {"logprobs", "max_tokens"}


def test_a_server_that_wants_the_limit_by_its_newer_name_gets_it(endpoint, opened):
    """And what calls find out at the same time adds up."""
    together = threading.Barrier(2, timeout=DEADLINE)

    def play(call):
        if len(endpoint.calls) <= 2:
            together.wait()
        if "max_tokens" in call.said and call.prompt == "a":
            call.refuse(400, "'max_tokens' is not supported; use 'max_completion_tokens' instead.")
        elif "logprobs" in call.said:
            call.refuse(400, "no logprobs")
        elif "max_tokens" in call.said:
            call.refuse(400, "use max_completion_tokens")
        else:
            call.complete()

    endpoint.play = play
    backend = opened(concurrency=2)
    assert [each.reply for each in ask(backend, "a", "b")] == ["A", "B"]
    asked = len(endpoint.calls)
    ask(backend, "c")
    (last,) = endpoint.calls[asked:]
    assert last.said["max_completion_tokens"] == 5
    assert not last.said.keys() & {"max_tokens", "logprobs"}


# Many at a time.


def test_never_more_calls_at_once_than_allowed_whoever_asks(endpoint, opened):
    backend = opened(concurrency=3)
    places = threading.Semaphore(3)
    too_many = []
    # Three have to be under way at once. They are held while the models are listed: that request
    # is made after a fourth call would have been.
    together = threading.Barrier(3, backend.listed_models, timeout=DEADLINE)

    def play(call):
        if call.path == "/v1/models":
            call.answer({"data": []})
        elif places.acquire(blocking=False):
            together.wait()
            places.release()
            call.complete()
        else:
            too_many.append(call.prompt)
            call.refuse(400)

    endpoint.play = play
    with ThreadPoolExecutor(2) as askers:
        halves = askers.map(lambda half: ask(backend, *half), ("abcdef", "ghijkl"))
        assert "".join(each.reply for half in halves for each in half) == "ABCDEFGHIJKL"
    assert too_many == []


def test_replies_are_told_as_they_come_and_returned_in_order(endpoint, opened):
    """Each call is answered only when the next prompt's reply has been told."""
    told = []
    turns = [threading.Event() for _ in range(4)]
    turns[3].set()

    def play(call):
        assert turns[int(call.prompt)].wait(DEADLINE)
        call.complete()

    def on_reply(position, completion):
        told.append((position, completion.reply))
        if position:
            turns[position - 1].set()

    endpoint.play = play
    made = ask(opened(concurrency=4), *"0123", on_reply=on_reply)
    assert told == [(3, "3"), (2, "2"), (1, "1"), (0, "0")]
    assert [each.reply for each in made] == list("0123")


@pytest.mark.parametrize(
    ("said", "kept"),
    [("x \ud83d", "x \ufffd"), ("x \ud83d\ude00", "x \U0001f600"), ("\u00e9", "\u00e9")],
)
def test_half_a_character_is_replaced(endpoint, opened, said, kept):
    """JSON may hold one, where a reply was cut within it, and no file can."""
    endpoint.play = lambda call: call.complete(said)
    assert ask(opened(), "a")[0].reply == kept


def test_no_prompts_ask_nothing(endpoint, opened):
    assert ask(opened()) == []
    assert endpoint.calls == []


def test_after_a_failure_nothing_new_is_asked(endpoint, opened):
    endpoint.play = lambda call: call.refuse(403) if call.prompt == "b" else call.complete()
    told = {}
    with pytest.raises(HierRouterError, match="refused the call"):
        ask(opened(concurrency=1), *"abcdef", on_reply=told.__setitem__)
    assert {at: made.reply for at, made in told.items()} == {0: "A"}
    assert [call.prompt for call in endpoint.calls] == ["a", "b"]


def test_a_refused_call_keeps_no_other_from_being_made(endpoint, opened):
    endpoint.play = lambda call: call.refuse(400) if call.prompt in "ad" else call.complete()
    told = {}
    with pytest.raises(RefusedError, match=r"2 of 6 calls refused, one of them: .*400: no"):
        ask(opened(concurrency=2), *"abcdef", on_reply=told.__setitem__)
    assert {at: made.reply for at, made in told.items()} == {1: "B", 2: "C", 4: "E", 5: "F"}


def test_a_server_that_refuses_every_call_is_not_asked_all_of_them(endpoint, opened):
    endpoint.play = lambda call: call.refuse(400)
    with pytest.raises(HierRouterError, match="400: no") as caught:
        ask(opened(concurrency=1), *(f"q{number}" for number in range(30)))
    assert type(caught.value) is HierRouterError
    assert len(endpoint.calls) == HOPELESS


def test_after_a_failure_what_is_under_way_is_told(endpoint, opened):
    refused = threading.Event()

    def play(call):
        if call.prompt == "b":
            call.refuse(403)
            refused.set()
        else:
            assert refused.wait(DEADLINE)
            call.complete()

    endpoint.play = play
    told = {}
    with pytest.raises(HierRouterError, match="refused the call"):
        ask(opened(concurrency=2), *"ab", on_reply=told.__setitem__)
    assert {at: made.reply for at, made in told.items()} == {0: "A"}


def test_calls_under_way_are_taken_and_none_begun_when_whoever_records_fails(endpoint, opened):
    both, failed = threading.Barrier(2, timeout=DEADLINE), threading.Event()
    told = []

    def play(call):
        if call.prompt in "ab":
            both.wait()
        if call.prompt == "b":
            assert failed.wait(DEADLINE)
        call.complete()

    def on_reply(position, completion):
        told.append(completion.reply)
        failed.set()
        raise OSError("no space left")

    endpoint.play = play
    with pytest.raises(OSError, match="no space left"):
        ask(opened(concurrency=2), *"abcd", on_reply=on_reply)
    # The place of "a" was free before its reply was told: others may have begun by then.
    assert told[0] == "A"
    assert "B" in told
    assert len(told) == len(endpoint.calls)


def test_stopped_by_another_thread_it_takes_the_answers_under_way(endpoint, opened):
    backend = opened(concurrency=1)

    def play(call):
        backend.stop()
        call.complete()

    endpoint.play = play
    told = {}
    with pytest.raises(HierRouterError, match="is not asked any further; run the same command"):
        ask(backend, *"abc", on_reply=told.__setitem__)
    assert {at: made.reply for at, made in told.items()} == {0: "A"}
    assert len(endpoint.calls) == 1
    backend.close()
    endpoint.play = lambda call: call.complete()
    assert ask(backend, "d")[0].reply == "D"


def test_refusals_that_come_before_the_first_reply_can_are_the_calls_own(endpoint, opened):
    refused = threading.Barrier(31, timeout=DEADLINE)

    def play(call):
        if call.prompt != "q0":
            call.refuse(400)
        refused.wait()
        if call.prompt == "q0":
            call.complete()

    endpoint.play = play
    with pytest.raises(RefusedError, match="30 of 31 calls refused"):
        ask(opened(concurrency=31), *(f"q{number}" for number in range(31)))


def test_a_model_that_has_answered_before_may_refuse_any_number(endpoint, opened):
    endpoint.play = lambda call: call.refuse(400)
    with pytest.raises(RefusedError, match="30 of 30 calls refused"):
        ask(opened(answered=True), *(f"q{number}" for number in range(30)))


def test_a_closed_backend_answers_again(opened):
    backend = opened()
    assert ask(backend, "a")[0].reply == "A"
    backend.close()
    backend.close()
    assert ask(backend, "b")[0].reply == "B"


# Ctrl-C.

ASKER = """
import sys
from hierrouter.config import ModelSpec
from hierrouter.pool.openai_backend import OpenAIBackend
at = {"url": sys.argv[1], "concurrency": 2}
spec = ModelSpec(name="E", model="m", backend="openai", endpoint=at, base_rate=1)
backend = OpenAIBackend(spec)
try:
    backend.generate("abcdef", [5] * 6, lambda at, made: print(made.reply, flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
finally:
    backend.close()
"""


@pytest.fixture
def asker(endpoint):
    """A process that asks for six replies, two at a time, with both calls under way."""
    both = threading.Barrier(3, timeout=DEADLINE)

    def play(call):
        both.wait()
        assert endpoint.let_go.wait(DEADLINE)
        call.complete()

    endpoint.play = play
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", ASKER, endpoint.url], **pipes) as process:
        try:
            both.wait()
            yield process
        finally:
            process.kill()


def interrupted_once(process):
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("stopping; calls under way are waited for")


def test_ctrl_c_takes_the_answers_under_way_and_asks_no_more(endpoint, asker):
    interrupted_once(asker)
    endpoint.let_go.set()
    said, complaints = asker.communicate(timeout=DEADLINE)
    assert sorted(said.splitlines()[:2]) == ["A", "B"]
    assert said.splitlines()[2:] == ["interrupted"]
    assert complaints == ""
    assert len(endpoint.calls) == 2


def test_a_second_ctrl_c_ends_at_once_though_nothing_was_answered(endpoint, asker):
    interrupted_once(asker)
    asker.send_signal(signal.SIGINT)
    said, complaints = asker.communicate(timeout=DEADLINE)
    assert (said, complaints, asker.returncode) == ("interrupted\n", "", 0)
    assert not endpoint.let_go.is_set()


def test_ctrl_c_while_calls_are_still_being_started_keeps_those_under_way(endpoint, opened):
    both = threading.Barrier(3, timeout=DEADLINE)

    class Interrupted(tuple):
        def __iter__(self):
            yield from self[:2]
            both.wait()
            raise KeyboardInterrupt

    def play(call):
        both.wait()
        call.complete()

    endpoint.play = play
    told = {}
    with pytest.raises(KeyboardInterrupt):
        opened(concurrency=2).generate(Interrupted("abcdef"), [5] * 6, told.__setitem__)
    assert {at: made.reply for at, made in told.items()} == {0: "A", 1: "B"}
    assert len(endpoint.calls) == 2


# Servers that are not well.


def test_a_closed_port(opened):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        line = failure(opened(url), UnreachableError)
    assert line.endswith(
        "1 try); start it or correct endpoint.url, then run the same command again: what was "
        "answered is kept"
    )
    assert "does not answer ([Errno " in line


def test_a_machine_that_does_not_exist(opened):
    line = failure(opened("http://nowhere.invalid:1/v1"), UnreachableError)
    assert "does not answer (" in line


def test_a_server_that_stalls(endpoint, opened):
    endpoint.play = lambda call: endpoint.let_go.wait(DEADLINE)
    line = failure(opened(timeout_s=0.05), UnreachableError)
    assert "gave no answer within 0.05 s (1 try); raise endpoint.timeout_s or lower" in line


def test_a_server_that_keeps_the_line_open_without_answering(endpoint, opened):
    def play(call):
        call.send_response(200)
        call.end_headers()
        while not endpoint.let_go.wait(0.01):
            call.wfile.write(b" ")

    endpoint.play = play
    line = failure(opened(timeout_s=0.2), UnreachableError)
    assert "gave no answer within 0.2 s (1 try)" in line


def test_a_time_out_is_tried_again(endpoint, opened):
    def play(call):
        if len(endpoint.calls) == 1:
            endpoint.let_go.wait(DEADLINE)
        call.complete()

    endpoint.play = play
    assert ask(opened(timeout_s=1, retries=1), "a")[0].reply == "A"


def test_what_takes_too_long_is_made_again_fewer_times_than_what_costs_nothing(
    endpoint, opened, monkeypatch
):
    import openai._base_client

    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.0)
    endpoint.play = lambda call: endpoint.let_go.wait(DEADLINE)
    line = failure(opened(timeout_s=0.05, retries=20), UnreachableError)
    assert f"gave no answer within 0.05 s ({SLOW_RETRIES + 1} tries)" in line


def test_a_server_that_throttles_and_then_stalls_is_not_met_in_silence(endpoint, opened, said):
    def play(call):
        if len(endpoint.calls) <= 2:
            call.refuse(429)
        else:
            said.wait_for("failed so far: 2 × 429\n")
            call.complete()

    endpoint.play = play
    assert ask(opened(retries=2, quiet_s=0.01), "a")[0].reply == "A"
    assert "model E: 1 calls under way, the longest for 0 s; tries that failed" in said.getvalue()


def test_a_reply_that_stalls_halfway(endpoint, opened):
    def play(call):
        call.send_response(200)
        call.send_header("Content-Type", "application/json")
        call.send_header("Content-Length", "1000")
        call.end_headers()
        call.wfile.write(b'{"choices": [')
        endpoint.let_go.wait(DEADLINE)

    endpoint.play = play
    assert "within 0.05 s (1 try)" in failure(opened(timeout_s=0.05), UnreachableError)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_refused_for_now_then_answered(endpoint, opened, status):
    def play(call):
        call.refuse(status) if len(endpoint.calls) <= 2 else call.complete()

    endpoint.play = play
    assert ask(opened(retries=2), "hi")[0].reply == "HI"
    assert len(endpoint.calls) == 3


def test_a_server_error_that_lasts(endpoint, opened):
    endpoint.play = lambda call: call.refuse(500, "out of\n  memory")
    line = failure(opened(retries=3), UnreachableError)
    assert "refused the call (500: out of memory); " in line
    assert line.endswith("look at the server's log, then run the same command again: what was "
                         "answered is kept")  # fmt: skip
    assert len(endpoint.calls) == 4


def test_too_many_requests_to_the_end(endpoint, opened):
    endpoint.play = lambda call: call.refuse(429)
    line = failure(opened(retries=1), UnreachableError)
    assert "lower endpoint.concurrency, or, when its Retry-After of 0.001 has passed, run" in line
    assert len(endpoint.calls) == 2


def test_a_server_that_wants_hours_is_not_waited_for(endpoint, opened):
    endpoint.play = lambda call: call.refuse(429, **{"Retry-After": "7200"})
    assert "when its Retry-After of 7200 has passed" in failure(opened(retries=6), UnreachableError)
    assert len(endpoint.calls) == 1


def test_a_reply_that_is_cut_off(endpoint, opened):
    endpoint.play = lambda call: call.answer({"choices": ["x" * 100]}, cut=50)
    line = failure(opened(), UnreachableError)
    assert "does not answer (" in line
    assert "without sending complete message body" in line


def test_a_reply_that_is_cut_off_is_asked_for_again(endpoint, opened):
    def play(call):
        call.answer({"x": "x" * 100}, cut=50) if len(endpoint.calls) == 1 else call.complete()

    endpoint.play = play
    assert ask(opened(retries=1), "hi")[0].reply == "HI"


def test_a_reply_that_a_filter_cut_is_known_by_it(endpoint, opened):
    endpoint.play = lambda call: call.complete("I", finish="content_filter")
    assert ask(opened(), "hi")[0].finish_reason == "content_filter"


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_reply_that_the_server_gave_up_is_none(endpoint, opened, reason):
    endpoint.play = lambda call: call.complete("Half a", finish=reason)
    assert f"broke a reply off (finish_reason {reason})" in failure(opened(), OddAnswerError)


# Answers that are none.


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("<html>\n<h1>Welcome</h1></html>", "text/html"),
        ("{'choices'", "application/json"),
        ("", "application/json"),
        ("[]", "application/json"),
        ("null", "application/json"),
        ('{"choices": []}', "application/json"),
        ('{"choices": [{"index": 0}], "usage": {}}', "application/json"),
        ('{"choices": [{"message": {"content": ["x"]}}]}', "application/json"),
        ('{"error": {"message": "no such thing"}}', "application/json"),
        ('{"choices": [{"message": {"content": "x"}}], "usage": {}}', "application/json"),
        *(
            (json.dumps(completion({"content": "x"}, counted)), "application/json")
            for counted in ((3 * 10**9, 1), (7, 3 * 10**9), (-1, 3), (7, -1), (math.inf, 1))
        ),
        ("[" * 100_000, "application/json"),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_completion_is_quoted(endpoint, opened, body, kind):
    endpoint.play = lambda call: call.answer(body, kind=kind)
    line = failure(opened())
    quoted = " ".join(body.split()) or "nothing"
    assert f"answered with what is no chat completion ({quoted[:60]}" in line
    assert line.endswith("an OpenAI-compatible server, up to and including /v1?")


def test_a_long_wrong_answer_is_quoted_in_short(endpoint, opened):
    endpoint.play = lambda call: call.answer("word " * 1000, kind="text/plain")
    assert len(failure(opened())) < 400


def test_an_answer_without_counts_cannot_be_priced(endpoint, opened):
    endpoint.play = lambda call: call.complete(usage=None)
    assert "answers without `usage`, and what is not counted" in failure(opened())


@pytest.mark.parametrize(
    ("status", "words", "remedy"),
    [
        (401, "who are you", "name the environment variable that holds its key in endpoint.api"),
        (403, "not you", "name the environment variable that holds its key in endpoint.api_key"),
        (
            404,
            {"detail": "Not Found"},
            "is that its base address, up to and including /v1, and does it serve",
        ),
        (404, "The model `org/m` does not exist.", "set endpoint.served_name to what the server"),
        (404, "<h1>Not Found</h1>", "is that its base address, up to and including /v1, and does"),
        (
            400,
            {"detail": "pinned to 'x'; requested 'org/m'"},
            "set endpoint.served_name to what the server",
        ),
    ],
)
def test_a_refusal_that_lasts_is_not_repeated_and_says_what_to_do(
    endpoint, opened, status, words, remedy
):
    endpoint.play = lambda call: call.refuse(status, words)
    line = failure(opened(retries=5))
    said = words if isinstance(words, str) else words["detail"]
    assert f"refused the call ({status}: {said}); " in line
    assert f"; {remedy}" in line or line.endswith(remedy)
    assert len(endpoint.calls) == 1


REPEATED = "{'model': 'org/m', 'max_tokens': 5}: too long"
"""What a server may say that quotes the call."""


@pytest.mark.parametrize(
    ("served", "words"),
    [
        ("model", "This model's maximum context length is 4096 tokens"),
        ("llama", "llama-3 and org/llama take 4096 tokens"),
        ("llama", "llama.cpp takes 4096 tokens"),
    ],
)
def test_a_refusal_that_only_seems_to_name_the_model_is_the_calls_own(
    endpoint, opened, served, words
):
    endpoint.play = lambda call: call.refuse(400, words)
    line = failure(opened(served_name=served), RefusedError)
    assert line.endswith("pool.prompts.max_context_tokens")


@pytest.mark.parametrize("words", ["no llama.", "No such model: llama", "`llama` is unknown"])
def test_a_first_refusal_that_names_the_model_is_of_all_calls(endpoint, opened, words):
    endpoint.play = lambda call: call.refuse(400, words)
    assert "set endpoint.served_name to" in failure(opened(served_name="llama"))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_model_that_has_answered_refuses_single_calls_whatever_it_says(endpoint, opened, status):
    endpoint.play = lambda call: call.refuse(status, REPEATED)
    assert failure(opened(answered=True), RefusedError).endswith("max_context_tokens")
    endpoint.play = lambda call: (
        call.refuse(status, REPEATED) if call.prompt == "hi" else call.complete()
    )
    backend = opened()
    ask(backend, "a")
    assert failure(backend, RefusedError).endswith("max_context_tokens")


def test_a_prompt_that_is_too_long_is_not_repeated_and_is_its_own_fault(endpoint, opened):
    endpoint.play = lambda call: call.refuse(400, "maximum context length is 512")
    line = failure(opened(retries=5), RefusedError)
    assert "refused the call (400: maximum context length is 512); " in line
    assert line.endswith("pool.prompts.max_context_tokens")
    assert len(endpoint.calls) == 1


# Answers of no use now and then, from a server that has answered.

ODD = {
    "page": lambda call: call.answer("<html>Back soon</html>", kind="text/html"),
    "failed": lambda call: call.answer({"error": {"message": "upstream"}}),
    "uncounted": lambda call: call.complete(usage=None),
    "aborted": lambda call: call.complete("Half a", finish="abort"),
    "gone": lambda call: call.refuse(404, "<h1>Not Found</h1>"),
}


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(openai_waiting, "FIRST_PAUSE_S", 0.0)


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_answer_is_asked_for_again(endpoint, opened, no_pauses, odd):
    endpoint.play = lambda call: (
        ODD[odd](call) if len(endpoint.calls) in (2, 3) else call.complete()
    )
    backend = opened(retries=2)
    assert [made.reply for word in "ab" for made in ask(backend, word)] == ["A", "B"]
    assert len(endpoint.calls) == 4


@pytest.mark.parametrize("odd", ODD)
def test_odd_answers_that_last_may_yet_pass(endpoint, opened, no_pauses, odd):
    endpoint.play = ODD[odd]
    line = failure(opened(answered=True, retries=8), OddAnswerError)
    assert line.endswith("run the same command again: what was answered is kept")
    # What may have been paid for is made again fewer times.
    assert len(endpoint.calls) == 1 + (8 if odd == "gone" else SLOW_RETRIES)


@pytest.mark.parametrize("odd", ["page", "failed", "uncounted", "gone"])
def test_a_server_that_never_answered_is_taken_at_its_word(endpoint, opened, odd):
    endpoint.play = ODD[odd]
    failure(opened(retries=8))
    assert len(endpoint.calls) == 1


def test_an_odd_answer_is_not_asked_for_again_when_no_more_calls_are_wanted(endpoint, opened):
    backend = opened(answered=True, retries=8)

    def play(call):
        backend.stop()
        ODD["page"](call)

    endpoint.play = play
    failure(backend, OddAnswerError)
    assert len(endpoint.calls) == 1


def test_odd_answers_are_not_met_in_silence(endpoint, opened, no_pauses, said):
    def play(call):
        if len(endpoint.calls) <= 2:
            ODD["page"](call)
        else:
            said.wait_for("failed so far: 2 × odd answer\n")
            call.complete()

    endpoint.play = play
    assert ask(opened(answered=True, retries=2, quiet_s=0.01), "a")[0].reply == "A"


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_model_that_answered_and_then_wants_another_key_is_left_and_not_asked_again(
    endpoint, opened, status
):
    endpoint.play = lambda call: call.refuse(status)
    failure(opened(answered=True, retries=5), UnreachableError)
    assert len(endpoint.calls) == 1


# Keys.


def test_the_key_comes_from_the_named_variable(endpoint, opened, monkeypatch):
    monkeypatch.setenv("ENDPOINT_KEY", f" {KEY}\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    ask(opened(api_key_env="ENDPOINT_KEY"), "hi")
    assert endpoint.calls[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("variable", ["", "ENDPOINT_KEY"])
def test_without_a_key_nothing_of_the_users_is_sent(endpoint, opened, monkeypatch, variable):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", THEIRS)
    for sent in all_sent(endpoint, opened(api_key_env=variable)):
        assert sent["Authorization"] is None
        assert not any(each in str(sent) for each in (KEY, "mine"))


@pytest.mark.parametrize("spelling", ["Authorization", "authorization"])
def test_with_a_key_nothing_else_of_the_users_is_sent(endpoint, opened, monkeypatch, spelling):
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"{spelling}: Bearer mine\n{THEIRS}")
    for sent in all_sent(endpoint, opened(api_key_env="ENDPOINT_KEY")):
        assert sent.get_all("Authorization") == [f"Bearer {KEY}"]
        assert "mine" not in str(sent)


THEIRS = "X-Gateway: mine\nAUTHORIZATION: Bearer mine\nopenai-project: mine\nno header of mine"
"""Headers that the user has set up for OpenAI itself."""


def all_sent(endpoint, backend):
    """The headers of a call and of a question for the models."""
    ask(backend, "hi")
    endpoint.play = lambda call: call.answer({"object": "list", "data": []})
    backend.listed_models()
    sent = [call.headers for call in endpoint.calls]
    assert len(sent) == 2
    return sent


@pytest.mark.parametrize("status", [200, 401, 500])
def test_a_key_that_a_server_repeats_is_not_shown(endpoint, opened, monkeypatch, status):
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    endpoint.play = lambda call: call.refuse(status, f"wrong: {call.headers['Authorization']}")
    kind = UnreachableError if status == 500 else HierRouterError
    line = failure(opened(api_key_env="ENDPOINT_KEY"), kind)
    assert KEY not in line
    assert "wrong: Bearer ***" in line
    assert ("put a valid key into ENDPOINT_KEY" in line) == (status == 401)


def test_a_variable_that_is_not_set_is_named_when_a_key_is_wanted(endpoint, opened):
    endpoint.play = lambda call: call.refuse(401)
    line = failure(opened(api_key_env="ENDPOINT_KEY"))
    assert line.endswith("; ENDPOINT_KEY is not set: put a valid key into ENDPOINT_KEY")


@pytest.mark.parametrize("key", [f"{KEY}\nmore", f"{KEY} more", f"{KEY}…"])
def test_what_cannot_be_a_key_is_refused_unseen(endpoint, opened, monkeypatch, key):
    monkeypatch.setenv("ENDPOINT_KEY", key)
    with pytest.raises(ConfigError, match="model E: ENDPOINT_KEY holds characters") as caught:
        ask(opened(api_key_env="ENDPOINT_KEY"), "hi")
    assert KEY not in str(caught.value)
    assert endpoint.calls == []


@pytest.mark.parametrize(
    "url",
    ["localhost:8000/v1", "http:///v1", "http://me:pw@host/v1", "http://a b/v1", "http://[x/v1",
     "http://a:99999/v1", "http://a:b/v1"],
)  # fmt: skip
def test_an_address_that_cannot_be_one_is_refused(opened, url):
    with pytest.raises(ValueError, match=r"endpoint\.url"):
        opened(url)


# What a server has.


def test_the_models_that_a_server_lists(endpoint, opened, monkeypatch):
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    endpoint.play = lambda call: call.answer({"data": [{"id": "b"}, {"id": "a"}]})
    assert opened(api_key_env="ENDPOINT_KEY").listed_models() == ["b", "a"]
    (call,) = endpoint.calls
    assert (call.path, call.headers["Authorization"]) == ("/v1/models", f"Bearer {KEY}")


def test_a_server_that_lists_no_models_is_asked_once(endpoint, opened):
    endpoint.play = lambda call: call.answer("<html>", kind="text/html")
    with pytest.raises(HierRouterError, match=r"no list of models \(<html>\)"):
        opened().listed_models()
    endpoint.play = lambda call: call.refuse(503)
    with pytest.raises(UnreachableError, match="refused the call"):
        opened(retries=5).listed_models()
    assert len(endpoint.calls) == 2
