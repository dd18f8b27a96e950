import type { DescFile, DescMessage } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { file_JobWorker_worker } from "../../src/layers/grpc/gen/JobWorker/worker_pb.js"
import { file_seanhagen_pb_workernator } from "../../src/layers/grpc/gen/seanhagen/pb/workernator_pb.js"
import { file_seanhagen_workernator_workernator } from "../../src/layers/grpc/gen/seanhagen/workernator/workernator_pb.js"

const root = join(import.meta.dirname, "../..")
const buf = join(root, "node_modules/@bufbuild/buf-linux-x64/bin/buf")

const canGenerate = (() => {
  try {
    execFileSync(buf, ["--version"])
    return true
  } catch {
    return false
  }
})()

const filesOf = (folder: string): Readonly<Record<string, string>> =>
  Object.fromEntries(
    readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) => {
      const path = join(entry.parentPath, entry.name)
      return [path.slice(folder.length), readFileSync(path, "utf8")]
    })
  )

describe("the wire", () => {
  // buf is made for some machines only; what it makes is the same on all.
  const says = canGenerate ? "making it anew changes nothing" : "not tried, there is no buf for this machine"
  it.skipIf(!canGenerate)(`is what proto/ says: ${says}`, () => {
    const folder = mkdtempSync(join(tmpdir(), "proto-"))
    try {
      execFileSync(join(root, "scripts/proto"), [join(folder, "gen")], { stdio: "pipe" })
      assert.deepStrictEqual(filesOf(join(folder, "gen")), filesOf(join(root, "src/layers/grpc/gen")))
    } finally {
      rmSync(folder, { recursive: true })
    }
  }, 60_000)

  /** `Message`: `field number`, …; `rpc Method`: `Input → Output`. */
  const described = (file: DescFile) => {
    const message = ({ fields, name }: DescMessage) =>
      [name, fields.map((field) => `${field.name} ${field.number}`).join(", ")] as const
    return Object.fromEntries([
      ...file.messages.map(message),
      ...file.enums.map(({ name, values }) =>
        [name, values.map((value) => `${value.name} ${value.number}`).join(", ")] as const
      ),
      ...file.services.flatMap(({ methods, typeName }) =>
        methods.map((method) =>
          [
            `/${typeName}/${method.name}`,
            `${method.input.name} → ${method.methodKind === "unary" ? "" : "stream "}${method.output.name}`
          ] as const
        )
      )
    ])
  }
  const statuses = "Unknown 0, Running 1, Failed 2, Finished 3, Stopped 4"

  // Not to be changed: clients are out there that were built with these.
  it("has the names and numbers of the old systems", () => {
    assert.deepStrictEqual(described(file_seanhagen_workernator_workernator), {
      NoopArgs: "",
      FibonacciArgs: "number 1",
      ExpressionEvalArgs: "expression 1, args 2",
      WaitThenPostHTTPArgs: "url_to_post 1, wait_seconds 2",
      Arguments: "noop 1, fib 2, expr 3, wait 4",
      Job: "id 1, pid 2, status 10, args 12, type 20, started_at 21, ended_at 22",
      JobStartRequest: "job_type 1, args 2",
      JobStopRequest: "id 1",
      JobStatusRequest: "id 1",
      JobStatusResponse: "job 1",
      TailJobRequest: "id 1",
      TailJobResponse: "line 1, timestamp 2",
      JobType: "Noop 0, Fibonacci 1, ExpressionEval 2, WaitSend 3",
      JobStatus: statuses,
      "/seanhagen.workernator.Service/Start": "JobStartRequest → Job",
      "/seanhagen.workernator.Service/Stop": "JobStopRequest → Job",
      "/seanhagen.workernator.Service/Status": "JobStatusRequest → Job",
      "/seanhagen.workernator.Service/Tail": "TailJobRequest → stream TailJobResponse"
    })
    assert.deepStrictEqual(described(file_seanhagen_pb_workernator), {
      Job: "id 1, status 10, command 11, args 12, error_msg 13, started_at 21, ended_at 22",
      JobStartRequest: "command 1, arguments 2",
      JobStopRequest: "id 1",
      JobStatusRequest: "id 1",
      JobStatusResponse: "job 1",
      OutputJobRequest: "id 1",
      OutputJobResponse: "data 1",
      JobStatus: statuses,
      "/seanhagen.pb.Service/Start": "JobStartRequest → Job",
      "/seanhagen.pb.Service/Stop": "JobStopRequest → Job",
      "/seanhagen.pb.Service/Status": "JobStatusRequest → Job",
      "/seanhagen.pb.Service/Output": "OutputJobRequest → stream OutputJobResponse"
    })
    assert.deepStrictEqual(described(file_JobWorker_worker), {
      StartRequest: "command 1, args 2, opts 3",
      StopRequest: "id 1",
      StatusRequest: "id 1",
      GenericRequest: "id 1",
      OutputRequest: "id 1, follow 2",
      JobOpts: "cpu_weight 1, mem_limit 2, io_weight 3",
      JobStatus: "id 1, pid 3, running 4, exitCode 5",
      StartResponse: "id 1, status 2",
      StopResponse: "status 1",
      StatusResponse: "job_status 1, status 2",
      Data: "bytes 1",
      Status: "code 1, message 2",
      "/JobWorker.Worker/Start": "StartRequest → StartResponse",
      "/JobWorker.Worker/Stop": "StopRequest → StopResponse",
      "/JobWorker.Worker/Status": "StatusRequest → StatusResponse",
      "/JobWorker.Worker/Output": "OutputRequest → stream Data"
    })
  })
})
