/** Makes certificates: an authority's own, and leaves it signs. ECDSA P-256, each with a key of its own. */
import type * as Library from "@peculiar/x509"
import { Effect, Schema } from "effect"
import type { webcrypto } from "node:crypto"
import { isIP } from "node:net"
import { addReflectMetadata } from "./ReflectMetadata.ts"

/** Both PEM; the key as PKCS #8, not encrypted. */
export interface Certified {
  readonly cert: string
  readonly key: string
}

/** What may be put in a subject's name, in this order. */
export interface Subject {
  readonly L?: string
  readonly CN: string
}

/** Milliseconds since 1970; what is below a second is cut off. */
export interface Validity {
  readonly fromMs: number
  readonly toMs: number
}

/** Whom a leaf may be shown to. */
export type Purpose = "server" | "client"

/** What a leaf says. */
export interface Leaf extends Validity {
  readonly subject: Subject
  readonly purpose: Purpose
  /** Names and addresses of a server. */
  readonly hosts: ReadonlyArray<string>
}

/** The authority's files are not what they should be, or the library cannot do it. */
export class X509Error extends Schema.TaggedError<X509Error>()("X509Error", {
  what: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `${this.what}: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

const curve = { name: "ECDSA", namedCurve: "P-256" }
const signing = { name: "ECDSA", hash: "SHA-256" }

/** Loaded by whoever makes a certificate: 100 ms that nobody else pays. */
const library = async (): Promise<typeof Library> => {
  addReflectMetadata()
  return await import("@peculiar/x509")
}

const attempt = <A>(what: string, make: () => Promise<A>): Effect.Effect<A, X509Error> =>
  Effect.tryPromise({ try: make, catch: (cause) => new X509Error({ what, cause }) })

/** 127 random bits: positive, as the standard wants it, and never the same twice. */
const serialNumber = (): string => {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return Buffer.from(bytes).toString("hex")
}

const datesOf = ({ fromMs, toMs }: Validity) => ({
  notBefore: new Date(Math.floor(fromMs / 1000) * 1000),
  notAfter: new Date(Math.floor(toMs / 1000) * 1000)
})

const nameOf = ({ CN, L }: Subject) => [...(L === undefined ? [] : [{ L: [L] }]), { CN: [CN] }]

const newKeys = () => crypto.subtle.generateKey(curve, true, ["sign", "verify"])

const pem = (label: string, bytes: ArrayBuffer): string =>
  `-----BEGIN ${label}-----\n${
    Buffer.from(bytes).toString("base64").replaceAll(/(.{64})(?!$)/g, "$1\n")
  }\n-----END ${label}-----\n`

const certified = async (certificate: Library.X509Certificate, key: webcrypto.CryptoKey): Promise<Certified> => ({
  cert: pem("CERTIFICATE", certificate.rawData),
  key: pem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", key))
})

/** An authority that signs leaves only. */
export const makeAuthority = (name: string, validity: Validity): Effect.Effect<Certified, X509Error> =>
  attempt("the authority cannot be made", async () => {
    const x509 = await library()
    const keys = await newKeys()
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: serialNumber(),
      name: nameOf({ CN: name }),
      keys,
      signingAlgorithm: signing,
      ...datesOf(validity),
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
        await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey)
      ]
    })
    return await certified(certificate, keys.privateKey)
  })

const privateKeyOf = (key: string) => {
  const body = key.replaceAll(/-----[^-]+-----|\s/g, "")
  return crypto.subtle.importKey("pkcs8", Buffer.from(body, "base64"), curve, false, ["sign"])
}

/** Signs a new key for what `leaf` says. The caller sees to it that the authority is valid as long. */
export const makeLeaf = (authority: Certified, leaf: Leaf): Effect.Effect<Certified, X509Error> =>
  attempt("the certificate cannot be made", async () => {
    const x509 = await library()
    const issuer = new x509.X509Certificate(authority.cert)
    const signingKey = await privateKeyOf(authority.key)
    const keys = await newKeys()
    const hosts = leaf.hosts.map((value) => ({ type: isIP(value) === 0 ? "dns" as const : "ip" as const, value }))
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serialNumber(),
      subject: nameOf(leaf.subject),
      issuer: issuer.subjectName.toJSON(),
      publicKey: keys.publicKey,
      signingKey,
      signingAlgorithm: signing,
      ...datesOf(leaf),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([
          leaf.purpose === "server" ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth
        ]),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
        await x509.AuthorityKeyIdentifierExtension.create(await issuer.publicKey.export()),
        ...(hosts.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(hosts)])
      ]
    })
    return await certified(certificate, keys.privateKey)
  })
