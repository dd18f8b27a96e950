/** What both sides of a connection are made of, and what TLS is told of it: in one place for gRPC and HTTP. */
import type { SecureContextOptions, TlsOptions } from "node:tls"

/** PEM. `ca`: whom the other side must be signed by. `cert` may hold a chain, the leaf first. */
export interface TlsMaterial {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** Nothing below TLS 1.3 on either side. */
const least = { minVersion: "TLSv1.3" } as const

/** What may change while a server runs: for `setSecureContext` and gRPC's credentials. */
export const secureContext = ({ ca, cert, key }: TlsMaterial): SecureContextOptions => ({ ca, cert, key, ...least })

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
