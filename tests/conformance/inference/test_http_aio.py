"""The real client over HTTP, asynchronous."""

import asyncio

import numpy as np
import pytest
import tritonclient.http.aio as aioclient
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


@pytest.fixture
def run(addresses):
    def go(work):
        async def main():
            async with aioclient.InferenceServerClient(addresses["http"]) as client:
                return await work(client)

        return asyncio.run(main())

    return go


def test_questions_about_server_and_model(run, needs):
    needs("add_sub")

    async def work(client):
        assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("add_sub")
        assert (await client.get_server_metadata())["name"]
        assert (await client.get_model_metadata("add_sub"))["inputs"][0]["shape"] == [-1, 16]
        assert (await client.get_model_config("add_sub"))["max_batch_size"] == 8
        assert "add_sub" in {one["name"] for one in await client.get_model_repository_index()}
        assert (await client.get_inference_statistics("add_sub"))["model_stats"][0]["name"] == "add_sub"

    run(work)


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "json"])
def test_every_datatype_comes_back_as_it_was_sent(run, needs, same, datatype, sample, binary):
    model = needs(f"identity_{datatype.lower()}")

    async def work(client):
        if datatype in ("FP16", "BF16") and not binary:
            # The client refuses to write it; the server refuses to send it.
            data = InferInput("INPUT0", list(sample.shape), datatype).set_data_from_numpy(sample)
            with pytest.raises(InferenceServerException, match="via JSON is not supported"):
                await client.infer(model, [data], outputs=[InferRequestedOutput("OUTPUT0", binary_data=False)])
            return
        data = InferInput("INPUT0", list(sample.shape), datatype).set_data_from_numpy(sample, binary_data=binary)
        result = await client.infer(model, [data], outputs=[InferRequestedOutput("OUTPUT0", binary_data=binary)], request_id="a")
        got = result.as_numpy("OUTPUT0")
        same(got.astype(sample.dtype) if datatype == "BF16" else got, sample)
        assert result.get_response()["id"] == "a"

    run(work)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_both_ways(run, needs, algorithm):
    array = np.zeros((64, 64), np.float32)

    async def work(client):
        data = InferInput("INPUT0", [64, 64], "FP32").set_data_from_numpy(array)
        result = await client.infer(needs("identity_fp32"), [data], request_compression_algorithm=algorithm,
                                    response_compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)

    run(work)


def test_calls_that_overlap_each_get_their_own_answer(run, needs):
    model = needs("identity_int64")

    async def work(client):
        async def one(number):
            data = InferInput("INPUT0", [1, 1], "INT64").set_data_from_numpy(np.array([[number]], np.int64))
            return (await client.infer(model, [data])).as_numpy("OUTPUT0").item()

        assert await asyncio.gather(*[one(number) for number in range(64)]) == list(range(64))

    run(work)


def test_a_failure_has_its_status(run, needs):
    needs("add_sub")

    async def work(client):
        data = InferInput("INPUT0", [1, 16], "INT32").set_data_from_numpy(np.ones((1, 16), np.int32))
        with pytest.raises(InferenceServerException) as failed:
            await client.infer("add_sub", [data])
        assert failed.value.status() == "400" and "missing required input(s) ['INPUT1']" in failed.value.message()

    run(work)


def test_a_client_that_goes_away_ends_the_work(run, needs, http):
    model = needs("slow")
    dropped = lambda: http.get_inference_statistics(model)["model_stats"][0]["inference_stats"]["fail"]["count"]
    before = dropped()

    async def work(client):
        data = InferInput("INPUT0", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.infer(model, [data], parameters={"delay_ms": 60_000}), 0.3)
        for _ in range(100):
            if dropped() == before + 1:
                return
            await asyncio.sleep(0.05)
        assert dropped() == before + 1

    run(work)
