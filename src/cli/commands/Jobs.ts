/** `stoker jobs`: jobs of a server, over gRPC or HTTP. */
import { Effect, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { JobState } from "../../schemas/Job.ts"
import * as Flags from "../Flags.ts"
import { serverFlags } from "../jobs/ServerFlags.ts"
import { Operands } from "../Operands.ts"
import { print } from "../Output.ts"

const help = Effect.gen(function*() {
  const { jobsText } = yield* Effect.promise(() => import("../jobs/StartHelp.ts"))
  yield* print(jobsText)
})

/** What all of them have: the server's flags. */
const parent = Command.make("jobs", {}, () => help).pipe(Command.withSharedFlags(serverFlags))

const owner = Flag.String("owner").pipe(
  Flag.withDescription("Whose job; only who may see others' (default: yours)"),
  Flag.withMetavar("NAME"),
  Flag.optional
)
const id = Argument.String("id").pipe(Argument.withDescription("The id that start and list print"))

/** Its words are read by the command itself, which knows the server's functions: `jobs/StartWords.ts`. */
const start = Command.make(
  "start",
  {},
  Effect.fn(function*() {
    const { startJob } = yield* Effect.promise(() => import("../jobs/RunStart.ts"))
    yield* startJob(yield* parent, yield* Operands)
  })
).pipe(
  Command.withDescription("Start a job in the server: `stoker jobs start` lists its functions"),
  Command.withExamples([
    { command: "stoker jobs start fib 3", description: "A function and its arguments" },
    { command: "stoker jobs start eval 2x+1 --args x=3 --follow", description: "And its output as it comes" }
  ])
)

const status = Command.make(
  "status",
  { id, owner, json: Flags.json },
  Effect.fn(function*(flags) {
    const { showStatus } = yield* Effect.promise(() => import("../jobs/RunJobs.ts"))
    yield* showStatus(yield* parent, flags)
  })
).pipe(Command.withDescription("Get the status of a job"))

const stop = Command.make(
  "stop",
  {
    id,
    owner,
    json: Flags.json,
    grace: Flag.String("grace").pipe(
      Flag.withDescription("Between TERM and KILL (default 2s)"),
      Flag.withMetavar("TIME"),
      Flags.asDuration("grace"),
      Flag.optional
    ),
    reason: Flag.String("reason").pipe(
      Flag.withDescription("What the job's outcome says"),
      Flag.withMetavar("TEXT"),
      Flag.optional
    )
  },
  Effect.fn(function*(flags) {
    const { stopJob } = yield* Effect.promise(() => import("../jobs/RunJobs.ts"))
    yield* stopJob(yield* parent, flags)
  })
).pipe(Command.withDescription("Stop a job, and wait for its end; one that has ended is only shown"))

const tail = Command.make(
  "tail",
  {
    id,
    owner,
    lines: Flag.Int("lines").pipe(
      Flag.withSchema(
        Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100_000 }, { expected: "0 to 100000" }))
      ),
      Flag.withAlias("n"),
      Flag.withMetavar("N"),
      Flag.withDescription("Begin with the last N lines there are (default: with the first byte)"),
      Flag.optional
    ),
    new: Flags.onOff("new", "Only what comes from now on"),
    stream: Flag.Literals("stream", ["all", "stdout", "stderr"]).pipe(
      Flag.withDescription("One of the streams (default: all, in order of arrival)"),
      Flag.withDefault("all")
    ),
    raw: Flags.onOff("raw", "The job's bytes and nothing else, its stderr on stderr"),
    noFollow: Flags.onOff("no-follow", "What there is now, and no more"),
    exitCode: Flags.onOff("exit-code", "End with the job's exit code"),
    json: Flags.onOff("json", "One JSON document a line for each event")
  },
  Effect.fn(function*(flags) {
    const { tailJob } = yield* Effect.promise(() => import("../jobs/RunTail.ts"))
    yield* tailJob(yield* parent, flags)
  })
).pipe(Command.withDescription("View the output of a job, from its first byte to its end"))

const optionalText = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.optional)

const list = Command.make(
  "list",
  {
    state: Flag.Literals("state", JobState.literals).pipe(
      Flag.withDescription("Only jobs that stand so"),
      Flag.optional
    ),
    function: optionalText("function", "NAME", "Only jobs of this function"),
    owner: optionalText("owner", "NAME", "Only jobs of this owner (default: all that you may see)"),
    limit: Flag.Int("limit").pipe(
      Flag.withSchema(
        Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100_000 }, { expected: "1 to 100000" }))
      ),
      Flag.withDescription("The newest N (default 20)"),
      Flag.withMetavar("N"),
      Flag.withDefault(20)
    ),
    json: Flags.onOff("json", "One JSON document a line for each job")
  },
  Effect.fn(function*(flags) {
    const { listJobs } = yield* Effect.promise(() => import("../jobs/RunJobs.ts"))
    yield* listJobs(yield* parent, flags)
  })
).pipe(Command.withDescription("List jobs, newest first"))

const functions = Command.make(
  "functions",
  { json: Flags.onOff("json", "One JSON document a line for each, with the JSON Schema of its arguments") },
  Effect.fn(function*(flags) {
    const { showFunctions } = yield* Effect.promise(() => import("../jobs/RunJobs.ts"))
    yield* showFunctions(yield* parent, flags)
  })
).pipe(Command.withDescription("List what can be started"))

const remove = Command.make(
  "delete",
  {
    ids: Argument.String("id").pipe(Argument.withDescription("The ids that start and list print"), Argument.atLeast(1)),
    owner,
    json: Flags.json
  },
  Effect.fn(function*(flags) {
    const { deleteJobs } = yield* Effect.promise(() => import("../jobs/RunJobs.ts"))
    yield* deleteJobs(yield* parent, flags)
  })
).pipe(Command.withDescription("Forget jobs that have ended, with their output and files"))

/** For completion scripts. */
const complete = Command.make(
  "complete",
  {},
  Effect.fn(function*() {
    const { choiceIn, complete } = yield* Effect.promise(() => import("../jobs/RunComplete.ts"))
    const words = yield* Operands
    yield* complete(choiceIn(words), words)
  })
).pipe(Command.withDescription("What can stand where the cursor is"), Command.unlisted)

export const jobs = parent.pipe(
  Command.withDescription("Start, stop and follow jobs of a server, over gRPC or HTTP"),
  Command.withSubcommands([start, status, stop, tail, list, functions, remove, complete])
)
