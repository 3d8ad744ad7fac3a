"""Webhooks (T5), by the real client: their requests, what a receiver gets, and that it gets it in spite of failures.

The receiver checks signatures with the upstream server's own code, and payloads against the upstream server's own types. To
run against the upstream server, let that call this machine: `MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true` and
`MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https`.
"""

import http.server
import json
import os
import pathlib
import signal
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from mlflow import MlflowClient
from mlflow.entities.webhook import VALID_ENTITY_ACTIONS, WebhookEvent, WebhookStatus
from mlflow.exceptions import MlflowException
from mlflow.webhooks.constants import WEBHOOK_DELIVERY_ID_HEADER, WEBHOOK_SIGNATURE_HEADER, WEBHOOK_TIMESTAMP_HEADER
from mlflow.webhooks.delivery import _generate_hmac_signature
from mlflow.webhooks.types import get_example_payload_for_event, get_payload_class_for_event

SECRET = "s3cret-" + os.urandom(8).hex()
EVENTS = [WebhookEvent(entity, action) for entity, actions in VALID_ENTITY_ACTIONS.items() for action in sorted(actions)]


class Heard:
    """One request that a receiver got."""

    def __init__(self, path, headers, body):
        self.path, self.headers, self.body = path, headers, body
        self.json = json.loads(body)
        self.event = f"{self.json['entity']}.{self.json['action']}"
        self.delivery_id = headers[WEBHOOK_DELIVERY_ID_HEADER]

    def verify(self, secret):
        """As the upstream documentation tells receivers to."""
        stamp = self.headers[WEBHOOK_TIMESTAMP_HEADER]
        expect = _generate_hmac_signature(secret, self.delivery_id, stamp, self.body.decode())
        assert self.headers[WEBHOOK_SIGNATURE_HEADER] == expect
        assert abs(time.time() - int(stamp)) < 300, "no replay of an old one"


class Receiver(http.server.ThreadingHTTPServer):
    """Answers POST to any path; the path tells webhooks apart. `answers` holds statuses for a path, used up one by one."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.answers, self.changed = [], {}, threading.Condition()
        self.host = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def of(self, url):
        return [request for request in self.requests if self.host + request.path == url]

    def wait(self, url, count, wait_s=60):
        """Until `count` requests came to an address."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(url)) >= count, wait_s), f"{len(self.of(url))} of {count} came"
        return self.of(url)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.changed:
            self.server.requests.append(Heard(self.path, self.headers, body))
            waiting = self.server.answers.get(self.path) or [200]
            status = waiting.pop(0)
            self.server.changed.notify_all()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"heard")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as receiver:
        yield receiver
        receiver.shutdown()


def configured(folder, receiver):
    """Configuration that lets the plugin call this receiver and nothing else."""
    path = pathlib.Path(folder) / "mainstay.toml"
    path.write_text(f'[[outbound]]\nplugin = "tracking"\nhosts = ["{receiver.host}"]\nallow-private = true\n')
    return ["--config", str(path)]


@pytest.fixture(scope="module")
def hooked(request, receiver):
    """A server that may call the receiver: its address and, when it is ours, its folder."""
    if url := os.environ.get("CONFORMANCE_URL"):
        yield url, None
        return
    start = request.getfixturevalue("start_server")
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        server = start(folder, *configured(folder, receiver))
        yield server.url, folder
        server.process.terminate()
        assert server.process.wait(20) == 0


@pytest.fixture
def client(hooked):
    url, _ = hooked
    return MlflowClient(url, url)


