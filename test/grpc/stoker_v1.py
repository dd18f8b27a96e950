"""stoker.v1.JobService from beginning to end."""
import grpc
from client import channel, google_rpc, refused, tell
from google.protobuf import struct_pb2
from stoker.v1 import stoker_pb2 as pb
from stoker.v1 import stoker_pb2_grpc as rpc

alice = rpc.JobServiceStub(channel("alice"))
bob = rpc.JobServiceStub(channel("bob"))
admin = rpc.JobServiceStub(channel("admin"))
told = {}


def command(*argv, **more):
    return pb.StartRequest(command=pb.Command(argv=argv), **more)


started = alice.Start(command("echo", "hello", id="first", wait_seconds=5), metadata=(("traceparent", "00-x"),)).job
told["started"] = [started.id, started.owner, started.function, started.args_json]
events = list(alice.Follow(pb.FollowRequest(id="first")))
told["events"] = [event.WhichOneof("event") for event in events]
told["output"] = b"".join(event.output.bytes.data for event in events).decode()
ended = events[-1].ended.job
told["ended"] = [ended.state, ended.outcome.WhichOneof("kind"), ended.outcome.exited.code, ended.outcome.summary]
told["times"] = ended.received_at.seconds > 1.6e9 and ended.ended_at.seconds >= ended.started_at.seconds
status = alice.Status(pb.StatusRequest(id="first")).job
told["status"] = status == ended

alice.Start(command("lines", "5", id="lines", wait_seconds=5))
list(alice.Follow(pb.FollowRequest(id="lines")))
told["last"] = [
    event.output.bytes.data.decode() for event in alice.Follow(pb.FollowRequest(id="lines", last_lines=2))
    if event.HasField("output")
]
told["stderr"] = "".join(
    event.output.bytes.data.decode()
    for event in alice.Follow(pb.FollowRequest(id="lines", stream=pb.OUTPUT_STREAM_STDERR))
)
read = alice.Read(pb.ReadRequest(id="lines", offset=7, max_bytes=8))
told["read"] = [[entry.bytes.data.decode() for entry in read.entries], str(read.next), read.run]

alice.Start(command("sleep", id="sleeper", wait_seconds=5))
told["paused"] = [event.WhichOneof("event") for event in alice.Follow(pb.FollowRequest(id="sleeper", no_wait=True))]
told["early"] = refused(lambda: alice.Delete(pb.DeleteRequest(id="sleeper")))
stopped = alice.Stop(pb.StopRequest(id="sleeper", reason="enough", grace_seconds=0.5)).job
told["stopped"] = [stopped.outcome.WhichOneof("kind"), stopped.outcome.stopped.reason]
told["again"] = alice.Stop(pb.StopRequest(id="sleeper")).job == stopped

page = alice.List(pb.ListRequest(limit=2))
told["page"] = [[job.id for job in page.jobs], [job.id for job in alice.List(pb.ListRequest(cursor=page.next)).jobs]]
told["bobs"] = len(bob.List(pb.ListRequest()).jobs)
told["functions"] = [[one.name, one.title] for one in alice.Functions(pb.FunctionsRequest()).functions]
told["artefact"] = [
    [piece.offset, piece.data.decode(), piece.artefact.path]
    for piece in alice.Artefact(pb.ArtefactRequest(id="first", path="left.txt"))
]
told["no artefact"] = refused(lambda: alice.Artefact(pb.ArtefactRequest(id="first", path="other")))

fields = struct_pb2.Struct()
fields.update({"number": 3})
told["call"] = [
    alice.Start(pb.StartRequest(call=pb.Call(function="fib", args_struct=fields))).job.args_json,
    alice.Start(pb.StartRequest(call=pb.Call(function="fib", args_json='{"number": 3}'))).job.args_json,
    alice.Start(pb.StartRequest(fib=pb.Fib(number=3))).job.args_json,
    alice.Start(pb.StartRequest(noop=pb.Noop())).job.args_json,
]
told["bad"] = {
    "nothing": refused(lambda: alice.Start(pb.StartRequest())),
    "json": refused(lambda: alice.Start(pb.StartRequest(call=pb.Call(function="fib", args_json="{")))),
    "arguments": refused(lambda: alice.Start(pb.StartRequest(fib=pb.Fib(number=0)))),
    "limits": refused(lambda: alice.Start(command("echo", limits=pb.Limits(memory_bytes=1)))),
    "policy": refused(lambda: alice.Start(command("echo", limits=pb.Limits(output_policy=9)))),
    "terms": refused(lambda: alice.Start(command("echo", terms=pb.Terms(retry=pb.RetryPolicy(on=["Nope"]))))),
    "grace": refused(lambda: alice.Stop(pb.StopRequest(id="first", grace_seconds=-1))),
    "wait": refused(lambda: alice.Start(command("echo", wait_seconds=float("nan")))),
    "offset": refused(lambda: alice.Follow(pb.FollowRequest(id="first", offset=2**63))),
    "owner": refused(lambda: alice.Start(command("echo", owner="bob"))),
    "conflict": refused(lambda: alice.Start(command("echo", "other", id="first"))),
    "defect": refused(lambda: alice.Start(command("defect"))),
    "forbidden": refused(lambda: rpc.JobServiceStub(channel("nobody")).Start(command("echo"))),
}
methods = {
    "Status": lambda stub, id: stub.Status(pb.StatusRequest(id=id)),
    "Stop": lambda stub, id: stub.Stop(pb.StopRequest(id=id)),
    "Read": lambda stub, id: stub.Read(pb.ReadRequest(id=id)),
    "Follow": lambda stub, id: stub.Follow(pb.FollowRequest(id=id)),
    "Delete": lambda stub, id: stub.Delete(pb.DeleteRequest(id=id)),
    "Artefact": lambda stub, id: stub.Artefact(pb.ArtefactRequest(id=id, path="left.txt")),
}
told["ids"] = {
    name: [refused(lambda: call(bob, id)) for id in ("lines", "unknown", "../../etc", "")] for name, call in methods.items()
}
told["admin"] = admin.Status(pb.StatusRequest(id="first")).job.owner
alice.Delete(pb.DeleteRequest(id="first"))
told["deleted"] = refused(lambda: alice.Status(pb.StatusRequest(id="first")))
try:
    alice.Status(pb.StatusRequest(id="first"))
except grpc.RpcError as error:
    details = google_rpc("status").Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = google_rpc("error_details").ErrorInfo()
    told["unpacked"] = details.details[0].Unpack(info)
    told["details"] = [info.reason, info.domain, info.metadata["remedy"], details.code]
tell(told)
