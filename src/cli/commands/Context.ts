/** `stoker context`: servers by names of the user's own. */
import { Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Flags from "../Flags.ts"

const contextName = Argument.String("name").pipe(Argument.withDescription("What you call it"))

const file = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar("FILE"), Flag.optional)

const add = Command.make(
  "add",
  {
    name: contextName,
    server: Flag.String("server").pipe(
      Flag.withDescription("grpc://HOST:PORT or https://HOST:PORT"),
      Flag.withMetavar("URL")
    ),
    ca: file("ca", "CA that signed the server's certificate"),
    cert: file("cert", "Your certificate"),
    key: file("key", "Its key"),
    tokenFile: file("token-file", "Token, for https"),
    use: Flags.onOff("use", "From now on the one that is meant"),
    overwrite: Flags.onOff("overwrite", "Replace one of that name")
  },
  Effect.fn(function*(flags) {
    const { addContext } = yield* Effect.promise(() => import("../jobs/RunContext.ts"))
    yield* addContext(flags)
  })
).pipe(Command.withDescription("Remember a server, and the files that say who you are there"))

const use = Command.make(
  "use",
  { name: contextName },
  Effect.fn(function*({ name }) {
    const { useContext } = yield* Effect.promise(() => import("../jobs/RunContext.ts"))
    yield* useContext(name)
  })
).pipe(Command.withDescription("Mean this one from now on"))

const list = Command.make(
  "list",
  { json: Flags.json },
  Effect.fn(function*({ json }) {
    const { listContexts } = yield* Effect.promise(() => import("../jobs/RunContext.ts"))
    yield* listContexts(json)
  })
).pipe(Command.withDescription("The servers there are; * is the one that is meant"))

const remove = Command.make(
  "remove",
  { name: contextName },
  Effect.fn(function*({ name }) {
    const { removeContext } = yield* Effect.promise(() => import("../jobs/RunContext.ts"))
    yield* removeContext(name)
  })
).pipe(Command.withDescription("Forget one; its files stay"))

const show = Command.make(
  "show",
  { name: contextName.pipe(Argument.optional), json: Flags.json },
  Effect.fn(function*({ json, name }) {
    const { showContext } = yield* Effect.promise(() => import("../jobs/RunContext.ts"))
    yield* showContext(name, json)
  })
).pipe(Command.withDescription("One of them, or the one that is meant"))

export const context = Command.make("context").pipe(
  Command.withDescription("Servers that `stoker jobs` works with, by names of your own"),
  Command.withSubcommands([add, use, list, remove, show])
)
