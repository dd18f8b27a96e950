/** What both sides of a connection are made of, and what TLS is told of it: in one place for gRPC and HTTP. */
import { constants } from "node:crypto"
import type { SecureContextOptions, TlsOptions } from "node:tls"

/** PEM. `ca`: whom the other side must be signed by. `cert` may hold a chain, the leaf first. */
export interface TlsMaterial {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** Extended key usages (RFC 5280, 4.2.1.12). */
export const serverAuth = "1.3.6.1.5.5.7.3.1"
export const clientAuth = "1.3.6.1.5.5.7.3.2"

/** Nothing below TLS 1.3 on either side. */
const least = { minVersion: "TLSv1.3" } as const

/**
 * What may change while a server runs: for `setSecureContext` and gRPC's credentials. No session tickets: with one, a client
 * would come back without showing its certificate, also after that has ended.
 */
export const secureContext = ({ ca, cert, key }: TlsMaterial): SecureContextOptions => ({
  ca,
  cert,
  key,
  ...least,
  secureOptions: constants.SSL_OP_NO_TICKET
})

/** A server's: a client without a certificate of our authority never gets to speak. */
export const serverTls = (
  material: TlsMaterial
): SecureContextOptions & Pick<TlsOptions, "requestCert" | "rejectUnauthorized"> => ({
  ...secureContext(material),
  requestCert: true,
  rejectUnauthorized: true
})

/** A client's: for `https.request`, `tls.connect`, `http2.connect`. */
export const clientTls = (material: TlsMaterial): SecureContextOptions & { readonly rejectUnauthorized: true } => ({
  ...secureContext(material),
  rejectUnauthorized: true
})
