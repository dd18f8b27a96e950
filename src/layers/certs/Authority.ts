/** A folder with an authority and what it signed: `ca.crt`, `ca.key`, `NAME.crt`, `NAME.key`. The work of `stoker certs`. */
import { Effect, Option, Schema } from "effect"
import { createPrivateKey, randomUUID, X509Certificate } from "node:crypto"
import * as fs from "node:fs/promises"
import { isIP } from "node:net"
import { join } from "node:path"
import { Owner } from "../../schemas/Ids.ts"
import { clientAuth, serverAuth } from "../api/TlsMaterial.ts"
import { codeOf, textOf } from "../host/Errno.ts"
import { makeFolder } from "../host/Folder.ts"
import { nowMs } from "../Now.ts"
import { type Certified, makeAuthority, makeLeaf, type Purpose, type Subject, type X509Error } from "./X509.ts"

/** Why it was not done, and what to do. */
export class CertsError extends Schema.TaggedError<CertsError>()("CertsError", {
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.reason}\n  ${this.remedy}`
  }
}

const day = 86_400_000
/** Clocks of two machines differ. */
const BACKDATED = 300_000

/** Days they are valid for when nobody says. */
export const standardDays = { authority: 5 * 365 + 1, server: 90, client: 30 } as const

/** Where a certificate and its key are. */
export interface Written {
  readonly name: string
  readonly cert: string
  readonly key: string
  readonly untilMs: number
  /** It ends with its authority, before it was asked to. */
  readonly shortened: boolean
}

const refused = (reason: string, remedy: string) => new CertsError({ reason, remedy })

const unexpected = (error: X509Error) => refused(error.message, "Look at ca.crt and ca.key: are they what init made?")

const attempt = <A>(what: string, act: () => Promise<A>): Effect.Effect<A, CertsError> =>
  Effect.tryPromise({
    try: act,
    catch: (cause) =>
      refused(
        `${what}: ${textOf(cause)}`,
        ["EACCES", "EPERM"].includes(codeOf(cause))
          ? "Do this as the user the folder belongs to, or name another one with --dir."
          : "Repair that, or name another folder with --dir."
      )
  })

const pathOf = (folder: string, name: string, kind: "crt" | "key") => join(folder, `${name}.${kind}`)

const exists = (path: string) =>
  attempt(`${path} cannot be looked at`, () =>
    fs.lstat(path).then(() => true, (cause: unknown) => {
      if (codeOf(cause) === "ENOENT") return false
      throw cause
    }))

/** Whole and on the disk under a name of its own, then moved to where it belongs, where `place` puts it. */
const writeWhole = (path: string, text: string, mode: number, place: (fresh: string) => Promise<void>) =>
  attempt(`${path} cannot be written`, async () => {
    const fresh = `${path}.${randomUUID()}.new`
    const file = await fs.open(fresh, "wx", mode)
    try {
      await file.writeFile(text)
      // The mode above is what the umask leaves of it.
      await file.chmod(mode)
      await file.sync()
    } finally {
      await file.close()
    }
    await place(fresh).finally(() => fs.rm(fresh, { force: true }))
  })

/** Only if there is none: a link is never made over a file. */
const create = (path: string, text: string, mode: number) =>
  writeWhole(path, text, mode, (fresh) => fs.link(fresh, path))

const removed = (path: string) => Effect.ignore(attempt("", () => fs.rm(path, { force: true })))

const writePair = Effect.fnUntraced(function*(folder: string, name: string, { cert, key }: Certified) {
  // The key first: who has it has the name.
  yield* create(pathOf(folder, name, "key"), key, 0o600)
  yield* create(pathOf(folder, name, "crt"), cert, 0o644).pipe(
    Effect.onError(() => removed(pathOf(folder, name, "key")))
  )
})

/** Replaces a file; owner and mode stay what the operator made them. */
const replace = Effect.fnUntraced(function*(path: string, text: string) {
  const old = yield* attempt(`${path} cannot be looked at`, () => fs.stat(path))
  yield* writeWhole(path, text, old.mode & 0o777, async (fresh) => {
    const { gid, uid } = await fs.stat(fresh)
    if (uid !== old.uid || gid !== old.gid) await fs.chown(fresh, old.uid, old.gid)
    await fs.rename(fresh, path)
  })
})

const readPem = (path: string) => attempt(`${path} cannot be read`, () => fs.readFile(path, "utf8"))

const parsed = (path: string, text: string) =>
  Effect.try({
    try: () => new X509Certificate(text),
    catch: () => refused(`${path} holds no certificate`, "Put back the file that was there, or move it away.")
  })

/** Makes an authority in a folder, which is made if it is not there. Never overwrites one. */
export const init = Effect.fn("Authority.init")(
  function*(folder: string, options: { readonly name: string; readonly days: number }) {
    const [cert, key] = [pathOf(folder, "ca", "crt"), pathOf(folder, "ca", "key")]
    yield* makeFolder(
      folder,
      (cause) => refused(`the folder ${folder} cannot be made: ${textOf(cause)}`, "Name another one with --dir.")
    )
    const { mode } = yield* attempt(`${folder} cannot be looked at`, () => fs.stat(folder))
    if ((mode & 0o077) !== 0) {
      return yield* refused(
        `the folder ${folder} is open to others (mode ${
          (mode & 0o777).toString(8)
        }), and would hold the authority's key`,
        `Close it (chmod 700 ${folder}), or name another one with --dir.`
      )
    }
    const there = yield* Effect.filter([cert, key], exists)
    if (there.length > 0) {
      return yield* refused(
        `there is an authority already: ${there.join(", ")}`,
        there.length === 2
          ? "`stoker certs issue` signs with it. For another one name another folder with --dir."
          : "Put back the other file of the two; or, if nothing was signed with it, remove this one."
      )
    }
    const now = yield* nowMs
    const untilMs = now + options.days * day
    const made = yield* makeAuthority(options.name, { fromMs: now - BACKDATED, toMs: untilMs })
    yield* writePair(folder, "ca", made)
    return { name: "ca", cert, key, untilMs, shortened: false } satisfies Written
  },
  Effect.catchTag("X509Error", unexpected)
)

