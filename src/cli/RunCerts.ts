/** What `stoker certs` does and prints. */
import { DateTime, Effect, Option, Schema } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { basename, join, resolve } from "node:path"
import * as Authority from "../layers/certs/Authority.ts"
import { nowMs } from "../layers/Now.ts"
import { Owner } from "../schemas/Ids.ts"
import { exitWith, usageFailure } from "./CliFailure.ts"
import { exitCode } from "./ExitCode.ts"
import { print, say, wantsColour } from "./Output.ts"
import { stateDirectory } from "./StateDirectory.ts"
import { style, table } from "./Style.ts"

interface Common {
  readonly dir: Option.Option<string>
  readonly json: boolean
}

const folderOf = Effect.fnUntraced(function*({ dir }: Common) {
  return Option.isSome(dir) ? resolve(dir.value) : join(yield* stateDirectory(Option.none()), "certs")
})

const asUsage = <A, R>(effect: Effect.Effect<A, Authority.CertsError, R>) =>
  Effect.mapError(effect, ({ reason, remedy }) => usageFailure(reason, remedy))

/** What a hint's command needs to find the same folder. */
const inFolder = ({ dir }: Common) => Option.match(dir, { onNone: () => "", onSome: (path) => ` --dir ${path}` })

const isoOf = (ms: number) => DateTime.formatIso(DateTime.makeUnsafe(Math.floor(ms / 1000) * 1000)).replace(".000", "")

const told = Effect.fnUntraced(function*(json: boolean, written: Authority.Written, hints: ReadonlyArray<string>) {
  const { cert, key, name, shortened, untilMs } = written
  if (json) return yield* print(JSON.stringify({ name, cert, key, until: isoOf(untilMs) }))
  yield* print(`${cert}\n${key}`)
  yield* say(
    [
      `stoker: valid until ${isoOf(untilMs)}${shortened ? ", when its authority ends" : ""}`,
      ...hints.map((hint) => `  ${hint}`)
    ].join("\n")
  )
})

export const initAuthority = Effect.fn("RunCerts.initAuthority")(
  function*(flags: Common & { readonly name: string; readonly days: Option.Option<number> }) {
    const folder = yield* folderOf(flags)
    const days = Option.getOrElse(flags.days, () => Authority.standardDays.authority)
    const written = yield* asUsage(Authority.init(folder, { name: flags.name, days }))
    yield* told(flags.json, written, [
      "ca.key can sign any name: it stays in this folder. ca.crt is for everybody.",
      `Next: stoker certs issue server --host NAME${inFolder(flags)}, and stoker certs issue client NAME${
        inFolder(flags)
      }`
    ])
  }
)

const LOOPBACK = ["localhost", "127.0.0.1", "::1"]

export const issueServer = Effect.fn("RunCerts.issueServer")(
  function*(
    flags: Common & {
      readonly name: string
      readonly host: ReadonlyArray<string>
      readonly days: Option.Option<number>
    }
  ) {
    const folder = yield* folderOf(flags)
    const written = yield* asUsage(Authority.issue(folder, {
      name: flags.name,
      purpose: "server",
      subject: { CN: flags.name },
      hosts: flags.host.length === 0 ? LOOPBACK : flags.host,
      days: Option.getOrElse(flags.days, () => Authority.standardDays.server)
    }))
    yield* told(flags.json, written, [`Before that: stoker certs renew ${written.name}${inFolder(flags)}`])
  }
)

export const issueClient = Effect.fn("RunCerts.issueClient")(
  function*(
    flags: Common & { readonly name: string; readonly field: "CN" | "L"; readonly days: Option.Option<number> }
  ) {
    const folder = yield* folderOf(flags)
    const written = yield* asUsage(Authority.issue(folder, {
      name: flags.name,
      purpose: "client",
      subject: flags.field === "L" ? { L: flags.name, CN: "client" } : { CN: flags.name },
      hosts: [],
      days: Option.getOrElse(flags.days, () => Authority.standardDays.client)
    }))
    yield* told(flags.json, written, [
      `${basename(written.cert)}, ${basename(written.key)} and ca.crt are what ${written.name} needs, and nobody else.`
    ])
  }
)

export const renewCertificate = Effect.fn("RunCerts.renewCertificate")(
  function*(flags: Common & { readonly name: string; readonly days: Option.Option<number> }) {
    const folder = yield* folderOf(flags)
    yield* told(flags.json, yield* asUsage(Authority.renew(folder, flags)), [])
  }
)

const day = 86_400_000

const stateText = ({ state, untilMs }: Authority.Shown, now: number) => {
  const look = style(wantsColour("stdout"))
  if (state !== "valid") return look.red(state)
  const left = Math.floor((untilMs - now) / day)
  const text = `${left} ${left === 1 ? "day" : "days"} left`
  return left < 7 ? look.yellow(text) : text
}

export const showCertificates = Effect.fn("RunCerts.showCertificates")(function*(flags: Common) {
  const folder = yield* folderOf(flags)
  const { broken, certificates } = yield* asUsage(Authority.show(folder))
  const now = yield* nowMs
  if (flags.json) {
    yield* print(JSON.stringify(certificates.map(({ fromMs, untilMs, ...rest }) => ({
      ...rest,
      from: isoOf(fromMs),
      until: isoOf(untilMs)
    }))))
  } else if (certificates.length === 0) {
    yield* say(`stoker: no certificates in ${folder}\n  Make an authority: stoker certs init`)
  } else {
    const rows = certificates.map((each) => [
      each.name,
      each.kind,
      each.subject.L === undefined ? `CN=${each.subject.CN ?? "?"}` : `L=${each.subject.L}`,
      each.hosts.join(",") || "-",
      isoOf(each.untilMs),
      stateText(each, now)
    ])
    yield* print(table([["NAME", "FOR", "SUBJECT", "HOSTS", "UNTIL", "STATE"], ...rows]))
  }
  if (broken.length > 0) yield* say(broken.map((path) => `stoker: ${path} holds no certificate`).join("\n"))
  yield* exitWith(broken.length === 0 ? 0 : exitCode.usage)
})

const isOwner = Schema.is(Owner)

export const makeToken = Effect.fn("RunCerts.makeToken")(
  function*(flags: { readonly name: string; readonly days: Option.Option<number>; readonly json: boolean }) {
    if (!isOwner(flags.name)) {
      return yield* usageFailure(
        `${JSON.stringify(flags.name)} cannot be a name`,
        "Names have 1 to 128 letters, digits, '.', '_', '@' and '-', begin with a letter or digit, and have no '..'."
      )
    }
    // The prefix is for those who look for secrets where none should be.
    const token = `stoker_${randomBytes(32).toString("base64url")}`
    const now = yield* nowMs
    const entry = {
      name: flags.name,
      sha256: createHash("sha256").update(token).digest("hex"),
      ...(Option.isSome(flags.days) ? { expiresAt: isoOf(now + flags.days.value * day) } : {})
    }
    if (flags.json) return yield* print(JSON.stringify({ token, entry }))
    yield* print(token)
    yield* say(
      `stoker: shown this once. For the worker's file, {"tokens": [ … ]}:\n${JSON.stringify(entry)}`
    )
  }
)
