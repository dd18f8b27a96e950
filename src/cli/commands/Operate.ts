/** `stoker stop`, `workers`, `drain` and `reload` */
import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as Flags from "../Flags.ts"

const instance = Flag.String("instance").pipe(
  Flag.withDescription("Only this worker, as `stoker workers` calls it (default: all of the state directory)"),
  Flag.withMetavar("ID"),
  Flag.optional
)

export const stop = Command.make(
  "stop",
  {
    id: Flags.jobName,
    reason: Flag.String("reason").pipe(
      Flag.withDescription("What the job's outcome says"),
      Flag.withMetavar("TEXT"),
      Flag.withDefault("by the operator")
    ),
    grace: Flag.String("grace").pipe(
      Flag.withDescription("Between TERM and KILL (default 2s)"),
      Flag.withMetavar("TIME"),
      Flag.withDefault("2s"),
      Flags.asDuration("grace")
    ),
    state: Flags.state,
    json: Flags.json
  },
  Effect.fn(function*(flags) {
    const { stopJob } = yield* Effect.promise(() => import("../StopJob.ts"))
    yield* stopJob(flags)
  })
).pipe(
  Command.withDescription(
    "End a job that waits or runs with a worker of this state directory, and wait for its end. One that has ended " +
      "already is only told."
  ),
  Command.withShortDescription("End a job"),
  Command.withExamples([
    { command: "stoker stop job-3fa85f6457", description: "TERM, and KILL two seconds later" },
    { command: "stoker stop --grace 0s --reason \"too loud\" job-3fa85f6457", description: "At once, and why" }
  ])
)

export const workers = Command.make(
  "workers",
  { state: Flags.state, json: Flags.json },
  Effect.fn(function*(flags) {
    const { showWorkers } = yield* Effect.promise(() => import("../RunOperate.ts"))
    yield* showWorkers(flags)
  })
).pipe(Command.withDescription("The workers that run with this state directory, and how they are"))

export const drain = Command.make(
  "drain",
  {
    state: Flags.state,
    instance,
    wait: Flags.onOff("wait", "Follow them until they have ended"),
    timeout: Flag.String("timeout").pipe(
      Flag.withDescription("Follow them for so long at most; they go on draining after it"),
      Flag.withMetavar("TIME"),
      Flags.asDuration("timeout"),
      Flag.optional
    )
  },
  Effect.fn(function*(flags) {
    const { drainWorkers } = yield* Effect.promise(() => import("../RunOperate.ts"))
    yield* drainWorkers(flags)
  })
).pipe(
  Command.withDescription(
    "Ask workers to take no more jobs, let running ones end within their --drain time, give the rest back, and end. As " +
      "SIGTERM does. Ends with 1 if one did not hear, died, or took longer than --timeout."
  ),
  Command.withShortDescription("Let workers finish and end"),
  Command.withExamples([
    { command: "stoker drain --wait --timeout 1m", description: "All of this state directory, before an upgrade" }
  ])
)

export const reload = Command.make(
  "reload",
  { state: Flags.state, instance },
  Effect.fn(function*(flags) {
    const { reloadWorkers } = yield* Effect.promise(() => import("../RunOperate.ts"))
    yield* reloadWorkers(flags)
  })
).pipe(
  Command.withDescription(
    "Ask workers to read their configuration file again, as SIGHUP does, and say for each changed field whether it " +
      "was applied or needs a restart. A file that is wrong is refused whole: the worker goes on as it was."
  ),
  Command.withShortDescription("Let workers read their configuration again"),
  Command.withExamples([{
    command: "stoker config check /etc/stoker/stoker.json && stoker reload",
    description: "Checked first"
  }])
)