@pytest.fixture
def webhook(client, receiver, unique):
    """Makes webhooks that lead to a path of their own, and takes them away again."""
    made = []

    def create(events, **more):
        webhook = client.create_webhook(unique("hook"), f"{receiver.host}/{unique('path')}", events, **more)
        made.append(webhook.webhook_id)
        return webhook

    yield create
    for id in made:
        try:
            client.delete_webhook(id)
        except MlflowException as gone:
            assert gone.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_life_of_a_webhook(client, webhook, receiver):
    made = webhook(["model_version.created", "prompt_alias.deleted"], description="for CI", secret=SECRET)
    assert (made.status, made.description, made.secret) == (WebhookStatus.ACTIVE, "for CI", None)
    assert {str(event) for event in made.events} == {"model_version.created", "prompt_alias.deleted"}
    assert made.creation_timestamp == made.last_updated_timestamp
    read = client.get_webhook(made.webhook_id)
    assert repr(read) == repr(made)
    changed = client.update_webhook(made.webhook_id, name="renamed", status="DISABLED", events=["registered_model.created"])
    assert (changed.name, changed.status, changed.url) == ("renamed", WebhookStatus.DISABLED, made.url)
    assert [str(event) for event in changed.events] == ["registered_model.created"]
    assert changed.description == "for CI" and changed.last_updated_timestamp >= made.last_updated_timestamp
    client.delete_webhook(made.webhook_id)
    for call in (client.get_webhook, client.delete_webhook, client.test_webhook):
        with pytest.raises(MlflowException, match=f"Webhook with ID {made.webhook_id} not found") as raised:
            call(made.webhook_id)
        assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_webhooks_are_listed_in_pages(client, webhook):
    made = {webhook(["model_version.created"]).webhook_id for _ in range(3)}
    pages, token = [], None
    while True:
        page = client.list_webhooks(max_results=2, page_token=token)
        assert len(page) <= 2
        pages.extend(found.webhook_id for found in page)
        token = page.token
        if not token:
            break
    assert made <= set(pages) and len(pages) == len(set(pages))
    with pytest.raises(MlflowException, match="max_results must be between 1 and 1000"):
        client.list_webhooks(max_results=1001)


@pytest.mark.parametrize("name, url, message", [
    ("-x", "https://example.com", "Webhook name '-x' is invalid. It must start and end with a letter or digit"),
    ("a b", "https://example.com", "Webhook name 'a b' is invalid"),
    ("n" * 64, "https://example.com", "is invalid"),
    ("hook", "ftp://example.com", "Invalid webhook URL scheme: 'ftp'"),
    ("hook", "https://", "Webhook URL must include a hostname: 'https://'"),
    ("hook", "  ", "Webhook URL cannot be empty or just whitespace: '  '"),
])
def test_what_is_no_webhook_is_refused(client, name, url, message):
    with pytest.raises(MlflowException, match=message) as raised:
        client.create_webhook(name, url, ["model_version.created"])
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_webhook_without_events_is_refused(client):
    with pytest.raises(MlflowException, match="Missing value for required parameter 'events'"):
        client.create_webhook("hook", "https://example.com", [])


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_a_test_sends_the_example_of_the_event(client, webhook, receiver, event):
    made = webhook([event], secret=SECRET)
    result = client.test_webhook(made.webhook_id)
    assert (result.success, result.response_status, result.response_body, result.error_message) == (True, 200, "heard", None)
    (heard,) = receiver.of(made.url)
    heard.verify(SECRET)
    assert heard.headers["content-type"] == "application/json"
    assert (heard.event, heard.json["data"]) == (str(event), get_example_payload_for_event(event))


def test_a_test_says_what_went_wrong(client, webhook, receiver):
    made = webhook(["model_version.created"])
    receiver.answers[made.url.removeprefix(receiver.host)] = [418]
    result = client.test_webhook(made.webhook_id, event="registered_model.created")
    assert (result.success, result.response_status, result.response_body) == (False, 418, "heard")
    assert receiver.of(made.url)[0].event == "registered_model.created"
    assert WEBHOOK_SIGNATURE_HEADER not in receiver.of(made.url)[0].headers, "it has no secret"


