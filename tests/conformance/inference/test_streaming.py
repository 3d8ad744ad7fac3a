"""Many answers to one request: the real client's gRPC stream, and flat JSON over HTTP, which the client has no call for."""

import json
import queue
import time

import numpy as np
import pytest
import tritonclient.grpc as grpcclient


@pytest.fixture
def stream(addresses):
    """A stream that is open: a function that sends, and the answers as they come."""
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(addresses["grpc"]) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        yield client.async_stream_infer, lambda: answers.get(timeout=20)
        client.stop_stream()


def text(words):
    return [grpcclient.InferInput("text_input", [1], "BYTES").set_data_from_numpy(np.array([words], object))]


def tell(answer):
    result, error = answer
    assert error is None
    words, response = result.as_numpy("text_output"), result.get_response()
    return response.id, None if words is None else words[0].decode(), response.parameters["triton_final_response"].bool_param


def test_tokens_come_one_by_one(stream, needs):
    send, receive = stream
    send(needs("tokens"), text("one two three"), request_id="r")
    assert [tell(receive()) for _ in range(3)] == [("r", word, False) for word in ("one", "two", "three")]


def test_the_end_is_told_to_whoever_wants_to_know(stream, needs):
    send, receive = stream
    send(needs("tokens"), text("one"), request_id="r", enable_empty_final_response=True)
    assert [tell(receive()) for _ in range(2)] == [("r", "one", False), ("r", None, True)]


def test_a_model_with_one_answer_marks_it_as_the_last(stream, needs):
    send, receive = stream
    data = [grpcclient.InferInput("INPUT0", [1, 1], "FP32").set_data_from_numpy(np.ones((1, 1), np.float32))]
    for number in range(20):
        send(needs("identity_fp32"), data, request_id=str(number), enable_empty_final_response=True)
    for number in range(20):
        result, error = receive()
        assert error is None
        response = result.get_response()
        assert response.id == str(number) and response.parameters["triton_final_response"].bool_param


def test_an_error_is_in_band_and_the_stream_lives_on(stream, needs):
    send, receive = stream
    send("nobody", text("x"), request_id="1")
    result, error = receive()
    assert result is None and error.message() == "Request for unknown model: 'nobody' is not found"
    send(needs("tokens"), text("one two three"), request_id="2", parameters={"fail_after": 1})
    assert tell(receive()) == ("2", "one", False)
    assert "asked to fail in the middle" in receive()[1].message()
    send("tokens", text("after"), request_id="3")
    assert tell(receive()) == ("3", "after", False)


def test_a_stream_that_is_left_ends_the_work(addresses, needs, grpc):
    model = needs("tokens")
    dropped = lambda: grpc.get_inference_statistics(model).model_stats[0].inference_stats.fail.count
    before = dropped()
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(addresses["grpc"]) as client:
        client.start_stream(lambda result, error: answers.put(result))
        client.async_stream_infer(model, text("again"), parameters={"how_many": 10_000})
        answers.get(timeout=20)
        client.stop_stream(cancel_requests=True)
    for _ in range(100):
        if dropped() == before + 1:
            break
        time.sleep(0.05)
    assert dropped() == before + 1


def events(body):
    assert body.endswith(b"\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in body.decode().removesuffix("\n\n").split("\n\n")]


def test_generate_answers_flat(raw, needs):
    model = needs("tokens")
    body = json.dumps({"text_input": "a b c", "id": "7", "parameters": {"how_many": 2}})
    status, headers, answer = raw("POST", f"/v2/models/{model}/generate", body)
    assert status == 200 and headers["content-type"] == "application/json"
    assert json.loads(answer) == {"id": "7", "model_name": model, "model_version": "1", "text_output": "a b"}


def test_generate_stream_sends_an_event_a_token(raw, needs):
    model = needs("tokens")
    status, headers, body = raw("POST", f"/v2/models/{model}/versions/1/generate_stream", json.dumps({"text_input": "a ü", "how_many": 3}))
    assert status == 200 and headers["content-type"] == "text/event-stream; charset=utf-8"
    assert events(body) == [{"model_name": model, "model_version": "1", "text_output": word} for word in ("a", "ü", "a")]


def test_an_error_after_the_first_event_is_in_band_and_before_it_ordinary(raw, refused, needs):
    path = f"/v2/models/{needs('tokens')}/generate_stream"
    status, _, body = raw("POST", path, json.dumps({"text_input": "a b", "fail_after": 1}))
    assert status == 200 and [list(event)[-1] for event in events(body)] == ["text_output", "error"]
    refused(500, "asked to fail in the middle", "POST", path, json.dumps({"text_input": "a b", "fail_after": 0}))
    refused(400, "missing required input(s) ['text_input']", "POST", path, json.dumps({"how_many": 1}))
    refused(400, "failed to parse the request JSON buffer", "POST", path, "{")
    refused(400, "can not convert input 'text_input'", "POST", path, json.dumps({"text_input": ["a", "b"]}))
    refused(404, "'nobody' is not found", "POST", "/v2/models/nobody/generate_stream", "{}")
