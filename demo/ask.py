"""Asks an endpoint with the unmodified Triton client, over HTTP and gRPC, for rows that come as a `.npy` file.

    ask.py HTTP-ADDRESS GRPC-ADDRESS ENDPOINT ROWS.npy SCORES.npy

Writes the probabilities that were answered, and prints who answered, as the headers of an answer say it.
"""

import json
import sys
import urllib.request

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

http_address, grpc_address, endpoint, rows_file, scores_file = sys.argv[1:]
rows = np.load(rows_file)
answers = []
with httpclient.InferenceServerClient(http_address) as http, grpcclient.InferenceServerClient(grpc_address) as grpc:
    metadata = http.get_model_metadata(endpoint)
    name = metadata["inputs"][0]["name"]
    scores = next(output["name"] for output in metadata["outputs"] if output["datatype"] == "FP32")
    for client, module in ((http, httpclient), (grpc, grpcclient)):
        tensor = module.InferInput(name, list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows)
        answers.append(client.infer(endpoint, [tensor]).as_numpy(scores))
if not np.array_equal(answers[0], answers[1]):
    sys.exit("HTTP and gRPC answer differently.")
np.save(scores_file, answers[0])
body = {"inputs": [{"name": name, "shape": [1, rows.shape[1]], "datatype": "FP32", "data": rows[0].tolist()}]}
request = urllib.request.Request(f"http://{http_address}/v2/models/{endpoint}/infer", json.dumps(body).encode())
with urllib.request.urlopen(request) as answer:
    print(json.dumps({key: answer.headers.get(f"x-mainstay-{key}") for key in ("model", "version", "variant", "run")}))
