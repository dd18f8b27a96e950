/** The certificates a door or a client shows and trusts, from files that may change while it runs. */
import { Context, Effect, Layer, type Scope, Stream } from "effect"
import { createPrivateKey, X509Certificate } from "node:crypto"
import { createSecureContext } from "node:tls"
import { FileRefused, watched, type WatchOptions } from "../config/Watched.ts"
import { textOf } from "../host/Errno.ts"
import { nowMs } from "../Now.ts"
import { clientAuth, secureContext, serverAuth, type TlsMaterial } from "./TlsMaterial.ts"

/** What one side shows and trusts. */
export class Tls extends Context.Service<Tls, {
  readonly material: Effect.Effect<TlsMaterial>
  /** The present one, then each that takes its place; all of them fit together. */
  readonly changes: Stream.Stream<TlsMaterial>
}>()("stoker/layers/api/Tls") {}

/** Where a material lies, PEM. */
export interface TlsFiles {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

export type Side = "server" | "client"

const sides = { server: serverAuth, client: clientAuth }

const blocks = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g

/** What is wrong with a material for that side, if anything; `files` are where it came from. */
export const checkMaterial = Effect.fnUntraced(function*(
  material: TlsMaterial,
  files: TlsFiles,
  side: Side
): Effect.fn.Return<TlsMaterial, FileRefused> {
  const now = yield* nowMs
  const refuse = (file: keyof TlsFiles, reason: string, remedy: string) =>
    new FileRefused({ file: files[file], reason, remedy })
  const certificates = (file: "ca" | "cert") =>
    Effect.try({
      try: () => {
        const texts = material[file].match(blocks) ?? []
        if (texts.length === 0) throw new Error("there is no BEGIN CERTIFICATE in it")
        return texts.map((text) => new X509Certificate(text))
      },
      catch: (cause) =>
        refuse(file, `it holds no certificate: ${textOf(cause)}`, "Put a PEM file there: `stoker certs` makes them.")
    })
  const isNow = (certificate: X509Certificate) =>
    certificate.validFromDate.getTime() <= now && now < certificate.validToDate.getTime()

  const trusted = yield* certificates("ca")
  if (!trusted.some(({ ca }) => ca)) {
    return yield* refuse("ca", "it holds no authority's certificate", "Name the authority's file here: ca.crt.")
  }
  if (!trusted.some((certificate) => certificate.ca && isNow(certificate))) {
    const until = trusted.map(({ validToDate }) => validToDate.toISOString()).toSorted().at(-1)
    return yield* refuse(
      "ca",
      `none of its authorities is valid now, the last one until ${until}`,
      "Make a new one and new certificates: stoker certs init"
    )
  }
  const [leaf] = yield* certificates("cert")
  if (leaf === undefined) return yield* Effect.die("no certificate")
  const key = yield* Effect.try({
    try: () => createPrivateKey(material.key),
    catch: (cause) =>
      refuse("key", `it holds no private key: ${textOf(cause)}`, "Put a PEM key without a passphrase there.")
  })
  if (!leaf.checkPrivateKey(key)) {
    return yield* refuse(
      "key",
      `it is not the key of the certificate in ${files.cert}`,
      "Name two files that were made together; `stoker certs renew NAME` makes both anew."
    )
  }
  if (!isNow(leaf)) {
    const isOver = leaf.validToDate.getTime() <= now
    return yield* refuse(
      "cert",
      isOver
        ? `its certificate ended at ${leaf.validToDate.toISOString()}`
        : `its certificate begins only at ${leaf.validFromDate.toISOString()}`,
      isOver ? "Renew it: stoker certs renew NAME" : "Set the clock of one of the two machines."
    )
  }
  // Its name in Node is that of another extension. Without the extension it is good for both.
  const purposes: ReadonlyArray<string> | undefined = leaf.keyUsage
  if (purposes !== undefined && !purposes.includes(sides[side])) {
    return yield* refuse(
      "cert",
      `its certificate is not one for a ${side}`,
      `Make one: stoker certs issue ${side === "server" ? "server --host NAME" : "client NAME"}`
    )
  }
  // What OpenSSL itself would not take, e.g. a key that is too short.
  yield* Effect.try({
    try: () => createSecureContext(secureContext(material)),
    catch: (cause) => refuse("cert", `it cannot be used: ${textOf(cause)}`, "Make another: stoker certs renew NAME")
  })
  return material
})

/** Days before the end at which the log begins to say so. */
const soonDays = 3
const day = 86_400_000

const warnOfEnd = Effect.fnUntraced(function*({ cert }: TlsMaterial, file: string) {
  const left = new X509Certificate(cert).validToDate.getTime() - (yield* nowMs)
  if (left > soonDays * day) return
  yield* Effect.logWarning(
    `${file}: the certificate ends in ${(left / day).toFixed(1)} days. Renew it: stoker certs renew NAME`
  )
})

const make = Effect.fnUntraced(function*(
  files: TlsFiles,
  side: Side,
  poll: WatchOptions<string, unknown>["poll"]
): Effect.fn.Return<Tls["Service"], FileRefused, Scope.Scope> {
  const { changes, current } = yield* watched({
    what: `the ${side}'s certificates`,
    files: { ca: files.ca, cert: files.cert, key: files.key },
    read: (texts) => checkMaterial(texts, files, side),
    ...(poll === undefined ? {} : { poll })
  })
  yield* current.pipe(
    Effect.flatMap((material) => warnOfEnd(material, files.cert)),
    Effect.andThen(Effect.sleep("12 hours")),
    Effect.forever,
    Effect.forkScoped
  )
  return { material: current, changes }
})

/**
 * Three files, read again when they change. A change that does not fit together (a key of another certificate, an ended one,
 * garbage) is refused in the log, and the former stays; at the start it is an error.
 */
export const layerFiles = (
  files: TlsFiles,
  side: Side,
  options: Pick<WatchOptions<string, unknown>, "poll"> = {}
): Layer.Layer<Tls, FileRefused> => Layer.effect(Tls, make(files, side, options.poll))

/** One that never changes. */
export const layerFixed = (material: TlsMaterial): Layer.Layer<Tls> =>
  Layer.succeed(Tls, { material: Effect.succeed(material), changes: Stream.make(material) })

/** Gives a server each new material for as long as the scope lives; the connections there are stay. */
export const follow = (tls: Tls["Service"], apply: (material: TlsMaterial) => void) =>
  tls.changes.pipe(
    Stream.drop(1),
    Stream.runForEach((material) =>
      Effect.try(() => apply(material)).pipe(
        Effect.catch((cause) => Effect.logError("new certificates are not taken over", cause))
      )
    ),
    Effect.forkScoped({ startImmediately: true })
  )