interface Authority extends Certified {
  readonly untilMs: number
}

/** The authority of a folder, ready to sign. */
const authorityOf = Effect.fnUntraced(function*(folder: string): Effect.fn.Return<Authority, CertsError> {
  const [certFile, keyFile] = [pathOf(folder, "ca", "crt"), pathOf(folder, "ca", "key")]
  for (const file of [certFile, keyFile]) {
    if (yield* exists(file)) continue
    return yield* refused(
      `there is no authority in ${folder}: ${file} is missing`,
      "Make one: stoker certs init. Or name its folder with --dir."
    )
  }
  const cert = yield* readPem(certFile)
  const key = yield* readPem(keyFile)
  const certificate = yield* parsed(certFile, cert)
  const isOwn = yield* Effect.try({
    try: () => certificate.checkPrivateKey(createPrivateKey(key)),
    catch: () => refused(`${keyFile} holds no private key`, "Put back the file that init made.")
  })
  if (!isOwn) {
    return yield* refused(`${keyFile} is not the key of ${certFile}`, "Put back the two files that init made.")
  }
  if (!certificate.ca) {
    return yield* refused(`${certFile} is not an authority's certificate`, "Put back the file that init made.")
  }
  const untilMs = certificate.validToDate.getTime()
  if (untilMs <= (yield* nowMs)) {
    return yield* refused(
      `the authority in ${folder} ended at ${certificate.validToDate.toISOString()}`,
      "Make a new one in another folder (stoker certs init --dir NEW), certificates with it, and give all sides both ca.crt " +
        "in one file while they change over."
    )
  }
  return { cert, key, untilMs }
})

