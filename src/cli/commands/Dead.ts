/** `stoker dead` */
import { Effect, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Flags from "../Flags.ts"

const common = {
  amqp: Flags.amqp,
  state: Flags.state,
  journal: Flags.journal,
  queue: Flag.String("queue").pipe(
    Flag.withDescription("The dead-letter queue at the broker (default stoker.dead)"),
    Flag.withMetavar("NAME"),
    Flag.withDefault("stoker.dead")
  ),
  json: Flags.json
}

const ids = Argument.String("id").pipe(
  Argument.withDescription("Letters, by the ids that `stoker dead list` prints"),
  Argument.variadic()
)

const all = Flags.onOff("all", "Every letter there is")

const list = Command.make(
  "list",
  {
    ...common,
    limit: Flag.Int("limit").pipe(
      Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 }, { expected: "1 to 10000" }))),
      Flag.withDescription("The oldest N (default 100)"),
      Flag.withMetavar("N"),
      Flag.withDefault(100)
    )
  },
  Effect.fn(function*(flags) {
    const { listDead } = yield* Effect.promise(() => import("./DeadActs.ts"))
    yield* listDead(flags)
  })
).pipe(Command.withDescription("The dead letters, the oldest first, each with its reason"))

const show = Command.make(
  "show",
  { ...common, id: Argument.String("id").pipe(Argument.withDescription("A letter, by its id")) },
  Effect.fn(function*(flags) {
    const { showDead } = yield* Effect.promise(() => import("./DeadActs.ts"))
    yield* showDead(flags)
  })
).pipe(Command.withDescription("One letter with headers and content"))

const retry = Command.make(
  "retry",
  { ...common, ids, all },
  Effect.fn(function*(flags) {
    const { retryDead } = yield* Effect.promise(() => import("./DeadActs.ts"))
    yield* retryDead(flags)
  })
).pipe(
  Command.withDescription(
    "Send letters to the queue they came from, as new. Those of the embedded queue run again; a job from RabbitMQ that " +
      "has an outcome already is answered with it for a day, not run again."
  )
)

const drop = Command.make(
  "drop",
  { ...common, ids, all },
  Effect.fn(function*(flags) {
    const { dropDead } = yield* Effect.promise(() => import("./DeadActs.ts"))
    yield* dropDead(flags)
  })
).pipe(Command.withDescription("Throw letters away"))

export const dead = Command.make("dead").pipe(
  Command.withDescription(
    "What could not become a job, or failed too often: jobs of the embedded queue in the state directory and, with " +
      "AMQP_URL, messages from RabbitMQ"
  ),
  Command.withShortDescription("Look after dead letters"),
  Command.withExamples([
    { command: "stoker dead list", description: "What there is, and why" },
    { command: "stoker dead retry 3fa85f6457b1c2d0", description: "Try one again" }
  ]),
  Command.withSubcommands([list, show, retry, drop])
)
