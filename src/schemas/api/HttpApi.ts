/**
 * The HTTP API of the control plane as data: server, typed client and OpenAPI document come from it. Nothing of the server
 * is imported here. What it means is in docs/http.md.
 */
import { Schema } from "effect"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { FunctionView, JobView } from "../JobView.ts"
import { FollowSse } from "./FollowLine.ts"
import { conflict, notFound, notJson, outOfRange, tooLarge, usualProblems, wrongArguments } from "./Problem.ts"
import { told, withIdentity } from "./Spec.ts"
import { StartJob, StopJob } from "./StartJob.ts"

const View = JobView.annotate({ identifier: "Job" })

/** One page, newest first. */
export const JobList = Schema.Struct({
  jobs: Schema.Array(View),
  /** There may be more: give it back as `cursor`. */
  next: Schema.optionalKey(Schema.String)
}).annotate({ identifier: "JobList" })

export const FunctionList = Schema.Struct({
  functions: Schema.Array(FunctionView.annotate({ identifier: "Function" }))
}).annotate({ identifier: "FunctionList" })

const whole = (minimum: number, maximum: number, expected: string) =>
  Schema.FiniteFromString.check(Schema.isInt({ expected }), Schema.isBetween({ minimum, maximum }, { expected }))

const ofJob = { id: Schema.String }
/** Of whom; only who is `super` finds others' jobs. */
const owner = { owner: Schema.optionalKey(Schema.String) }
const stream = { stream: Schema.optionalKey(Schema.Literals(["stdout", "stderr", "all"])) }
const offset = whole(0, Number.MAX_SAFE_INTEGER, "a number of bytes")
/** In seconds. */
const wait = whole(0, 60, "seconds from 0 to 60")
const range = { range: Schema.optionalKey(Schema.String), "if-range": Schema.optionalKey(Schema.String) }
const bytes = HttpApiSchema.StreamUint8Array()

const start = HttpApiEndpoint.post("start", "/v1/jobs", {
  /** Answer when it runs or has ended, after so many seconds at most. */
  query: { wait: Schema.optionalKey(wait) },
  headers: { traceparent: Schema.optionalKey(Schema.String) },
  payload: StartJob,
  success: [View.pipe(HttpApiSchema.status(200)), View.pipe(HttpApiSchema.status(201))],
  error: [...usualProblems, notFound, conflict, tooLarge, notJson, wrongArguments]
}).annotateMerge(told("Start a job", "201 and Location for a new job; 200 if the same request was sent before."))

const list = HttpApiEndpoint.get("list", "/v1/jobs", {
  query: {
    ...owner,
    state: Schema.optionalKey(Schema.Literals(["queued", "running", "ended"])),
    function: Schema.optionalKey(Schema.String),
    limit: Schema.optionalKey(whole(1, 1000, "a number from 1 to 1000")),
    cursor: Schema.optionalKey(Schema.String)
  },
  success: JobList,
  error: usualProblems
}).annotateMerge(told("List jobs", "Newest first, a page at a time."))

const status = HttpApiEndpoint.get("status", "/v1/jobs/:id", {
  params: ofJob,
  query: owner,
  success: View,
  error: [...usualProblems, notFound]
}).annotateMerge(told("Status of a job"))

const stop = HttpApiEndpoint.post("stop", "/v1/jobs/:id/stop", {
  params: ofJob,
  query: owner,
  payload: StopJob,
  success: View,
  error: [...usualProblems, notFound, conflict, tooLarge, notJson]
}).annotateMerge(told("Stop a job", "Answers when it has ended. The body may be left out."))

const remove = HttpApiEndpoint.delete("delete", "/v1/jobs/:id", {
  params: ofJob,
  query: owner,
  success: HttpApiSchema.NoContent,
  error: [...usualProblems, notFound, conflict]
}).annotateMerge(told("Delete an ended job", "Its row, output and artefacts."))

const output = HttpApiEndpoint.get("output", "/v1/jobs/:id/output", {
  params: ofJob,
  query: {
    ...owner,
    ...stream,
    /** Only of this writing of the output, as Stoker-Run named it. */
    run: Schema.optionalKey(Schema.String),
    /** Seconds to wait for bytes where there are none yet. */
    wait: Schema.optionalKey(whole(0, 30, "seconds from 0 to 30"))
  },
  headers: range,
  success: bytes,
  error: [...usualProblems, notFound, outOfRange]
}).annotateMerge(told("Bytes of the output", "What there is now. Range takes one range of bytes.", { ranges: true }))

const events = HttpApiEndpoint.get("events", "/v1/jobs/:id/events", {
  params: ofJob,
  query: {
    ...owner,
    ...stream,
    offset: Schema.optionalKey(offset),
    lastLines: Schema.optionalKey(whole(0, 1_000_000, "lines from 0 to 1000000")),
    newOnly: Schema.optionalKey(Schema.Literals(["true", "false"])),
    /** `false`: what there is now, and no more. */
    wait: Schema.optionalKey(Schema.Literals(["true", "false"]))
  },
  headers: { "last-event-id": Schema.optionalKey(Schema.String), accept: Schema.optionalKey(Schema.String) },
  success: HttpApiSchema.StreamSse({ events: FollowSse }),
  error: [...usualProblems, notFound]
}).annotateMerge(
  told("Follow the output", "Server-Sent Events up to the job's end, or NDJSON if Accept asks for it.", { lines: true })
)

const artefact = HttpApiEndpoint.get("artefact", "/v1/jobs/:id/artefacts/:path", {
  params: { ...ofJob, path: Schema.String },
  query: owner,
  headers: range,
  success: bytes,
  error: [...usualProblems, notFound, outOfRange]
}).annotateMerge(told("A file that the job left", "The path may have its slashes as they are.", { ranges: true }))

const functions = HttpApiEndpoint.get("functions", "/v1/functions", {
  success: FunctionList,
  error: usualProblems
}).annotateMerge(told("Functions that can be started", "With the JSON Schema of their arguments."))

const one = HttpApiEndpoint.get("function", "/v1/functions/:name", {
  params: { name: Schema.String },
  success: FunctionView.annotate({ identifier: "Function" }),
  error: [...usualProblems, notFound]
}).annotateMerge(told("One function"))

export const jobsGroup = HttpApiGroup.make("jobs", { topLevel: true })
  .add(start, list, status, stop, remove, output, events, artefact, functions, one)

/** The whole of it. */
export const StokerHttpApi = HttpApi.make("stoker").add(jobsGroup)
  .annotateMerge(OpenApi.annotations({ title: "Stoker", version: "1", transform: withIdentity }))
