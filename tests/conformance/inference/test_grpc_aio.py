"""The real client over gRPC, asynchronous."""

import asyncio

import numpy as np
import pytest
import tritonclient.grpc.aio as aioclient
from tritonclient.grpc import InferInput
from tritonclient.utils import InferenceServerException


@pytest.fixture
def run(addresses):
    def go(work):
        async def main():
            async with aioclient.InferenceServerClient(addresses["grpc"]) as client:
                return await work(client)

        return asyncio.run(main())

    return go


def test_questions_about_server_and_model(run, needs):
    needs("add_sub")

    async def work(client):
        assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("add_sub")
        assert (await client.get_model_metadata("add_sub")).inputs[0].shape == [-1, 16]
        assert (await client.get_model_config("add_sub")).config.max_batch_size == 8
        assert "add_sub" in {one.name for one in (await client.get_model_repository_index()).models}

    run(work)


def test_every_datatype_comes_back_as_it_was_sent(run, needs, same, datatype, sample):
    model = needs(f"identity_{datatype.lower()}")

    async def work(client):
        data = InferInput("INPUT0", list(sample.shape), datatype).set_data_from_numpy(sample)
        got = (await client.infer(model, [data])).as_numpy("OUTPUT0")
        same(got.astype(sample.dtype) if datatype == "BF16" else got, sample)

    run(work)


def test_calls_that_overlap_each_get_their_own_answer(run, needs):
    model = needs("identity_int64")

    async def work(client):
        async def one(number):
            data = InferInput("INPUT0", [1, 1], "INT64").set_data_from_numpy(np.array([[number]], np.int64))
            return (await client.infer(model, [data])).as_numpy("OUTPUT0").item()

        assert await asyncio.gather(*[one(number) for number in range(64)]) == list(range(64))

    run(work)


def test_a_stream_answers_each_request_in_turn(run, needs):
    model = needs("tokens")

    async def work(client):
        async def requests():
            for number in range(3):
                text = np.array([f"a{number} b{number}"], object)
                data = InferInput("text_input", [1], "BYTES").set_data_from_numpy(text)
                yield {"model_name": model, "inputs": [data], "request_id": str(number)}

        seen = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            response = result.get_response()
            seen.append((response.id, result.as_numpy("text_output")[0].decode()))
        assert seen == [(str(n), word) for n in range(3) for word in (f"a{n}", f"b{n}")]

    run(work)


def test_a_failure_has_its_status(run, needs):
    needs("add_sub")

    async def work(client):
        data = InferInput("INPUT0", [1, 16], "INT32").set_data_from_numpy(np.ones((1, 16), np.int32))
        with pytest.raises(InferenceServerException) as failed:
            await client.infer("add_sub", [data])
        assert failed.value.status() == "StatusCode.INVALID_ARGUMENT"

    run(work)
