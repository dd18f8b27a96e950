/** `stoker certs` */
import { Effect, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Flags from "../Flags.ts"

const dir = Flag.String("dir").pipe(
  Flag.withDescription("Folder of the authority and its certificates (default: certs in the state directory)"),
  Flag.withMetavar("DIR"),
  Flag.optional
)

const days = (usual: string) =>
  Flag.Int("days").pipe(
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 7300 }, { expected: "1 to 7300" }))),
    Flag.withDescription(`How many days it is valid (default ${usual})`),
    Flag.withMetavar("N"),
    Flag.optional
  )

const common = { dir, json: Flags.json }

const acts = Effect.promise(() => import("../RunCerts.ts"))

const init = Command.make(
  "init",
  {
    ...common,
    days: days("1826, five years"),
    name: Flag.String("name").pipe(
      Flag.withDescription("What the authority is called in its certificate"),
      Flag.withMetavar("NAME"),
      Flag.withDefault("Stoker authority")
    )
  },
  Effect.fn(function*(flags) {
    const { initAuthority } = yield* acts
    yield* initAuthority(flags)
  })
).pipe(Command.withDescription("Make an authority: ca.crt, for everybody, and ca.key, which never leaves the folder"))

const server = Command.make(
  "server",
  {
    ...common,
    days: days("90"),
    name: Flag.String("name").pipe(
      Flag.withDescription("What its files are called"),
      Flag.withMetavar("NAME"),
      Flag.withDefault("server")
    ),
    host: Flag.String("host").pipe(
      Flag.withDescription(
        "A DNS name or IP address that clients know it by; may be repeated (default localhost, 127.0.0.1, ::1)"
      ),
      Flag.withMetavar("HOST"),
      Flag.between(0, 100)
    )
  },
  Effect.fn(function*(flags) {
    const { issueServer } = yield* acts
    yield* issueServer(flags)
  })
).pipe(
  Command.withDescription("A certificate for a worker's doors"),
  Command.withExamples([{
    command: "stoker certs issue server --host worker.example.com --host 10.0.0.1",
    description: "Clients may use either"
  }])
)

const client = Command.make(
  "client",
  {
    ...common,
    days: days("30"),
    name: Argument.String("name").pipe(
      Argument.withDescription("Whose jobs are started with it: letters, digits, '.', '_', '@' and '-'")
    ),
    field: Flag.Literals("field", ["CN", "L"]).pipe(
      Flag.withDescription("Where in the subject the name stands; L with CN \"client\", as workernator had it"),
      Flag.withDefault("CN")
    )
  },
  Effect.fn(function*(flags) {
    const { issueClient } = yield* acts
    yield* issueClient(flags)
  })
).pipe(
  Command.withDescription("A certificate for a caller, who then is the owner of that name"),
  Command.withExamples([{ command: "stoker certs issue client alice", description: "alice.crt and alice.key" }])
)

const issue = Command.make("issue").pipe(
  Command.withDescription("Sign a certificate with a key of its own. Nothing is ever overwritten."),
  Command.withSubcommands([server, client])
)

const renew = Command.make(
  "renew",
  {
    ...common,
    days: days("as long as before"),
    name: Argument.String("name").pipe(Argument.withDescription("Of its files: NAME.crt, NAME.key"))
  },
  Effect.fn(function*(flags) {
    const { renewCertificate } = yield* acts
    yield* renewCertificate(flags)
  })
).pipe(
  Command.withDescription(
    "Replace a certificate and its key by new ones that say the same. A running worker takes them over by itself."
  )
)

const show = Command.make(
  "show",
  common,
  Effect.fn(function*(flags) {
    const { showCertificates } = yield* acts
    yield* showCertificates(flags)
  })
).pipe(Command.withDescription("What there is, and until when"))

const token = Command.make(
  "token",
  {
    json: Flags.json,
    name: Argument.String("name").pipe(Argument.withDescription("Whose jobs are started with it")),
    days: days("for ever")
  },
  Effect.fn(function*(flags) {
    const { makeToken } = yield* acts
    yield* makeToken(flags)
  })
).pipe(
  Command.withDescription(
    "Make a bearer token for HTTP callers without certificate: the token on stdout, once, and on stderr the line for the " +
      "worker's file of tokens, which holds only its hash"
  ),
  Command.withShortDescription("Make a bearer token")
)

export const certs = Command.make("certs").pipe(
  Command.withDescription(
    "An authority of your own for gRPC and HTTP: certificates say who a caller is. Servers and callers need ca.crt and their " +
      "own two files."
  ),
  Command.withShortDescription("Make certificates for the worker's doors and their callers"),
  Command.withSubcommands([init, issue, renew, show, token])
)
