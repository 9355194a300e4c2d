"""A gRPC server that says its name, and a client without a proxy that counts who answered; messages are plain bytes.

peer.py server NAME FAILING   serves on a free port, which it prints; that share of calls fails
peer.py client TARGET         calls for ever and prints, for every hundred calls, who answered how often
"""

import collections
import json
import random
import sys
import time
from concurrent import futures

import grpc


class Named(grpc.GenericRpcHandler):
    def __init__(self, name, failing):
        self.name, self.failing = name.encode(), failing

    def service(self, _):
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, _, context):
        if random.random() < self.failing:
            context.abort(grpc.StatusCode.INTERNAL, "it is a bad version")
        return self.name


def serve(name, failing):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers([Named(name, failing)])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def call(target):
    channel = grpc.insecure_channel(target)
    method = channel.unary_unary("/serin.Reviews/Get")
    while True:
        counts = collections.Counter()
        for _ in range(100):
            try:
                counts[method(b"", timeout=10, wait_for_ready=True).decode()] += 1
            except grpc.RpcError as error:
                counts[error.code().name] += 1
                print(error.details(), file=sys.stderr, flush=True)
            time.sleep(0.001)
        print(json.dumps(counts), flush=True)


if sys.argv[1] == "server":
    serve(sys.argv[2], float(sys.argv[3]))
else:
    call(sys.argv[2])