const isOwner = Schema.is(Owner)

const checkName = (name: string): Effect.Effect<void, CertsError> =>
  !isOwner(name)
    ? Effect.fail(refused(
      `${JSON.stringify(name)} cannot be a name`,
      "Names have 1 to 128 letters, digits, '.', '_', '@' and '-', begin with a letter or digit, and have no '..'."
    ))
    : name === "ca"
    ? Effect.fail(refused("the name ca is the authority's own", "Choose another name."))
    : Effect.void

const label = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
const dnsName = new RegExp(`^(\\*\\.)?${label}(\\.${label})*$`)

const checkHost = (host: string): Effect.Effect<void, CertsError> =>
  isIP(host) !== 0 || (host.length <= 253 && dnsName.test(host))
    ? Effect.void
    : Effect.fail(refused(
      `${JSON.stringify(host)} is no host`,
      "Give DNS names or IP addresses, without port: --host worker.example.com --host 10.0.0.1"
    ))

/** What a certificate is to be for. */
export interface Wanted {
  readonly name: string
  readonly purpose: Purpose
  readonly subject: Subject
  readonly hosts: ReadonlyArray<string>
  readonly days: number
}

const sign = Effect.fnUntraced(function*(authority: Authority, { days, ...leaf }: Wanted) {
  const now = yield* nowMs
  const wishedMs = now + days * day
  const untilMs = Math.min(wishedMs, authority.untilMs)
  const made = yield* makeLeaf(authority, { ...leaf, fromMs: now - BACKDATED, toMs: untilMs })
  return { made, untilMs, shortened: untilMs < wishedMs }
})

const written = (folder: string, name: string) => ({
  name,
  cert: pathOf(folder, name, "crt"),
  key: pathOf(folder, name, "key")
})

/** A new certificate with a key of its own. Never overwrites one. */
export const issue = Effect.fn("Authority.issue")(
  function*(folder: string, wanted: Wanted) {
    yield* checkName(wanted.name)
    yield* Effect.forEach(wanted.hosts, checkHost)
    const authority = yield* authorityOf(folder)
    const files = written(folder, wanted.name)
    const there = yield* Effect.filter([files.cert, files.key], exists)
    if (there.length > 0) {
      return yield* refused(
        `there is one of that name already: ${there.join(", ")}`,
        `Choose another name, or make it anew: stoker certs renew ${wanted.name}`
      )
    }
    const { made, ...rest } = yield* sign(authority, wanted)
    yield* writePair(folder, wanted.name, made)
    return { ...files, ...rest } satisfies Written
  },
  Effect.catchTag("X509Error", unexpected)
)

/** What a certificate says, as `show` tells it. */
export interface Shown {
  readonly name: string
  readonly kind: "authority" | Purpose | "other"
  /** As in the subject. */
  readonly subject: Partial<Subject>
  readonly hosts: ReadonlyArray<string>
  readonly fromMs: number
  readonly untilMs: number
  readonly serial: string
  readonly state: "valid" | "ended" | "not yet" | "of another authority"
}

const fieldOf = (subject: string, field: string) =>
  subject.split("\n").filter((line) => line.startsWith(`${field}=`)).map((line) => line.slice(field.length + 1))

const subjectOf = ({ subject }: X509Certificate): Partial<Subject> => {
  const [[CN, ...otherCN], [L, ...otherL]] = [fieldOf(subject ?? "", "CN"), fieldOf(subject ?? "", "L")]
  return {
    ...(L === undefined || otherL.length > 0 ? {} : { L }),
    ...(CN === undefined || otherCN.length > 0 ? {} : { CN })
  }
}