def happened(client, unique):
    """Everything that webhooks are told of, done once: what each is expected to be sent, by event."""
    model, prompt = unique("model"), unique("prompt")
    run = client.create_run("0")
    client.create_registered_model(model, tags={"team": "a"}, description="a model")
    source = f"runs:/{run.info.run_id}/model"
    client.create_model_version(model, source, run_id=run.info.run_id, tags={"k": "v"}, description="größer")
    client.set_model_version_tag(model, "1", "tier", "gold")
    client.delete_model_version_tag(model, "1", "tier")
    client.set_registered_model_alias(model, "champion", "1")
    client.delete_registered_model_alias(model, "champion")
    client.register_prompt(prompt, "Hello {{name}}!", tags={"k": "v"}, commit_message="first")
    client.set_prompt_tag(prompt, "tone", "warm")
    client.delete_prompt_tag(prompt, "tone")
    client.set_prompt_version_tag(prompt, "1", "tier", "gold")
    client.delete_prompt_version_tag(prompt, "1", "tier")
    client.set_prompt_alias(prompt, "live", 1)
    client.delete_prompt_alias(prompt, "live")
    return {
        "registered_model.created": {"name": model, "tags": {"team": "a"}, "description": "a model"},
        "model_version.created": {"name": model, "version": "1", "source": source, "run_id": run.info.run_id,
                                  "tags": {"k": "v"}, "description": "größer"},
        "model_version_tag.set": {"name": model, "version": "1", "key": "tier", "value": "gold"},
        "model_version_tag.deleted": {"name": model, "version": "1", "key": "tier"},
        "model_version_alias.created": {"name": model, "alias": "champion", "version": "1"},
        "model_version_alias.deleted": {"name": model, "alias": "champion"},
        "prompt.created": {"name": prompt},
        "prompt_version.created": {"name": prompt, "version": "1", "template": "Hello {{name}}!", "description": "first"},
        "prompt_tag.set": {"name": prompt, "key": "tone", "value": "warm"},
        "prompt_tag.deleted": {"name": prompt, "key": "tone"},
        "prompt_version_tag.set": {"name": prompt, "version": "1", "key": "tier", "value": "gold"},
        "prompt_version_tag.deleted": {"name": prompt, "version": "1", "key": "tier"},
        "prompt_alias.created": {"name": prompt, "alias": "live", "version": "1"},
        "prompt_alias.deleted": {"name": prompt, "alias": "live"},
    }


def test_every_event_arrives_signed_and_in_its_shape(client, webhook, receiver, unique):
    made = webhook(EVENTS, secret=SECRET)
    begun = datetime.now(timezone.utc)
    expect = happened(client, unique)
    about = {data["name"] for data in expect.values()}

    def came(event, data):
        return any(heard.event == event and data.items() <= heard.json["data"].items() for heard in receiver.of(made.url))

    # More come than these: whoever registers a prompt sets tags of its own on the way.
    with receiver.changed:
        receiver.changed.wait_for(lambda: all(came(event, data) for event, data in expect.items()), 60)
    for heard in receiver.of(made.url):
        heard.verify(SECRET)
        data = heard.json["data"]
        assert data["name"] in about
        # Whoever registers a prompt sets tags of its own on the way: several events of one name.
        payload = get_payload_class_for_event(WebhookEvent.from_str(heard.event))
        assert set(data) == set(payload.__annotations__), heard.event
        assert abs(datetime.fromisoformat(heard.json["timestamp"]) - begun) < timedelta(minutes=5)
        assert set(heard.json) == {"entity", "action", "timestamp", "data"}
    for event, data in expect.items():
        of_event = [heard.json["data"] for heard in receiver.of(made.url) if heard.event == event]
        assert any(data.items() <= found.items() for found in of_event), f"{event}: {of_event}"
    ids = [heard.delivery_id for heard in receiver.of(made.url)]
    assert len(ids) == len(set(ids))


