"""Python's own gRPC at a door of Stoker: what is common to the tests' scripts."""
import importlib.util
import json
import sys

import grpc

port, folder = sys.argv[1], sys.argv[2]
sys.path.insert(0, folder)


def material(name):
    with open(f"{folder}/certs/ca.crt", "rb") as ca, open(f"{folder}/certs/{name}.key", "rb") as key, open(
        f"{folder}/certs/{name}.crt", "rb"
    ) as crt:
        return ca.read(), key.read(), crt.read()


def channel(name="alice", options=()):
    ca, key, crt = material(name)
    return grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(ca, key, crt), options)


def refused(call):
    """Code and words of the error that a call must end with."""
    try:
        answer = call()
        if hasattr(answer, "__next__"):
            answer = list(answer)
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return ["OK", str(answer)]


def by_path(path):
    """A generated module whose package has the name of an installed one (google, grpc)."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), f"{folder}/{path}_pb2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def google_rpc(name):
    return by_path(f"google/rpc/{name}")


def tell(value):
    print(json.dumps(value))