/** Those we have put there: what needs quotes is none of them. */
const hostsOf = ({ subjectAltName }: X509Certificate): ReadonlyArray<string> =>
  (subjectAltName ?? "").split(", ").flatMap((entry) => /^(?:DNS|IP Address):([^"]+)$/.exec(entry)?.[1] ?? [])

const kindOf = (certificate: X509Certificate): Shown["kind"] => {
  if (certificate.ca) return "authority"
  // Named so in Node, it is the extended key usage.
  const purposes: ReadonlyArray<string> | undefined = certificate.keyUsage
  if (purposes?.includes(serverAuth) === true) return "server"
  return purposes?.includes(clientAuth) === true ? "client" : "other"
}

/** A new key and certificate that say what the old ones do; each file is replaced in one step. */
export const renew = Effect.fn("Authority.renew")(
  function*(folder: string, options: { readonly name: string; readonly days: Option.Option<number> }) {
    const { name } = options
    yield* checkName(name)
    const authority = yield* authorityOf(folder)
    const files = written(folder, name)
    for (const file of [files.cert, files.key]) {
      if (yield* exists(file)) continue
      return yield* refused(
        `${name} cannot be renewed: ${file} is missing`,
        `Make it: stoker certs issue client ${name}. What there is: stoker certs show`
      )
    }
    const old = yield* parsed(files.cert, yield* readPem(files.cert))
    const kind = kindOf(old)
    const { CN, L } = subjectOf(old)
    if (CN === undefined || (kind !== "server" && kind !== "client")) {
      return yield* refused(
        `${files.cert} is not one that \`stoker certs\` made`,
        "Renew it where it came from, or move both files away and issue one."
      )
    }
    const lifetime = old.validToDate.getTime() - old.validFromDate.getTime() - BACKDATED
    const { made, ...rest } = yield* sign(authority, {
      name,
      purpose: kind,
      subject: { CN, ...(L === undefined ? {} : { L }) },
      hosts: hostsOf(old),
      days: Option.getOrElse(options.days, () => Math.max(lifetime / day, 1))
    })
    yield* replace(files.key, made.key)
    yield* replace(files.cert, made.cert)
    return { ...files, ...rest } satisfies Written
  },
  Effect.catchTag("X509Error", unexpected)
)

/** All certificates of a folder, the authority first; `broken` are files that hold none. */
export const show = Effect.fn("Authority.show")(function*(folder: string) {
  const names = yield* attempt(`the folder ${folder} cannot be read`, () => fs.readdir(folder)).pipe(
    Effect.mapError(({ reason }) =>
      refused(reason, "Make an authority: stoker certs init. Or name its folder with --dir.")
    )
  )
  const now = yield* nowMs
  const authorities = names.includes("ca.crt")
    ? yield* Effect.option(Effect.flatMap(readPem(pathOf(folder, "ca", "crt")), (text) => parsed("ca.crt", text)))
    : Option.none<X509Certificate>()
  const broken: Array<string> = []
  const shown: Array<Shown> = []
  for (const file of names.filter((name) => name.endsWith(".crt")).toSorted()) {
    const path = join(folder, file)
    const read = yield* Effect.option(Effect.flatMap(readPem(path), (text) => parsed(path, text)))
    if (Option.isNone(read)) {
      broken.push(path)
      continue
    }
    const certificate = read.value
    const [fromMs, untilMs] = [certificate.validFromDate.getTime(), certificate.validToDate.getTime()]
    const isOurs = Option.exists(
      authorities,
      (authority) => certificate.checkIssued(authority) && certificate.verify(authority.publicKey)
    )
    shown.push({
      name: file.slice(0, -".crt".length),
      kind: kindOf(certificate),
      subject: subjectOf(certificate),
      hosts: hostsOf(certificate),
      fromMs,
      untilMs,
      serial: certificate.serialNumber,
      state: !isOurs ? "of another authority" : untilMs <= now ? "ended" : fromMs > now ? "not yet" : "valid"
    })
  }
  const last = ({ kind }: Shown) => kind === "authority" ? 0 : 1
  return { certificates: shown.toSorted((one, other) => last(one) - last(other)), broken }
})
