/** Keys and certificates for tests: an authority, a server, and callers good and bad. Made in the process, once a file. */
import { Effect } from "effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import { type Certified, makeAuthority, makeLeaf, type Purpose, type Subject } from "../../src/layers/certs/X509.ts"

const hour = 3_600_000

const now = Date.now()
const usual = { fromMs: now - 300_000, toMs: now + 24 * hour }
const past = { fromMs: now - 48 * hour, toMs: now - 24 * hour }

const signed = async (
  authority: Certified,
  subject: Subject,
  purpose: Purpose = "client",
  validity = usual
): Promise<TlsMaterial> => {
  const hosts = purpose === "server" ? ["localhost", "127.0.0.1", "::1"] : []
  return {
    ca: authority.cert,
    ...await Effect.runPromise(makeLeaf(authority, { subject, purpose, hosts, ...validity }))
  }
}

const makeAll = async () => {
  const authority = await Effect.runPromise(makeAuthority("Test authority", usual))
  const rogueAuthority = await Effect.runPromise(makeAuthority("Test authority", usual))
  const rogue = await signed(rogueAuthority, { CN: "alice" })
  return {
    /** Signs more: `certificates.sign({ CN: "carol" })`. */
    sign: (subject: Subject, purpose?: Purpose, validity?: typeof usual) =>
      signed(authority, subject, purpose, validity),
    authority,
    /** For localhost, 127.0.0.1 and ::1. */
    server: await signed(authority, { CN: "server" }, "server"),
    /** Another key and certificate for the same server, for reloads. */
    nextServer: await signed(authority, { CN: "server" }, "server"),
    /** CN alice. */
    alice: await signed(authority, { CN: "alice" }),
    bob: await signed(authority, { CN: "bob" }),
    admin: await signed(authority, { CN: "admin" }),
    /** CN client, L alice: as workernator's were. */
    aliceInL: await signed(authority, { L: "alice", CN: "client" }),
    /** CN alice, until yesterday. */
    expired: await signed(authority, { CN: "alice" }, "client", past),
    /** CN alice by another authority of the same name, but trusts the right one: what an impostor would do. */
    rogue: { ...rogue, ca: authority.cert },
    /** The rogue's own. */
    rogueAuthority
  }
}

export type Certificates = Awaited<ReturnType<typeof makeAll>>

let made: Promise<Certificates> | undefined

/** All of them; the first call makes them (some 200 ms). */
export const certificates = (): Promise<Certificates> => made ??= makeAll()

/** Where a material lies. */
export interface MaterialFiles {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** Writes `ca.crt`, `NAME.crt` and `NAME.key` into a folder, which it makes. */
export const writeMaterial = (folder: string, name: string, material: TlsMaterial): MaterialFiles => {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const files = { ca: join(folder, "ca.crt"), cert: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) }
  for (const each of ["ca", "cert", "key"] as const) writeFileSync(files[each], material[each], { mode: 0o600 })
  return files
}
