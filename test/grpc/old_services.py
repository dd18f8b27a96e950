"""The services of old clients, with their own messages."""
from client import channel, refused, tell
from JobWorker import worker_pb2 as jw
from JobWorker import worker_pb2_grpc as jw_rpc
from seanhagen.pb import workernator_pb2 as wp
from seanhagen.pb import workernator_pb2_grpc as wp_rpc
from seanhagen.workernator import workernator_pb2 as wn
from seanhagen.workernator import workernator_pb2_grpc as wn_rpc

alice = channel("alice")
bob = channel("bob")
told = {}

# The RFD's own.
typed = wn_rpc.ServiceStub(alice)
job = typed.Start(wn.JobStartRequest(job_type=wn.Fibonacci, args=wn.Arguments(fib=wn.FibonacciArgs(number=3))))
lines = list(typed.Tail(wn.TailJobRequest(id=job.id)))
done = typed.Status(wn.JobStatusRequest(id=job.id))
told["rfd"] = {
    "tail": [line.line for line in lines],
    "times": all(line.timestamp.seconds > 1.6e9 for line in lines),
    "status": [done.status, done.type, done.args.fib.number, done.pid, done.ended_at.seconds > 1.6e9],
    "again": [line.line for line in typed.Tail(wn.TailJobRequest(id=job.id))] == [line.line for line in lines],
    "noop": typed.Start(wn.JobStartRequest()).type,
    "expression": typed.Start(
        wn.JobStartRequest(
            job_type=wn.ExpressionEval,
            args=wn.Arguments(expr=wn.ExpressionEvalArgs(expression="2x", args={"x": 0.1})),
        )
    ).args.expr.args["x"],
    "mismatch": refused(lambda: typed.Start(wn.JobStartRequest(args=wn.Arguments(fib=wn.FibonacciArgs(number=3))))),
    "no arguments": refused(lambda: typed.Start(wn.JobStartRequest(job_type=wn.Fibonacci))),
    "type 9": refused(lambda: typed.Start(wn.JobStartRequest(job_type=9))),
    "foreign": refused(lambda: wn_rpc.ServiceStub(bob).Tail(wn.TailJobRequest(id=job.id))),
    "unknown": refused(lambda: typed.Tail(wn.TailJobRequest(id="unknown"))),
}

# The later one.
later = wp_rpc.ServiceStub(alice)


def started(*argv):
    return later.Start(wp.JobStartRequest(command=argv[0], arguments=argv[1:]))


def output(id):
    return list(later.Output(wp.OutputJobRequest(id=id)))


echo = started("echo", "hello", "you")
pieces = output(started("bytes", "5000").id)
failed = started("exit", "3")
output(failed.id)
failed = later.Status(wp.JobStatusRequest(id=failed.id))
sleeper = started("sleep")
stopped = later.Stop(wp.JobStopRequest(id=sleeper.id))
told["pb"] = {
    "output": b"".join(piece.data for piece in output(echo.id)).decode(),
    "pieces": [len(piece.data) for piece in pieces],
    "exact": b"".join(piece.data for piece in pieces) == bytes(n % 256 for n in range(5000)),
    "stderr": output(started("err", "why").id)[0].data.decode(),
    "empty": len(output(failed.id)),
    "job": [sleeper.command, list(sleeper.args), sleeper.status, sleeper.started_at.seconds > 1.6e9],
    "failed": [failed.status, failed.error_msg, failed.command, list(failed.args)],
    "stopped": [stopped.status, stopped.error_msg],
    "again": later.Stop(wp.JobStopRequest(id=sleeper.id)).status,
    "no program": refused(lambda: started("nope")),
    "no command": refused(lambda: later.Start(wp.JobStartRequest())),
    "gap": refused(lambda: later.Output(wp.OutputJobRequest(id=started("gap").id))),
    "foreign": refused(lambda: wp_rpc.ServiceStub(bob).Output(wp.OutputJobRequest(id=echo.id))),
}

# teleport-jobworker's.
worker = jw_rpc.WorkerStub(alice)


def begun(*argv, **more):
    return worker.Start(jw.StartRequest(command=argv[0], args=argv[1:], **more)).id


def log(id, follow=True):
    return [data.bytes.decode("latin1") for data in worker.Output(jw.OutputRequest(id=id, follow=follow))]


five = begun("lines", "5", opts=jw.JobOpts(cpu_weight=50, mem_limit="100M", io_weight=50))
long = begun("bytes", "200000")
whole = log(long)
waiter = begun("sleep")
running = worker.Status(jw.StatusRequest(id=waiter)).job_status
told["jobworker"] = {
    "id": five,
    "lines": log(five),
    "now": log(five, follow=False),
    "long": [max(len(line) for line in whole), "".join(whole) == "".join(chr(n % 256) for n in range(200000)).replace("\n", "")],
    "gap": log(begun("gap")),
    "running": [running.running, running.exitCode, running.pid],
    "nothing yet": log(waiter, follow=False),
    "stopped": str(worker.Stop(jw.StopRequest(id=waiter))),
    "status": [
        [status.running, status.exitCode]
        for status in [worker.Status(jw.StatusRequest(id=id)).job_status for id in (waiter, five, begun("exit", "7"))]
    ],
    "megabytes": refused(lambda: begun("echo", opts=jw.JobOpts(mem_limit="100MB"))),
    "negative": refused(lambda: begun("echo", opts=jw.JobOpts(mem_limit="-1"))),
    "weight": refused(lambda: begun("echo", opts=jw.JobOpts(io_weight=-5))),
    "foreign": refused(lambda: jw_rpc.WorkerStub(bob).Stop(jw.StopRequest(id=five))),
}
tell(told)
