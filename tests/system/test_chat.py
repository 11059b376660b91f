"""Conversations: messages in place of a prompt, through broker, worker and the Python client."""
import json
import pathlib
import shutil

import penstock
import pytest
from real_broker import Broker, echo
from scripted_broker import FakeBroker
from test_cancel import Worker

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "examples/models/tiny-llama"
TEMPLATE = """{{ bos_token }}{% for m in messages -%}
    {%- if m.role == 'critic' %}{{ raise_exception('nobody asked the ' ~ m.role) }}{% endif -%}
    {{ m.content }}
{%- endfor %}{% if loud %}!{% endif %}"""
SPANS = [{"run": run, "name": run[:6], "model": "chatty"} for run in ("encode.prompt", "infer.generate")]


@pytest.fixture(name="fake")
def fixture_fake(tmp_path):
    broker = FakeBroker(tmp_path / "w", lease_ms=20000)
    yield broker
    broker.close()


@pytest.fixture(name="chatty")
def fixture_chatty(tmp_path):
    """A copy of the tiny model with a chat template."""
    copy = shutil.copytree(TINY, tmp_path / "chatty")
    (copy / "chat_template.jinja").write_text(TEMPLATE)
    return f"chatty={copy}"


@pytest.fixture(name="broker", scope="module")
def fixture_broker(tmp_path_factory):
    pipeline = echo(name="text.generate").replace("kind: text.embed", "kind: text.generate")
    with Broker(tmp_path_factory.mktemp("chat"), pipeline) as broker:
        yield broker


def outcome(fake, **body):
    """The result of a text.generate job, or why it failed."""
    fake.lease(SPANS, {"max_tokens": 12, **body}, kind="text.generate")
    while (message := fake.expect("STAGE_DONE", "STAGE_FAILED")):
        if message.name == "STAGE_FAILED":
            return message["error_class"], message["reason"]
        if message["stage"] == 1:
            return message.document()["texts"][0]["ids"]


def user(*texts):
    return [{"role": "user", "content": text} for text in texts]


def test_a_worker_answers_messages_as_the_text_that_the_template_makes(fake, chatty):
    with Worker(fake.endpoint, "encode.prompt,infer.generate", "--model", chatty):
        fake.register()
        text = outcome(fake, prompt="The press on line two")
        assert len(text) == 12 * 4
        assert outcome(fake, messages=user("The press ", "on line two")) == text
        assert outcome(fake, messages=json.dumps(user("The press on line two"))) == text
        loud = outcome(fake, prompt="The press on line two!")
        assert outcome(fake, messages=user("The press on line two"), template_vars={"loud": True}) == loud
        assert outcome(fake, messages=[{"role": "critic", "content": ""}]) == (
            "permanent", "messages: chat template: line 2: the template refuses these messages: "
            "nobody asked the critic")


def test_the_broker_takes_a_prompt_or_messages_not_both(broker):
    with penstock.Client(broker.clients) as client:
        messages = user("Grüße")
        client.submit(penstock.generate(messages=messages, tools=[{"name": "f"}], max_tokens=4))
        client.submit("text.generate", {"messages": messages, "tools": None, "template_vars": {"x": 1}})
        for body in ({"messages": messages, "prompt": "x"}, {"max_tokens": 4}):
            with pytest.raises(penstock.Refused, match="prompt"):
                client.submit("text.generate", body)


def test_the_client_makes_a_conversation_of_a_list():
    body = penstock.generate(messages=user("Grüße"), template_vars={"enable_thinking": False}).body
    assert json.loads(body["messages"]) == user("Grüße") and "ü" in body["messages"]
    assert json.loads(body["template_vars"]) == {"enable_thinking": False} and "prompt" not in body
    for given in ({}, {"prompt": "x", "messages": user("y")}):
        with pytest.raises(penstock.Invalid, match="one of them"):
            penstock.generate(**given)