def test_only_those_that_are_active_and_wait_for_an_event_are_told(client, webhook, receiver, unique):
    told, also = webhook(["registered_model.created"]), webhook(["registered_model.created"], secret=SECRET)
    other, asleep = webhook(["model_version.created"]), webhook(["registered_model.created"], status="DISABLED")
    name = unique("model")
    client.create_registered_model(name)
    for made in (told, also):
        assert receiver.wait(made.url, 1)[0].json["data"]["name"] == name
    also_heard = receiver.of(also.url)[0]
    also_heard.verify(SECRET)
    assert WEBHOOK_SIGNATURE_HEADER not in receiver.of(told.url)[0].headers
    client.create_registered_model(unique("model"))
    receiver.wait(told.url, 2)
    assert receiver.of(other.url) == receiver.of(asleep.url) == []


def test_a_receiver_that_is_unwell_is_told_again_under_the_same_id(client, webhook, receiver, unique):
    made = webhook(["registered_model.created"], secret=SECRET)
    receiver.answers[made.url.removeprefix(receiver.host)] = [503, 200]
    client.create_registered_model(unique("model"))
    first, second = receiver.wait(made.url, 2)
    assert (first.delivery_id, first.body) == (second.delivery_id, second.body)
    second.verify(SECRET)


@pytest.mark.mainstay
def test_a_place_that_is_not_granted_is_refused_at_once(client, receiver):
    for url in ("https://example.com/hook", "http://127.0.0.1:1/hook", "http://169.254.169.254/latest"):
        with pytest.raises(MlflowException, match="is not granted") as raised:
            client.create_webhook("hook", url, ["model_version.created"])
        assert raised.value.error_code == "PERMISSION_DENIED"
    made = client.create_webhook("hook", f"{receiver.host}/granted", ["model_version.created"])
    with pytest.raises(MlflowException, match="is not granted"):
        client.update_webhook(made.webhook_id, url="https://example.com/hook")
    assert client.get_webhook(made.webhook_id).url == made.url
    client.delete_webhook(made.webhook_id)


@pytest.mark.mainstay
def test_secrets_do_not_come_back(client, webhook, hooked, unique):
    made = webhook(["registered_model.created"], secret=SECRET)
    client.update_webhook(made.webhook_id, secret=SECRET + "-new")
    client.create_registered_model(unique("model"))
    client.test_webhook(made.webhook_id)
    url, folder = hooked
    import httpx

    for path in (f"/api/2.0/mlflow/webhooks/{made.webhook_id}", "/api/2.0/mlflow/webhooks", "/-/events/tracking%2Fregistry",
                 "/-/jobs/outbound-deliver/runs"):
        answer = httpx.get(url + path)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        assert SECRET not in answer.text, path
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.mainstay
def test_what_was_promised_is_sent_after_a_crash(start_server, receiver, unique):
    """The receiver is down, the server is killed: when both are back, each event arrives under one id."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        server = start_server(folder, *configured(folder, receiver))
        client = MlflowClient(server.url, server.url)
        path = f"/{unique('crash')}"
        client.create_webhook("hook", receiver.host + path, ["registered_model.created"], secret=SECRET)
        receiver.answers[path] = [503] * 3
        names = [unique("model") for _ in range(3)]
        for name in names:
            client.create_registered_model(name)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        server = start_server(folder, *configured(folder, receiver))
        with receiver.changed:
            told = lambda: {heard.json["data"]["name"] for heard in receiver.of(receiver.host + path)}
            assert receiver.changed.wait_for(lambda: told() == set(names), 60), told()
        by_name = {}
        for heard in receiver.of(receiver.host + path):
            heard.verify(SECRET)
            by_name.setdefault(heard.json["data"]["name"], set()).add(heard.delivery_id)
        assert all(len(ids) == 1 for ids in by_name.values()), by_name
        server.process.terminate()
        assert server.process.wait(20) == 0
